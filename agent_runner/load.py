"""What the process says of itself: memory, processor, uptime. With the standard library alone."""

import os
import resource
import sys
import time
from pathlib import Path
from typing import Final

_IMPORTED: Final = time.monotonic()


class Load:
    """Measures the processor between one status and the next."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._cpu = time.process_time()

    def cpu_usage(self) -> float:
        """Percent of one core since the last call."""
        now, cpu = time.monotonic(), time.process_time()
        elapsed = now - self._at
        usage = 100.0 * (cpu - self._cpu) / elapsed if elapsed > 0 else 0.0
        self._at, self._cpu = now, cpu
        return usage


def memory_usage() -> float:
    """Percent of the machine's memory that the process has resident (on macOS: had at most)."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    if sys.platform == "linux":
        resident = page * int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    else:
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 100.0 * resident / total


def uptime() -> float:
    """Seconds since the process started; where the system does not say, since this module was imported."""
    if sys.platform == "linux":
        # The name in the second field may hold spaces and brackets.
        fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    return time.monotonic() - _IMPORTED
