"""The documented WebSocket snippet, unchanged but for URL and key, hears what it says it hears."""

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
import psutil
import pytest

from tests.browser.listener import Listener, listening, script
from tests.conftest import skip_or_fail
from tests.e2e.processes import ControlPlane, wait_until

SNIPPET: Final = (Path(__file__).parent / "snippet.js").read_text()
DEADLINE: Final = 30.0
NPM_SECONDS: Final = 60.0
# The server raises its alert when it could not write for about five seconds.
LOCKED_SECONDS: Final = 20.0
CHROMIUM: Final = ("chromium", "chromium-browser", "google-chrome")
# Quiet, and without a word to anybody but the page.
FLAGS: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"),
)
AGENTS: Final = """
from agent_runner import Agent

agent = Agent(name="Echo", type="echo")


@agent.task("echo")
async def echo(task):
    return task.payload
"""

# Runs the page at a URL, or its script, until it is ended.
Runs = Callable[[Listener, str, Path], Sequence[str]]


@dataclass
class Stack:
    plane: ControlPlane
    client: httpx2.Client
    agent_id: str

    @property
    def snippet(self) -> str:
        """As printed, with this control plane's URL, key and agent."""
        repaired = SNIPPET
        for printed, real in (
            ("wss://api.agent-orchestration-ops.com/v1/ws", f"ws://127.0.0.1:{self.plane.port}/v1/ws"),
            ("YOUR_API_KEY", self.plane.api_key),
            ("agent_123", self.agent_id),
        ):
            assert repaired.count(printed) == 1
            repaired = repaired.replace(printed, real)
        return repaired


@pytest.fixture
def stack(tmp_path: Path) -> Generator[Stack]:
    with ControlPlane(tmp_path) as plane:
        plane.start_dev()
        with plane.client() as client:
            agent = client.post("/agents", json={"name": "Echo", "type": "echo"})
            yield Stack(plane, client, agent.json()["data"]["id"])


def in_chromium(listener: Listener, source: str, folder: Path) -> Sequence[str]:
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        skip_or_fail("Chromium is not installed")
    # The debugging port keeps the page open: without it a headless browser leaves once the page is loaded.
    return [found, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0", listener.url]


def in_node(listener: Listener, source: str, folder: Path) -> Sequence[str]:
    node = shutil.which("node")
    if node is None:
        skip_or_fail("Node is not installed")
    program = folder / "program.cjs"
    told = subprocess.run(
        [node, "-p", "typeof WebSocket"], capture_output=True, text=True, timeout=DEADLINE, check=True
    ).stdout
    if told.strip() != "function":
        _install_ws(folder)
        source = "globalThis.WebSocket = require('ws');\n" + source
    program.write_text(source)
    return [node, str(program)]


def _install_ws(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        skip_or_fail("Node has no WebSocket of its own, and npm is not installed")
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "ws@8"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NPM_SECONDS, check=False)
    if done.returncode != 0:
        skip_or_fail(f"npm could not fetch ws: {done.stderr[-500:]}")


@contextmanager
def program(command: Sequence[str], folder: Path) -> Generator[None]:
    """Runs it, and ends it with all its children."""
    with (folder / "program.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield
        finally:
            family = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            try:
                process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _, alive = psutil.wait_procs(family, 5)
            for each in alive:
                each.kill()


@pytest.mark.parametrize("runs", [in_chromium, in_node], ids=["chromium", "node"])
def test_the_snippet_hears_status_changes_completed_tasks_and_alerts(stack: Stack, runs: Runs, tmp_path: Path) -> None:
    folder = tmp_path / "program"
    folder.mkdir()
    agents = tmp_path / "agents.py"
    agents.write_text(AGENTS)
    stack.plane.start_runner(agents)
    with (
        listening(stack.snippet) as listener,
        program(runs(listener, script(stack.snippet, listener.url), folder), folder),
    ):

        def is_heard() -> bool:
            # The snippet does not say when it has subscribed: the status changes until it hears of it.
            for verb in ("pause", "resume"):
                assert stack.client.post(f"/agents/{stack.agent_id}/{verb}").status_code == 200
            return bool(listener.heard)

        wait_until(is_heard, DEADLINE, "no change of status was heard")
        changed = listener.wait_for("Agent status changed:", DEADLINE)
        assert changed.keys() == {"agent_id", "name", "type", "status", "previous_status"}
        assert changed["agent_id"] == stack.agent_id
        task = stack.client.post("/tasks", json={"agent_id": stack.agent_id, "type": "echo", "payload": {"n": 1}})
        completed = listener.wait_for("Task completed:", DEADLINE)
        assert (completed["id"], completed["result"]) == (task.json()["data"]["id"], {"n": 1})
        with _locked(stack.plane.data_dir / "ao.db"):
            alert = listener.wait_for("System alert:", LOCKED_SECONDS)
        assert alert.keys() == {"code", "severity", "message", "since"}
        assert alert["code"] == "store_unavailable"


@contextmanager
def _locked(database: Path) -> Generator[None]:
    """Another program holds the database: nothing can be written."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")
