"""What this machine does without us, measured in the same run: B1 to B3r; and what other task queues do on it."""

from collections.abc import Callable, Mapping
from functools import partial

from benchmarks.baselines import disk, echo, stream
from benchmarks.figure import Run
from benchmarks.peers import catalog, course

# Requests per second; seconds per round trip; seconds per commit; rows per second; tasks per second.
BASELINES: Mapping[str, Callable[[Run], float]] = {
    "B1": echo.measure,
    "B2": stream.measure,
    "B3": disk.one_row_commit,
    "B3r": disk.rows_a_second,
    "Celery": partial(course.tasks_a_second, peer=catalog.CELERY),
    "Dramatiq": partial(course.tasks_a_second, peer=catalog.DRAMATIQ),
    "Taskiq": partial(course.tasks_a_second, peer=catalog.TASKIQ),
}
