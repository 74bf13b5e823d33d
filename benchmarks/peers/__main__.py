"""`python -m benchmarks.peers`: every peer and ours in turn, and what each of them may lose."""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from benchmarks.figure import Unavailable
from benchmarks.peers import course, ours
from benchmarks.peers.catalog import PEERS
from benchmarks.peers.course import Course, Outcome

REPEATS: Final = 3
OURS: Final = "ours"
WIDTH: Final = 120


@dataclass(slots=True)
class Row:
    """One peer, or ours, with its repeats; `skipped` says why there are none."""

    name: str
    settings: str
    loss: str
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    skipped: str = ""

    def median(self, part: Callable[[Outcome], float]) -> float:
        """Over the repeats."""
        return statistics.median(part(each) for each in self.outcomes)

    def ratios(self, first: "Row", part: Callable[[Outcome], float]) -> list[float]:
        """The first row's value as a multiple of this one's, repeat by repeat, in order of size."""
        return sorted(part(a) / part(b) for a, b in zip(first.outcomes, self.outcomes, strict=True))


@click.command()
@click.option("--only", multiple=True, help="Peers whose name contains this; may be given more than once.")
@click.option("--repeats", default=REPEATS, show_default=True, type=click.IntRange(1, 25))
@click.option("--json", "path", default="build/peers.json", show_default=True, type=click.Path(path_type=Path))
def main(only: tuple[str, ...], repeats: int, path: Path) -> None:
    """Run the same no-op work through every peer and through ours, and print a table."""
    peers = [peer for peer in PEERS if not only or any(part.lower() in peer.name.lower() for part in only)]
    if not peers:
        raise click.UsageError("no peer has such a name: " + ", ".join(peer.name for peer in PEERS))
    begin = time.monotonic()
    first = Row(OURS, ours.SETTINGS, ours.LOSS)
    rows = [Row(peer.name, peer.settings, peer.loss) for peer in peers]
    for number in range(1, repeats + 1):
        _note(first, lambda folder: ours.measure(folder, Course()), number)
        for peer, row in zip(peers, rows, strict=True):
            _note(row, lambda folder, peer=peer: course.run_peer(peer, folder, Course()), number)
    _show(first, rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_as_json(first, rows), indent=2) + "\n")
    Console().print(f"{path}, {time.monotonic() - begin:.0f} s")


def _note(row: Row, measure: Callable[[Path], Outcome], number: int) -> None:
    if row.skipped:
        return
    click.echo(f"{row.name} ({number})", err=True)
    with tempfile.TemporaryDirectory(prefix="ao-bench-") as folder:
        try:
            row.outcomes.append(measure(Path(folder)))
        except Unavailable as missing:
            row.skipped = str(missing)


def _show(first: Row, rows: Sequence[Row]) -> None:
    # Piped, it prints lines of one width.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    table = Table(box=None, pad_edge=False)
    for heading in ("", "tasks/s", "CPU a task", "ours is", "spread", "one task, p50", "p99", "ours takes"):
        table.add_column(heading, justify="right" if heading else "left")
    table.add_row(first.name, *_speed(first), "", "", *_single(first), "")
    for row in rows:
        if row.skipped:
            table.add_row(row.name, "skipped")
            continue
        ratios = row.ratios(first, lambda each: each.a_second)
        shorter = statistics.median(row.ratios(first, lambda each: each.p50))
        spread = f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
        table.add_row(
            row.name, *_speed(row), f"{statistics.median(ratios):.2f} x", spread, *_single(row), f"{shorter:.2f} x"
        )
    console.print(table)
    for row in (first, *rows):
        console.print(
            f"{row.name}: " + (f"skipped: {row.skipped}" if row.skipped else f"{row.settings}. Loss: {row.loss}."),
            soft_wrap=True,
        )


def _speed(row: Row) -> tuple[str, str]:
    return f"{row.median(lambda each: each.a_second):,.0f}", f"{row.median(lambda each: each.cpu):,.0f} µs"


def _single(row: Row) -> tuple[str, str]:
    return f"{row.median(lambda each: each.p50):.1f} ms", f"{row.median(lambda each: each.p99):.1f} ms"


def _as_json(first: Row, rows: Sequence[Row]) -> dict[str, Any]:
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "system": platform.platform()}
    return {"machine": machine, "ours": asdict(first), "peers": [_with_ratio(first, row) for row in rows]}


def _with_ratio(first: Row, row: Row) -> dict[str, Any]:
    return {**asdict(row), "ours_to_peer": row.ratios(first, lambda each: each.a_second) if row.outcomes else None}


if __name__ == "__main__":
    main()
