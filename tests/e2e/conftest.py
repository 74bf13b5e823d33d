"""A control plane of real processes, ended with the test."""

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.e2e.processes import ControlPlane


@pytest.fixture
def control_plane(tmp_path: Path) -> Generator[ControlPlane, None, None]:
    """Nothing is started yet."""
    with ControlPlane(tmp_path) as plane:
        yield plane
