"""Every figure, in the order of the table in docs/performance.md."""

from benchmarks.figures import (
    access,
    bulk,
    end_to_end,
    fanout,
    growth,
    idle,
    latency,
    lists,
    overload,
    peers,
    postgres,
    rest_create,
    slow_disk,
    start,
    workflows,
)

FIGURES = [
    *rest_create.FIGURES,
    *access.FIGURES,
    *end_to_end.FIGURES,
    *peers.FIGURES,
    *workflows.FIGURES,
    *latency.FIGURES,
    *lists.FIGURES,
    *fanout.FIGURES,
    *idle.FIGURES,
    *bulk.FIGURES,
    *growth.FIGURES,
    *postgres.FIGURES,
    *start.FIGURES,
    *overload.FIGURES,
    *slow_disk.FIGURES,
]
