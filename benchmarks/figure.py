"""What is measured: a figure, the baselines that it stands beside, and the limits that follow from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What the baselines of one repeat came to, by name: `B1`, `B2`, `B3`, `B3r`, `Celery`, ...
Baselines = Mapping[str, float]
Limit = Callable[[Baselines], float]


class Unavailable(Exception):
    """It cannot be measured on this machine; the text says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """How one repeat is measured: a new empty folder of its own, and how much of the work (1.0 for all of it)."""

    folder: Path
    scale: float = 1.0
    # What the figure wants to be seen beside its number, such as a profile of where the time goes.
    notes: dict[str, Any] = field(default_factory=dict[str, Any])

    def count(self, whole: int, least: int = 1) -> int:
        """So many operations, scaled."""
        return max(least, round(whole * self.scale))


@dataclass(frozen=True, slots=True)
class Figure:
    """A promise in numbers. `measure` makes one repeat and returns a number in `unit`.

    `baseline`, `must` and `aim` are in `unit` too, from the baselines of the same repeat.
    """

    name: str
    unit: str
    measure: Callable[[Run], float]
    baseline: Limit
    must: Limit
    aim: Limit
    # Which baselines it is measured beside.
    beside: tuple[str, ...] = ()
    # The limits in words.
    told: str = ""
    is_higher_better: bool = True
    # It takes so long that a quick run measures it once.
    is_long: bool = False

    def reaches(self, value: float, limit: float) -> bool:
        """Whether the value is at least as good as the limit."""
        return value >= limit if self.is_higher_better else value <= limit


def constant(limit: float) -> Limit:
    """A limit that depends on no baseline."""
    return lambda baselines: limit
