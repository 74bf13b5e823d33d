"""When each task ran: a file that all processes map, 8 bytes for each task.

It costs an executed task less than a microsecond, takes no lock and needs no service. As it is kept by the task's
number, a task that runs twice counts once.
"""

import mmap
import os
import time
from pathlib import Path

CAPACITY = 400_000
# Lower numbers are for single tasks.
FIRST_OF_LOAD = 1_000
# Tasks whose answer the load generator did not wait for.
IN_FLIGHT = 64


class Stamps:
    """The times at which tasks ran, in nanoseconds of the monotonic clock, which all processes share; 0: not yet."""

    def __init__(self, path: str) -> None:
        with Path(path).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.times = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, path: Path) -> "Stamps":
        """A file in which nothing has run yet."""
        with path.open("wb") as file:
            file.truncate(CAPACITY * 8)
        return cls(str(path))

    @classmethod
    def shared(cls) -> "Stamps":
        """The file that the variable STAMPS names."""
        return cls(os.environ["STAMPS"])

    def ran(self, number: int) -> None:
        """Says that a task runs now; its first run counts."""
        if not self.times[number]:
            self.times[number] = time.monotonic_ns()

    def of_load(self, count: int) -> list[int]:
        """The times of the load so far, sorted; it is so many tasks, or a few more."""
        times = self.times[FIRST_OF_LOAD : FIRST_OF_LOAD + count + IN_FLIGHT].tolist()
        return sorted(each for each in times if each)

    def singles(self) -> int:
        """How many single tasks ran."""
        return sum(1 for each in self.times[:FIRST_OF_LOAD].tolist() if each)
