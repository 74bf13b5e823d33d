"""The commands of `ao`. Each is imported only when it is called, so that none pays for another."""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

import click

from agent_orchestration import __version__
from agent_orchestration.cli import INTERRUPTED


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command is: `module:attribute`, the extra that it needs, and what it does."""

    at: str
    extra: str
    summary: str


COMMANDS: Final = {
    "admin-key": Place("ao_server.command:admin_key", "server", "Make a new admin key, with the server stopped."),
    "dev": Place("agent_orchestration.cli.dev:dev", "server", "Serve REST, WebSocket and gRPC on this machine."),
    "gateway": Place("ao_gateway.command:gateway", "server", "Run the REST and WebSocket gateway alone."),
    "runner": Place("agent_runner.command:runner", "runner", "Run the agents of a file, or a program as an agent."),
    "server": Place("ao_server.command:server", "server", "Run the gRPC server alone."),
}
# Modules that tell whether an extra is installed; looked for, not imported.
EXTRAS: Final[dict[str, Sequence[str]]] = {
    "runner": ("google.api", "grpc"),
    "server": ("grpc", "sqlalchemy", "sqlmodel", "starlette", "structlog", "uvicorn"),
}


class MissingExtra(click.ClickException):
    """A command whose dependencies are not installed."""

    exit_code = 1

    def __init__(self, command: str, extra: str) -> None:
        super().__init__(f"'ao {command}' needs the extra: pip install 'agent-orchestration[{extra}]'")


class Commands(click.Group):
    """Finds commands by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, None for an unknown name. MissingExtra when what it needs is not installed."""
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        if not all(_is_installed(module) for module in EXTRAS[place.extra]):
            raise MissingExtra(cmd_name, place.extra)
        module, name = place.at.split(":")
        return getattr(importlib.import_module(module), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list within `ao --help`, for which nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in self.list_commands(ctx)])


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="ao", message="%(prog)s %(version)s")
def ao() -> None:
    """Run and use a control plane for agents."""


def run() -> int:
    """Runs the command line; returns the exit code. Errors are one line, with a hint where usage was wrong."""
    try:
        # None when a command returns; the code when an option such as --help ends it.
        return ao.main(prog_name="ao", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as help:
        click.echo(help.format_message())
        return help.exit_code
    except click.ClickException as problem:
        click.echo(f"error: {problem.format_message()}", err=True)
        if isinstance(problem, click.UsageError) and problem.ctx is not None:
            click.echo(f"hint: {problem.ctx.command_path} --help", err=True)
        return problem.exit_code
    except click.Abort:
        return INTERRUPTED


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
