"""Ours on the same course: REST, 4 runner processes x 200 slots, done when the store says completed."""

import time
from pathlib import Path
from typing import Any, Final

from benchmarks import stack
from benchmarks.peers import course
from benchmarks.peers.apps.stamps import Stamps
from benchmarks.peers.course import Course, Entrant, Outcome
from tests.e2e.processes import ControlPlane

AGENT_FILE: Final = Path(__file__).with_name("agent.py")
RUNNERS: Final = 4
SLOTS: Final = 200
SETTINGS: Final = "SQLite, synchronous=FULL, 4 processes x 200 slots, every transition durable, events, results kept"
LOSS: Final = "none: answered when it is committed; a killed runner's task runs again"


def measure(folder: Path, chosen: Course) -> Outcome:
    """Starts server, gateway and runners, and measures them."""
    stamps = Stamps.create(folder / "stamps")
    with stack.control_plane(folder) as plane:
        plane.environment = {**plane.environment, "STAMPS": str(folder / "stamps")}
        plane.start_server()
        plane.start_gateway()
        agent_id = stack.start_runners(plane, RUNNERS, SLOTS, AGENT_FILE)
        with stack.channel(plane) as opened:
            entrant = Entrant(
                url=f"{plane.rest_url}/tasks",
                stamps=stamps,
                done=lambda count: _completed(plane, opened, stamps, count),
                headers={"Authorization": f"Bearer {plane.api_key}"},
                fields={"agent_id": agent_id},
            )
            return course.measure(entrant, chosen)


def _completed(plane: ControlPlane, opened: Any, stamps: Stamps, count: int) -> float:
    stack.wait_for_completed(plane, opened, stamps.singles() + count, course.DRAIN_SECONDS)
    return time.monotonic()
