"""What this machine does without us, measured in the same run: B1 to B3r."""

from collections.abc import Callable, Mapping

from benchmarks.baselines import disk, echo, stream
from benchmarks.figure import Run

# Requests per second; seconds per round trip; seconds per commit; rows per second.
BASELINES: Mapping[str, Callable[[Run], float]] = {
    "B1": echo.measure,
    "B2": stream.measure,
    "B3": disk.one_row_commit,
    "B3r": disk.rows_a_second,
}
