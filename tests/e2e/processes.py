"""Real processes for tests: `ao` commands with their output, their signals and their end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import httpx2
import psutil

AO: Final = ("-P", "-m", "agent_orchestration.cli")
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 12.0
POLL_SECONDS: Final = 0.02
NO_LIMITS: Final = {
    "AGENT_ORCHESTRATION_RATE_LIMIT_PER_HOUR": "0",
    "AGENT_ORCHESTRATION_RATE_LIMIT_PER_MINUTE": "0",
}


class Process:
    """A process that a test started: lines of standard output as they come, standard error in a file."""

    def __init__(self, command: Sequence[str], *, folder: Path, environment: Mapping[str, str], name: str) -> None:
        """`folder` is where it runs; `NAME.err` there takes standard error."""
        self.name = name
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._errors = folder / f"{name}.err"
        with self._errors.open("ab") as errors:
            self._popen = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._popen.poll() is None

    @property
    def errors(self) -> str:
        """What it, and its children, wrote on standard error so far."""
        return self._errors.read_text(errors="replace")

    def line(self, start: str, timeout: float = START_SECONDS) -> str:
        """Waits for a line of standard output that begins with `start`; returns what follows. Fails if it ends."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for line in self.lines:
                    if line.startswith(start):
                        return line.removeprefix(start)
                left = deadline - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    raise AssertionError(self._told(f"no line {start!r} within {timeout} s"))
                self._changed.wait(min(left, 0.5))

    def error(self, text: str, timeout: float = START_SECONDS) -> None:
        """Waits until standard error holds `text`."""
        wait_until(lambda: text in self.errors, timeout, self._told(f"no {text!r}"))

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, e.g. SIGKILL, SIGSTOP or SIGCONT."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """kill -9, and waits for the end."""
        self._popen.kill()
        self.end(STOP_SECONDS)

    def stop(self, timeout: float = STOP_SECONDS) -> int:
        """SIGTERM; waits for the end and returns the exit code."""
        self._popen.terminate()
        return self.end(timeout)

    def end(self, timeout: float) -> int:
        """Waits for the end; returns the exit code, negative for a signal."""
        try:
            code = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._told(f"has not ended within {timeout} s")) from None
        # Children may hold the pipe open for a moment longer than this process lives.
        self._reader.join(STOP_SECONDS)
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        return code

    def child(self, part: str) -> psutil.Process:
        """The child of `ao dev` that is its "server" or its "gateway", as it is now."""
        found = [each for each in psutil.Process(self.pid).children() if part in each.cmdline()]
        assert len(found) == 1, self._told(f"has {len(found)} children {part!r}")
        return found[0]

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def _told(self, problem: str) -> str:
        return (
            f"{self.name}: {problem}; code {self._popen.poll()}, printed {self.lines}, errors:\n{self.errors[-4000:]}"
        )


@dataclass
class ControlPlane:
    """The parts of one control plane on a folder of its own, together or apart, restarted on the same ports.

    It is a context manager: at its end whatever still runs is killed.
    """

    folder: Path
    # None: SQLite in the data folder.
    database_url: str | None = None
    # More variables for every process.
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    # Whether rate limits are as they are unless set, as opposed to off.
    has_limits: bool = False
    # The interpreter of the installation to run.
    python: str = sys.executable
    port: int = 0
    grpc_port: int = 0
    processes: list[Process] = field(default_factory=list[Process])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in self.processes:
            if process.is_running:
                family = psutil.Process(process.pid).children(recursive=True)
                process.signal(signal.SIGCONT)
                process.kill()
                _, alive = psutil.wait_procs(family, STOP_SECONDS)
                for each in alive:
                    each.kill()
            else:
                process.end(STOP_SECONDS)

    @property
    def data_dir(self) -> Path:
        """Where the database and the keys are."""
        return self.folder / ".ao"

    @property
    def api_key(self) -> str:
        """The admin key."""
        return (self.data_dir / "admin.key").read_text().strip()

    @property
    def rest_url(self) -> str:
        """The base URL of REST, ending in /v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def grpc_address(self) -> str:
        """HOST:PORT of gRPC."""
        return f"127.0.0.1:{self.grpc_port}"

    def ao(self, *arguments: str, name: str | None = None, environment: Mapping[str, str] | None = None) -> Process:
        """Starts any `ao` command in the folder, with no setting but those given."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AGENT_ORCHESTRATION_")}
        settings = {**({} if self.has_limits else NO_LIMITS), **self.environment, **(environment or {})}
        if self.database_url is not None:
            settings["AGENT_ORCHESTRATION_DATABASE_URL"] = self.database_url
        process = Process(
            [self.python, *AO, *arguments],
            folder=self.folder,
            environment=inherited | settings,
            name=f"{len(self.processes)}-{name or arguments[0]}",
        )
        self.processes.append(process)
        return process

    def start_dev(self, *arguments: str) -> Process:
        """Starts `ao dev` and waits until requests succeed."""
        process = self.ao("dev", "--port", str(self.port), "--grpc-port", str(self.grpc_port), *arguments)
        self.port = _port(process.line("REST "))
        self.grpc_port = _port(process.line("gRPC "))
        return process

    def start_server(self, *arguments: str) -> Process:
        """Starts `ao server` alone and waits until calls succeed."""
        process = self.ao("server", "--grpc-port", str(self.grpc_port), *arguments)
        self.grpc_port = _port(process.line("gRPC "))
        return process

    def start_gateway(self, *arguments: str) -> Process:
        """Starts `ao gateway` alone, in front of the server, and waits until requests succeed."""
        process = self.ao("gateway", "--port", str(self.port), "--server", self.grpc_address, *arguments)
        self.port = _port(process.line("REST "))
        return process

    def start_runner(self, file: Path, *arguments: str, name: str = "runner", server: str | None = None) -> Process:
        """Starts `ao runner FILE` with the admin key; does not wait. `server`: another address, e.g. a proxy's."""
        return self.ao(
            *("runner", str(file), "--server", server or self.grpc_address, *arguments),
            name=name,
            environment={"AGENT_ORCHESTRATION_API_KEY": self.api_key},
        )

    @property
    def is_serving(self) -> bool:
        """Whether a request that reads succeeds just now."""
        try:
            with self.client() as client:
                return client.get("/agents").status_code == 200
        except httpx2.TransportError:
            return False

    def client(self, timeout: float = 30.0) -> httpx2.Client:
        """An HTTP client for paths under /v1, with the admin key."""
        return httpx2.Client(
            base_url=self.rest_url,
            headers={"Authorization": f"Bearer {self.api_key}"},
            timeout=timeout,
            trust_env=False,
        )


def wait_until(condition: Callable[[], bool], timeout: float, problem: str) -> None:
    """Polls until the condition holds; fails with the problem after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{problem} within {timeout} s")
        time.sleep(POLL_SECONDS)


def _port(address: str) -> int:
    return int(address.removesuffix("/v1").rsplit(":", 1)[1])
