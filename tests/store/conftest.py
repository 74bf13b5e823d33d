"""An empty store, made once, of which tests take copies."""

from collections.abc import AsyncGenerator
from pathlib import Path
from random import Random

import pytest

from ao_server.engine import projects
from ao_server.store import schema
from ao_server.store.database import Database
from tests.store.fleet_world import World, open_world
from tests.store.workflow_world import Flows


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store."""
    path = tmp_path_factory.mktemp("template") / "ao.db"
    database = Database(f"sqlite:///{path}")
    connection = database.connect_writer()
    schema.prepare(connection, database.path)
    connection.exec_driver_sql("SELECT 1")
    connection.close()
    database.writing.dispose()
    return path


@pytest.fixture
async def world(template: Path, tmp_path: Path) -> AsyncGenerator[World, None]:
    """The real engine on a copy of the empty store, with a project in it."""
    world = open_world(template, tmp_path / "ao.db", Random(1).random)
    try:
        world.submit(projects.found_default("a key that nobody has", world.ids))
        await world.settle()
        yield world
    finally:
        await world.database.close()


@pytest.fixture
async def flows(world: World) -> Flows:
    """Executions in the world, with a process that does their work."""
    flows = Flows(world)
    await flows.connect()
    return flows
