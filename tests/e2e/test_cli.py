"""`ao` itself: help, version, and what a slip of the fingers is answered with."""

import subprocess
import sys
from typing import Final

import pytest

from tests.e2e.processes import ControlPlane

HEAVY: Final = ("alembic", "grpc", "httpx2", "pydantic", "sqlalchemy", "starlette", "uvicorn")


def test_help_and_version(control_plane: ControlPlane) -> None:
    shown = control_plane.ao("--help")
    assert shown.end(10) == 0
    listed = [line.split()[0] for line in shown.lines[shown.lines.index("Commands:") + 1 :]]
    assert listed == ["admin-key", "dev", "gateway", "runner", "server"]
    version = control_plane.ao("--version")
    assert version.end(10) == 0
    assert version.lines[0].startswith("ao 0.")


@pytest.mark.parametrize("command", ["dev", "gateway", "runner", "server"])
def test_help_of_each_command_imports_no_library_of_the_halves(command: str) -> None:
    program = f"""
import sys
from agent_orchestration.cli import main
sys.argv = ["ao", "{command}", "--help"]
try:
    main()
except SystemExit as end:
    assert end.code == 0
print("imported:", *sorted(set(sys.modules) & {set(HEAVY)!r}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.startswith(f"Usage: ao {command} ")
    assert done.stdout.splitlines()[-1] == "imported:"


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (("fly",), "No such command 'fly'.", "ao --help"),
        (("dev", "--port", "x"), "Invalid value for '--port'", "ao dev --help"),
        (("dev", "--fast"), "No such option '--fast'", "ao dev --help"),
        (("runner",), "a FILE with agents is needed, or --exec PROGRAM", "ao runner --help"),
    ],
)
def test_wrong_usage_is_one_line_and_a_hint(
    control_plane: ControlPlane, arguments: tuple[str, ...], error: str, hint: str
) -> None:
    process = control_plane.ao(*arguments, name="ao")
    assert process.end(10) == 2
    first, second = process.errors.splitlines()
    assert first.startswith(f"error: {error}")
    assert second == f"hint: {hint}"
    assert process.lines == []
