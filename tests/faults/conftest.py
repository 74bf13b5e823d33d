"""A control plane of real processes under load, on both engines."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.e2e.processes import ControlPlane

# Short, so that tests need not wait for long; a runner must still get through a crowded machine within it.
LEASE_SECONDS = 5.0


@pytest.fixture(params=["sqlite", "postgresql"])
def plane(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[ControlPlane, None, None]:
    url: str | None = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    environment = {
        "AGENT_ORCHESTRATION_LEASE_SECONDS": str(LEASE_SECONDS),
        "JOURNAL": str(tmp_path / "journal"),
    }
    with ControlPlane(tmp_path, database_url=url, environment=environment) as started:
        yield started
