"""`make demo`, as the command that it runs."""

import os
import re
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


def test_it_says_what_failed(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    copy = tmp_path / "examples"
    copy.mkdir()
    for name in ("demo.py", "agents.py"):
        (copy / name).write_text((DEMO.parent / name).read_text())
    done = _run(environment, copy / "demo.py")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "sales.csv" in done.stderr


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONUNBUFFERED": "1"}
    (tmp_path / "temporary").mkdir()
    demo = Process([sys.executable, str(DEMO)], folder=tmp_path, environment=environment, name="demo")
    demo.line("  agent ")
    family = psutil.Process(demo.pid).children(recursive=True)
    # ao dev, its two halves, and the runner.
    assert len(family) == 4
    demo.signal(signal.SIGINT)
    assert demo.end(30) == 130
    assert demo.errors == "interrupted; everything is stopped\n"
    assert not any(each.is_running() for each in family)
    assert list((tmp_path / "temporary").iterdir()) == []


def _run(environment: dict[str, str], demo: Path = DEMO) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, demo], env=environment, capture_output=True, text=True, timeout=110, check=False
    )
