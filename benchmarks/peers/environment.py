"""The throwaway environment of the peers: one folder under `build` for each state of the requirements."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.figure import Unavailable
from benchmarks.processes import ROOT

REQUIREMENTS: Final = ROOT / "benchmarks" / "peers" / "requirements.txt"
APPS: Final = ROOT / "benchmarks" / "peers" / "apps"
INSTALL_SECONDS: Final = 240.0
TAIL_CHARACTERS: Final = 500


def interpreter() -> Path:
    """The Python that has the peers installed; makes its environment when there is none. Unavailable if that fails."""
    state = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ROOT / "build" / "peers" / state
    python, stamp = folder / "bin" / "python", folder / "installed"
    if not stamp.exists():
        uv = Path(sys.executable).with_name("uv")
        _run(uv, "venv", "-q", "--clear", "--python", sys.executable, folder)
        _run(
            uv, "pip", "install", "-q", "--compile-bytecode", "--python", python, "--require-hashes", "-r", REQUIREMENTS
        )
        stamp.touch()
    return python


def variables(**more: str) -> dict[str, str]:
    """What a process of a peer sees."""
    return {**os.environ, "PYTHONPATH": str(APPS), **more}


def _run(*command: str | Path) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if ran.returncode:
        raise Unavailable(f"the peers could not be installed: {ran.stderr[-TAIL_CHARACTERS:].strip()}")
