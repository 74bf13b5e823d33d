"""Runs figures and their baselines in turn, so that a machine whose speed drifts drifts for both."""

import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.baselines import BASELINES
from benchmarks.figure import Baselines, Figure, Run, Unavailable


@dataclass(frozen=True, slots=True)
class Repeat:
    """One measured value with the baselines of its moment."""

    value: float
    baselines: Baselines


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure's repeats."""

    figure: Figure
    repeats: list[Repeat]
    notes: Mapping[str, Any]
    # Why it could not be measured here.
    skipped: str = ""
    # What did not hold while it was measured.
    failed: str = ""

    @property
    def value(self) -> float:
        """Median of the repeats, in the figure's unit."""
        return statistics.median(each.value for each in self.repeats)

    def ratios(self, limit: Callable[[Baselines], float]) -> list[float]:
        """Each repeat's value as a multiple of what the limit is by its own baselines, in order of size."""
        return sorted(each.value / limit(each.baselines) for each in self.repeats)

    def reached(self, limit: Callable[[Baselines], float]) -> bool:
        """Whether the median repeat reaches the limit."""
        return self.figure.reaches(statistics.median(self.ratios(limit)), 1.0)


def measure(figures: Iterable[Figure], repeats: int, scale: float, told: Callable[[str], None]) -> list[Measured]:
    """Measures every figure so many times, long ones once where the work is scaled down. `told` hears what is done."""
    return [_measure(figure, repeats, scale, told) for figure in figures]


def _measure(figure: Figure, repeats: int, scale: float, told: Callable[[str], None]) -> Measured:
    done: list[Repeat] = []
    notes: dict[str, Any] = {}
    repeats = 1 if figure.is_long and scale < 1.0 else repeats
    for number in range(1, repeats + 1):
        told(f"{figure.name} ({number}/{repeats})")
        try:
            baselines = {name: _alone(BASELINES[name], scale, {}) for name in figure.beside}
            done.append(Repeat(_alone(figure.measure, scale, notes), baselines))
        except Unavailable as missing:
            return Measured(figure, [], notes, skipped=str(missing))
        except AssertionError as failure:
            return Measured(figure, [], notes, failed=str(failure))
    return Measured(figure, done, notes)


def _alone(measure: Callable[[Run], float], scale: float, notes: dict[str, Any]) -> float:
    with tempfile.TemporaryDirectory(prefix="ao-bench-") as folder:
        return measure(Run(Path(folder), scale, notes))
