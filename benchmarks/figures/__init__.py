"""Every figure, in the order of the table in docs/performance.md."""

from benchmarks.figures import end_to_end, fanout, idle, peers, start

FIGURES = [*end_to_end.FIGURES, *fanout.FIGURES, *idle.FIGURES, *start.FIGURES, *peers.FIGURES]
