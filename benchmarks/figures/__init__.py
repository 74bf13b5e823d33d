"""Every figure, in the order of the table in docs/performance.md."""

from benchmarks.figures import end_to_end, fanout, idle, lists, peers, start

FIGURES = [
    *end_to_end.FIGURES,
    *peers.FIGURES,
    *lists.FIGURES,
    *fanout.FIGURES,
    *idle.FIGURES,
    *start.FIGURES,
]
