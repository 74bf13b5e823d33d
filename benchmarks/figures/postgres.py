"""End to end on PostgreSQL beside SQLite in the same repeat, 4 processes with 200 slots each: a ratio."""

from dataclasses import replace
from typing import Final

from benchmarks.figure import Figure, Run, constant
from benchmarks.figures import end_to_end

TASKS: Final = 10_000
SLOTS: Final = 200


def measure(run: Run) -> float:
    """Tasks per second on PostgreSQL over those on SQLite."""
    rates: dict[str, float] = {}
    for name, is_postgres in (("PostgreSQL", True), ("SQLite", False)):
        folder = run.folder / name
        folder.mkdir()
        alone = replace(run, folder=folder, notes={})
        rates[name] = end_to_end.measure(alone, SLOTS, TASKS, is_postgres)
        run.notes[name] = f"{rates[name]:,.0f} tasks/s, CPU a task: {alone.notes['CPU a task']}"
    return rates["PostgreSQL"] / rates["SQLite"]


FIGURES: Final = [
    Figure(
        name="end to end on PostgreSQL, 4 x 200 slots",
        unit="x SQLite",
        measure=measure,
        baseline=constant(1.0),
        must=constant(0.7),
        aim=constant(1.0),
        told="must 0.7, aim 1.0 of SQLite",
    ),
]
