"""`make demo`, as the command that it runs."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.e2e.processes import Process

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo.py"


def test_it_shows_work_live_and_the_results(tmp_path: Path) -> None:
    # A setting of the user's own must not get in its way.
    environment = os.environ | {"TMPDIR": str(tmp_path), "AGENT_ORCHESTRATION_API_KEY": "another-installation"}
    done = _run(environment)
    assert done.returncode == 0, done.stdout + done.stderr
    for seen in (r"-> active", r"clean.* 100 %", r"clean.* completed", r"summarise .* completed", r"│ North "):
        assert re.search(seen, done.stdout), f"{seen} not in {done.stdout}"
    assert list(tmp_path.iterdir()) == []
    _, told = done.stdout.split("Sales Pipeline: ")
    assert re.search(r" extract .* process .* load .*\n.* data_extractor .* ─▶ .* data_processor .* ─▶ ", told)
    changes = [line.split()[:3] for line in told.splitlines() if line.startswith("  ")]
    parts = [f"{done}/12" for done in range(13)]
    assert [words for words in changes if words[0] in ("extract", "process", "load")] == [
        ["extract", "▶", "running"],
        ["extract", "✔", "completed"],
        *(["process", "▶", part] for part in parts),
        ["process", "✔", "12/12"],
        ["load", "▶", "running"],
        ["load", "✔", "completed"],
    ]
    # What the tasks one by one have come to, above, the workflow has come to as well.
    output = json.loads(told[told.index("\n{") :])
    assert output == {"load": {"records": 566, "orders": 549, "revenue_cents": 20915069}}
    assert re.search(r"│ Total .* 549 .* 209,150\.69 ", done.stdout)


def test_it_says_what_failed(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    copy = shutil.copytree(DEMO.parent, tmp_path / "examples")
    (copy / "sales.csv").unlink()
    done = _run(environment, copy / "demo.py")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "sales.csv" in done.stderr


def test_it_says_which_step_of_the_pipeline_failed(tmp_path: Path) -> None:
    copy = shutil.copytree(DEMO.parent, tmp_path / "examples")
    broken = (copy / "pipeline.py").read_text().replace("steps.process.output[].records[]", "steps.process.output")
    (copy / "pipeline.py").write_text(broken)
    done = _run(os.environ | {"TMPDIR": str(tmp_path)}, copy / "demo.py")
    assert done.returncode == 1
    assert re.search(r"load +✘ failed", done.stdout)
    assert done.stderr.startswith("error: Sales Pipeline failed: step 'load': ")


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONUNBUFFERED": "1"}
    (tmp_path / "temporary").mkdir()
    demo = Process([sys.executable, str(DEMO)], folder=tmp_path, environment=environment, name="demo")
    demo.line("  agent ")
    family = psutil.Process(demo.pid).children(recursive=True)
    # ao dev, its two halves, and two runners.
    assert len(family) == 5
    demo.signal(signal.SIGINT)
    assert demo.end(30) == 130
    assert demo.errors == "interrupted; everything is stopped\n"
    assert not any(each.is_running() for each in family)
    assert list((tmp_path / "temporary").iterdir()) == []


def _run(environment: dict[str, str], demo: Path = DEMO) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, demo], env=environment, capture_output=True, text=True, timeout=110, check=False
    )
