"""The table for people and the file for programs."""

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.harness import Measured


def show(measured: Sequence[Measured], console: Console) -> None:
    """Prints a line per figure."""
    table = Table(box=None, pad_edge=False)
    for heading in ("figure", "median", "of baseline", "spread", "must", "aim", ""):
        table.add_column(heading, justify="left" if heading in ("figure", "") else "right", no_wrap=True)
    for each in measured:
        if not each.repeats:
            table.add_row(each.figure.name, "skipped" if each.skipped else "failed")
            continue
        row = as_json(each)
        table.add_row(
            each.figure.name,
            f"{_short(each.value)} {each.figure.unit}",
            f"{row['ratio']['median']:.3g}",
            f"{row['ratio']['least']:.3g}-{row['ratio']['most']:.3g}",
            f"{row['must']:.3g}",
            f"{row['aim']:.3g}",
            _verdict(each),
        )
    console.print(table)
    for each in measured:
        told = {"skipped": each.skipped, "failed": each.failed} if not each.repeats else {}
        for name, note in {**told, **each.notes}.items():
            if note:
                console.print(f"{each.figure.name}: {name}: {note}", soft_wrap=True)


def write(measured: Sequence[Measured], path: Path, settings: Mapping[str, Any]) -> None:
    """Writes everything that was measured."""
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    text = json.dumps({"machine": machine, **settings, "figures": [as_json(each) for each in measured]}, indent=2)
    path.write_text(text + "\n")


def as_json(measured: Measured) -> dict[str, Any]:
    """A figure with its limits as ratios to its baseline."""
    figure = measured.figure
    if not measured.repeats:
        why = {"skipped": measured.skipped} if measured.skipped else {"failed": measured.failed}
        return {"name": figure.name, "unit": figure.unit, "limits": figure.told, **why}
    ratios = measured.ratios(figure.baseline)

    def ratio(limit: Any) -> float:
        return statistics.median(limit(each.baselines) / figure.baseline(each.baselines) for each in measured.repeats)

    return {
        "name": figure.name,
        "unit": figure.unit,
        "limits": figure.told,
        "higher_is_better": figure.is_higher_better,
        "median": measured.value,
        "ratio": {"median": statistics.median(ratios), "least": ratios[0], "most": ratios[-1]},
        "must": ratio(figure.must),
        "aim": ratio(figure.aim),
        "reaches": _verdict(measured),
        "repeats": [{"value": each.value, **each.baselines} for each in measured.repeats],
        "notes": dict(measured.notes),
    }


def _verdict(measured: Measured) -> str:
    if measured.reached(measured.figure.aim):
        return "aim"
    return "must" if measured.reached(measured.figure.must) else "short"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
