"""A world on each engine."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.access.world import World, world


@pytest.fixture
async def both(tmp_path: Path, database_url: str) -> AsyncGenerator[World]:
    """Once on each engine."""
    async with world(tmp_path, database_url) as made:
        yield made


@pytest.fixture
async def here(tmp_path: Path) -> AsyncGenerator[World]:
    """On SQLite alone: for what does not differ between engines."""
    async with world(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """One for all tests of a module, which leave nothing behind that the next would see."""
    async with world(tmp_path_factory.mktemp("shared")) as made:
        yield made
