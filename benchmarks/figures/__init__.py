"""Every figure, in the order of the table in docs/performance.md."""

from benchmarks.figures import end_to_end

FIGURES = [*end_to_end.FIGURES]
