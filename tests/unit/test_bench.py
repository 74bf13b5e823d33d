"""What the figures of the benchmarks are made of."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import harness, report
from benchmarks.figure import Figure, Run, Unavailable, constant


def figure(*values: float, higher: bool = True) -> Figure:
    left = list(values)
    return Figure(
        "some figure",
        "things/s",
        measure=lambda run: left.pop(0),
        baseline=constant(100.0),
        must=constant(120.0),
        aim=constant(220.0 if higher else 60.0),
        is_higher_better=higher,
    )


@pytest.mark.parametrize(
    ("values", "higher", "verdict"),
    [
        ((119.0, 119.0, 400.0), True, "short"),
        ((100.0, 120.0, 300.0), True, "must"),
        ((220.0, 221.0, 1.0), True, "aim"),
        ((121.0, 500.0, 100.0), False, "short"),
        ((119.0, 130.0, 119.0), False, "must"),
        ((60.0, 59.0, 200.0), False, "aim"),
    ],
)
def test_the_median_repeat_decides(values: tuple[float, ...], higher: bool, verdict: str) -> None:
    (measured,) = harness.measure([figure(*values, higher=higher)], 3, 1.0, lambda text: None)
    assert report.as_json(measured)["reaches"] == verdict


def test_a_ratio_is_to_the_baselines_of_its_own_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = [10.0, 20.0, 40.0]

    def drifts(run: Run) -> float:
        return speeds.pop(0)

    monkeypatch.setattr(harness, "BASELINES", {"B9": drifts})
    drifting = Figure(
        "f",
        "1/s",
        measure=lambda run: 100.0,
        beside=("B9",),
        baseline=lambda b: b["B9"],
        must=lambda b: b["B9"],
        aim=lambda b: 2 * b["B9"],
    )
    (measured,) = harness.measure([drifting], 3, 1.0, lambda text: None)
    assert measured.ratios(drifting.baseline) == [2.5, 5.0, 10.0]


def test_what_is_missing_or_fails_is_shown_and_the_rest_is_measured(tmp_path: Path) -> None:
    def missing(run: Run) -> float:
        raise Unavailable("there is no such server here")

    def failing(run: Run) -> float:
        raise AssertionError("a lease was lost")

    limits = (constant(1.0), constant(1.0), constant(1.0))
    figures = [Figure("a", "s", missing, *limits), Figure("b", "s", failing, *limits), figure(220.0)]
    measured = harness.measure(figures, 1, 1.0, lambda text: None)
    console = Console(width=150, record=True, quiet=True)
    report.show(measured, console)
    report.write(measured, tmp_path / "bench.json", {})
    skipped, failed, done = json.loads((tmp_path / "bench.json").read_text())["figures"]
    assert skipped["skipped"] == "there is no such server here"
    assert failed["failed"] == "a lease was lost"
    assert done["reaches"] == "aim"
