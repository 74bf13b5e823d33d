"""`python -m benchmarks`: measures the figures and shows each beside its baseline."""

import sys
import time
from pathlib import Path

import click
from rich.console import Console

from benchmarks import harness, report
from benchmarks.figures import FIGURES

REPEATS = 3
QUICK_REPEATS = 2
QUICK_SCALE = 0.25
WIDTH = 150


@click.command()
@click.option("--quick", is_flag=True, help="A quarter of the work, one repeat less; long figures once.")
@click.option("--only", multiple=True, help="Figures whose name contains this; may be given more than once.")
@click.option("--repeats", type=click.IntRange(1, 25), help=f"[default: {REPEATS}, quick {QUICK_REPEATS}]")
@click.option("--json", "path", default="build/bench.json", show_default=True, type=click.Path(path_type=Path))
def main(quick: bool, only: tuple[str, ...], repeats: int | None, path: Path) -> None:
    """Measure every figure and print a table."""
    chosen = [figure for figure in FIGURES if not only or any(part in figure.name for part in only)]
    if not chosen:
        raise click.UsageError("no figure has such a name: " + ", ".join(figure.name for figure in FIGURES))
    # Piped, it prints lines of one width.
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    begin = time.monotonic()
    scale = QUICK_SCALE if quick else 1.0
    repeats = repeats or (QUICK_REPEATS if quick else REPEATS)
    measured = harness.measure(chosen, repeats, scale, lambda text: click.echo(text, err=True))
    report.show(measured, console)
    path.parent.mkdir(parents=True, exist_ok=True)
    report.write(measured, path, {"repeats": repeats, "scale": scale, "seconds": round(time.monotonic() - begin, 1)})
    console.print(f"{path}, {time.monotonic() - begin:.0f} s")
    sys.exit(1 if any(each.failed for each in measured) else 0)


main()
