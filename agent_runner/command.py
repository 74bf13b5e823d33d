"""`ao runner`: runs the agents of a Python file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from types import ModuleType

    from agent_runner.agent import Agent

LOG_LEVELS = ("debug", "info", "warning", "error")
CANNOT_RUN = 2


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--server", help="HOST:PORT of the server.  [default: AGENT_ORCHESTRATION_SERVER or 127.0.0.1:50051]")
@click.option("--api-key", help="Better given as AGENT_ORCHESTRATION_API_KEY: arguments can be seen by others.")
@click.option(
    "--drain-timeout",
    default=25.0,
    show_default=True,
    type=click.FloatRange(0, 86_400),
    help="Seconds that running tasks get after SIGTERM or Ctrl-C.",
)
@click.option("--log-level", default="info", show_default=True, type=click.Choice(LOG_LEVELS))
def runner(file: Path, server: str | None, api_key: str | None, drain_timeout: float, log_level: str) -> None:
    """Run every agent that FILE defines at module level."""
    import logging

    from agent_runner import process

    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=log_level.upper())
    for chatty in ("asyncio", "grpc"):
        logging.getLogger(chatty).setLevel(max(logging.INFO, logging.getLogger().level))
    agents = _agents(_load(file), file)
    process.exit_soon(process.run(agents, server, api_key, drain_timeout))


def _load(file: Path) -> "ModuleType":
    import importlib.util

    path = file.resolve()
    if not path.is_file():
        _fail(f"{file} does not exist" if not path.exists() else f"{file} is not a file")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        _fail(f"{file} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(specification)
    # Modules beside the file can be imported, and what the file defines can be found by name, as if it had been run.
    sys.path.insert(0, str(path.parent))
    sys.modules[path.stem] = module
    try:
        specification.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _fail(f"{_place(error, path, file)} cannot be imported: {_described(error)}")
    return module


def _agents(module: "ModuleType", file: Path) -> "list[Agent]":
    from agent_runner.agent import Agent

    # One agent may have several names.
    agents = list({id(value): value for value in vars(module).values() if isinstance(value, Agent)}.values())
    if not agents:
        _fail(f"{file} defines no Agent at module level")
    for agent in agents:
        if not agent.task_types:
            _fail(f"agent {agent.name!r} in {file} has no task functions: register them with @agent.task(...)")
    return agents


def _place(error: BaseException, path: Path, file: Path) -> str:
    """FILE:LINE of the innermost frame within the file."""
    import traceback

    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{file}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{file}:{lines[-1]}" if lines else str(file)


def _described(error: BaseException) -> str:
    import traceback

    return " ".join("".join(traceback.format_exception_only(error)[-1:]).split())


def _fail(message: str) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(CANNOT_RUN)
