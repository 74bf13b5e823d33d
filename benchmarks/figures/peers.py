"""REST one by one, each executed, beside other task queues on the same course: tasks per second."""

from typing import Final

from benchmarks.figure import Figure, Run
from benchmarks.peers import ours
from benchmarks.peers.course import Course


def measure(run: Run) -> float:
    """Tasks per second from the first request to the last completion, 4 runner processes with 200 slots each."""
    outcome = ours.measure(run.folder, Course.short(run.scale))
    run.notes["CPU a task"] = f"{outcome.cpu:.0f} µs in all processes"
    return outcome.a_second


FIGURES: Final = [
    Figure(
        name="REST one by one, each executed",
        unit="tasks/s",
        measure=measure,
        beside=("Dramatiq", "Taskiq", "Celery"),
        baseline=lambda b: max(b["Dramatiq"], b["Taskiq"]),
        must=lambda b: 1.2 * max(b["Dramatiq"], b["Taskiq"]),
        aim=lambda b: max(2 * b["Dramatiq"], 2 * b["Taskiq"], 5 * b["Celery"]),
        told="must 1.2 times the better of Dramatiq and Taskiq on Redis (everysec), aim 2 times, and 5 times Celery",
        is_long=True,
    ),
]
