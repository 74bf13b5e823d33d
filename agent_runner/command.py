"""`ao runner`: runs the agents of a Python file, or a program as an agent."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

if TYPE_CHECKING:
    from agent_runner.definition import Definition

LOG_LEVELS = ("debug", "info", "warning", "error")
CANNOT_RUN = 2
_REST: Final = "agent_runner.rest"


class Split(click.Command):
    """A command whose words after `--` are for somebody else."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses what comes before it."""
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[_REST] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The two ways to call it."""
        return ["[OPTIONS]", "FILE | --exec PROGRAM --name NAME --type TYPE [OPTIONS] [-- ARGUMENT...]"]


@click.command(cls=Split)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--server",
    help="HOST:PORT or https://HOST:PORT of the server.  [default: AGENT_ORCHESTRATION_SERVER or 127.0.0.1:50051]",
)
@click.option("--api-key", help="Better given as AGENT_ORCHESTRATION_API_KEY: arguments can be seen by others.")
@click.option(
    "--drain-timeout",
    default=25.0,
    show_default=True,
    type=click.FloatRange(0, 86_400),
    help="Seconds that running tasks get after SIGTERM or Ctrl-C.",
)
@click.option("--log-level", default="info", show_default=True, type=click.Choice(LOG_LEVELS))
@click.option("--exec", "program", metavar="PROGRAM", help="Run this program for each task.")
@click.option("--name", help="With --exec: name of the agent.")
@click.option("--type", "type_", help="With --exec: type of the agent.")
@click.option("--task-type", "task_types", multiple=True, help="With --exec, repeatable: what it takes.  [default: *]")
@click.option("--max-concurrent-tasks", type=int, help="With --exec: programs at a time.  [default: 10]")
@click.option("--timeout", type=float, help="With --exec: seconds that one run may take.")
@click.option("--retry-attempts", type=int, help="With --exec: how often a failed task is tried again.")
@click.pass_context
def runner(
    ctx: click.Context,
    file: Path | None,
    server: str | None,
    api_key: str | None,
    drain_timeout: float,
    log_level: str,
    program: str | None,
    **about: Any,
) -> None:
    """Run every agent that FILE defines at module level, or a PROGRAM as an agent of its own."""
    import logging

    from agent_runner import process

    rest: list[str] = ctx.meta[_REST]
    if program is None:
        file = _only_file(file, rest, about)
    elif file is not None:
        raise click.UsageError("FILE and --exec exclude each other; arguments of the program come after --")
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=log_level.upper())
    for chatty in ("asyncio", "grpc"):
        logging.getLogger(chatty).setLevel(max(logging.INFO, logging.getLogger().level))
    agents = _agents(file) if file is not None else [_program(program or "", rest, **about)]
    process.exit_soon(process.run(agents, server, api_key, drain_timeout))


def _only_file(file: Path | None, rest: Sequence[str], about: dict[str, Any]) -> Path:
    given = [name.rstrip("_").replace("_", "-") for name, value in about.items() if value not in (None, ())]
    if given:
        raise click.UsageError(f"--{given[0].replace('task-types', 'task-type')} is for --exec; a file says it itself")
    if file is None and len(rest) == 1:
        return Path(rest[0])
    if file is None:
        raise click.UsageError("a FILE with agents is needed, or --exec PROGRAM")
    if rest:
        raise click.UsageError("arguments after -- are for --exec")
    return file


def _agents(file: Path) -> "list[Definition]":
    from agent_runner.agent import Agent
    from agent_runner.source import CannotLoad, load

    try:
        module = load(file)
    except CannotLoad as problem:
        _fail(str(problem))
    # One agent may have several names.
    agents = list({id(value): value for value in vars(module).values() if isinstance(value, Agent)}.values())
    if not agents:
        _fail(f"{file} defines no Agent at module level")
    for agent in agents:
        if not agent.task_types:
            _fail(f"agent {agent.name!r} in {file} has no task functions: register them with @agent.task(...)")
    return [agent.definition() for agent in agents]


def _program(
    name_of_program: str,
    arguments: Sequence[str],
    *,
    name: str | None,
    type_: str | None,
    task_types: Sequence[str],
    max_concurrent_tasks: int | None,
    timeout: float | None,
    retry_attempts: int | None,
) -> "Definition":
    from agent_runner.agent import DEFAULT_CONCURRENT_TASKS, Agent
    from agent_runner.program import CannotStart, Program

    if name is None or type_ is None:
        raise click.UsageError("--exec needs --name and --type")
    slots = DEFAULT_CONCURRENT_TASKS if max_concurrent_tasks is None else max_concurrent_tasks
    try:
        agent = Agent(name, type_, max_concurrent_tasks=slots, timeout=timeout, retry_attempts=retry_attempts)
        return agent.running(Program.found(name_of_program, arguments), task_types or ("*",))
    except ValueError as problem:
        raise click.UsageError(str(problem)) from None
    except CannotStart as problem:
        _fail(str(problem))


def _fail(message: str) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(CANNOT_RUN)
