"""Every figure, in the order of the table in docs/performance.md."""

from benchmarks.figures import end_to_end, lists, peers, rest_create

FIGURES = [*rest_create.FIGURES, *end_to_end.FIGURES, *peers.FIGURES, *lists.FIGURES]
