"""`ao`: the command. Each subcommand is imported only when it is called, so that none pays for another."""

import importlib
import sys
from typing import Final

import click

from agent_orchestration import __version__

# Name, where the click command is, the extra that it needs, what it does.
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "dev": ("agent_orchestration.cli.dev:dev", "server", "Serve REST, WebSocket and gRPC on this machine."),
    "gateway": ("ao_gateway.command:gateway", "server", "Run the REST and WebSocket gateway alone."),
    "runner": ("agent_runner.command:runner", "runner", "Run the agents of a Python file."),
    "server": ("ao_server.command:server", "server", "Run the gRPC server alone."),
}


class Commands(click.Group):
    """Finds subcommands by name and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand. Within `ao --help` it is but a name and a line."""
        if cmd_name not in COMMANDS:
            return None
        place, extra, summary = COMMANDS[cmd_name]
        if ctx.resilient_parsing or not _is_called(cmd_name):
            return click.Command(cmd_name, help=summary)
        module, name = place.split(":")
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            raise MissingExtra(cmd_name, extra, error.name) from None


class MissingExtra(click.ClickException):
    """A subcommand whose dependencies are not installed."""

    def __init__(self, command: str, extra: str, module: str | None) -> None:
        super().__init__(
            f"'ao {command}' needs the extra: pip install 'agent-orchestration[{extra}]' ({module} is missing)"
        )

    def show(self, file: object = None) -> None:
        """One line on standard error."""
        click.echo(f"error: {self.message}", err=True)


@click.group(cls=Commands)
@click.version_option(__version__, prog_name="ao", message="%(prog)s %(version)s")
def ao() -> None:
    """Run and use a control plane for agents."""


def main() -> None:
    """The `ao` command."""
    ao(prog_name="ao")


def _is_called(name: str) -> bool:
    return name in sys.argv[1:]
