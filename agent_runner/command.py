"""`ao runner`: runs the agents of a Python file."""

import importlib.util
import logging
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from agent_runner.agent import Agent


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--server", help="HOST:PORT of the gRPC server.  [default: AGENT_ORCHESTRATION_SERVER or 127.0.0.1:50051]"
)
@click.option("--api-key", help="Better given as AGENT_ORCHESTRATION_API_KEY: arguments can be seen by others.")
@click.option("--drain-timeout", default=25.0, show_default=True, type=click.FloatRange(0, 3600), help="Seconds.")
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
def runner(file: Path, server: str | None, api_key: str | None, drain_timeout: float, log_level: str) -> None:
    """Run every agent that FILE defines at module level."""
    logging.basicConfig(
        stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=log_level.upper(), force=True
    )
    agents = _agents(_load(file), file)
    from agent_runner.process import run

    run(agents, server, api_key, drain_timeout)


def _load(file: Path) -> ModuleType:
    path = file.resolve()
    specification = importlib.util.spec_from_file_location(path.stem, path) if path.is_file() else None
    if specification is None or specification.loader is None:
        _fail(f"{file} is not a Python file")
    sys.path.insert(0, str(path.parent))
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    try:
        specification.loader.exec_module(module)
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = f":{frames[-1].lineno}" if frames else ""
        _fail(f"{file}{line} cannot be imported: {type(error).__name__}: {error}")
    return module


def _agents(module: ModuleType, file: Path) -> "list[Agent]":
    from agent_runner.agent import Agent

    agents = list({id(value): value for value in vars(module).values() if isinstance(value, Agent)}.values())
    if not agents:
        _fail(f"{file} defines no Agent at module level")
    for agent in agents:
        if not agent.handlers:
            _fail(f"agent {agent.name!r} in {file} has no task functions")
    return agents


def _fail(message: str) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    sys.exit(2)
