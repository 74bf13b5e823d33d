"""`python -m benchmarks.slow_server SECONDS ...`: `ao server` on a disk that takes so much longer for each commit.

Once a second it prints `second` and the commits that wrote, the longest gap of the event loop in seconds, and the
processor time of the loop's thread in that gap.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from sqlalchemy.engine.default import DefaultDialect

from ao_server import app
from ao_server.command import server
from ao_server.settings import Settings

TICK_SECONDS: Final = 0.001


class _Commits:
    """Every commit of the writer's, later by a delay."""

    def __init__(self, delay: float) -> None:
        self.count = 0
        self._delay = delay
        self._commit = DefaultDialect.do_commit

    def slow_down(self) -> None:
        """From now on."""

        commits = self

        def commit(self: DefaultDialect, dbapi_connection: Any) -> None:
            commits.count += 1
            time.sleep(commits._delay)
            commits._commit(self, dbapi_connection)

        DefaultDialect.do_commit = commit


async def _watch(commits: _Commits) -> None:
    """How late the loop comes back to what is due."""
    told, gap, used = time.perf_counter(), 0.0, 0.0
    while True:
        begin, processor = time.perf_counter(), time.thread_time()
        await asyncio.sleep(TICK_SECONDS)
        now = time.perf_counter()
        if now - begin > gap:
            gap, used = now - begin, time.thread_time() - processor
        if now - told > 1.0:
            print(f"second {commits.count} {gap:.6f} {used:.6f}", flush=True)
            told, gap, used, commits.count = now, 0.0, 0.0, 0


def _main() -> None:
    commits = _Commits(float(sys.argv.pop(1)))
    commits.slow_down()
    run = app.run

    async def watched(settings: Settings, ready: Callable[[app.Server], None]) -> None:
        watching = asyncio.create_task(_watch(commits))
        try:
            await run(settings, ready)
        finally:
            watching.cancel()

    app.run = watched
    server()


if __name__ == "__main__":
    _main()
