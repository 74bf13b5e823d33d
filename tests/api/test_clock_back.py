"""A clock that goes back while no server runs."""

from pathlib import Path

import pytest

from ao_server.engine.clock import SystemClock
from tests.api.conftest import serving

AN_HOUR = 3600 * 1_000_000


async def test_tasks_that_are_made_later_still_come_later(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SystemClock().now

    def an_hour_later(_: SystemClock) -> int:
        return now() + AN_HOUR

    monkeypatch.setattr(SystemClock, "now", an_hour_later)
    async with serving(tmp_path, database_url) as api:
        agent = await api.create_agent()
        earlier = await api.create_task(agent)
    monkeypatch.undo()
    async with serving(tmp_path, database_url) as api:
        assert await api.create_task(agent) > earlier
