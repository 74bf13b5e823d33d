"""The built wheel in clean environments, one for each extra."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import ControlPlane, wait_until

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
UV_SECONDS = 100.0
AGENTS = """
from agent_runner import Agent

agent = Agent(name="Echo", type="echo")


@agent.task("echo")
async def echo(task):
    return task.payload
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source") / "clone"
    # A copy, so that builds that run at once do not meet in one folder.
    ignored = shutil.ignore_patterns(".*", "tests", "__pycache__", "node_modules", "dist")
    shutil.copytree(ROOT, source, ignore=ignored)
    out = tmp_path_factory.mktemp("wheel")
    _uv("build", "--wheel", "--no-build-isolation", "--python", sys.executable, "-o", str(out), str(source))
    return next(out.glob("*.whl"))


def test_base_says_which_extra_a_command_needs(control_plane: ControlPlane, wheel: Path, tmp_path: Path) -> None:
    control_plane.python = _installed(tmp_path / "venv", str(wheel))
    version = control_plane.ao("--version")
    assert version.end(10) == 0
    assert version.lines == ["ao 0.1.0"]
    for command, extra in (("dev", "server"), ("gateway", "server"), ("server", "server"), ("runner", "runner")):
        process = control_plane.ao(command)
        assert process.end(10) == 1
        assert process.errors == (
            f"error: 'ao {command}' needs the extra: pip install 'agent-orchestration[{extra}]'\n"
        )


def test_runner_and_server(wheel: Path, tmp_path: Path, control_plane: ControlPlane) -> None:
    """The control plane with the one extra, the agent with the other."""
    control_plane.python = _installed(tmp_path / "server", f"{wheel}[server]")
    dev = control_plane.start_dev()
    runner_only = _installed(tmp_path / "runner", f"{wheel}[runner]")
    (tmp_path / "agents.py").write_text(AGENTS)
    control_plane.python = runner_only
    control_plane.start_runner(tmp_path / "agents.py")
    refused = control_plane.ao("dev")
    assert refused.end(10) == 1
    assert "agent-orchestration[server]" in refused.errors
    with control_plane.client() as client:
        wait_until(lambda: bool(client.get("/agents?status=active").json()["data"]), 30, "the agent is not active")
        agent_id = client.get("/agents").json()["data"][0]["id"]
        task = {"agent_id": agent_id, "type": "echo", "payload": {"n": 12345678901234567890}}
        path = "/tasks/" + client.post("/tasks", json=task).json()["data"]["id"]
        wait_until(lambda: client.get(path).json()["data"]["status"] == "completed", 10, "not completed")
        assert client.get(path).json()["data"]["result"] == task["payload"]
    assert dev.stop() == 0


def _installed(environment: Path, requirement: str) -> str:
    """Installs what the lock says into a new environment, with what the set-up has fetched where that is enough."""
    _uv("venv", "--python", sys.executable, str(environment))
    python = str(environment / "bin" / "python")
    command = ("pip", "install", "--python", python, "-c", str(ROOT / "requirements" / "runtime.txt"), requirement)
    try:
        _uv(*command, "--offline")
    except AssertionError:
        _uv(*command)
    return python


def _uv(*arguments: str) -> None:
    done = subprocess.run(
        [BIN / "uv", *arguments, "-q"], capture_output=True, text=True, timeout=UV_SECONDS, check=False
    )
    assert done.returncode == 0, f"uv {arguments}: {done.stderr}"
