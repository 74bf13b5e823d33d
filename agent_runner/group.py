"""A process that leads a process group: started, signalled and ended together with whatever it starts itself."""

import os
import selectors
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any, Final, Protocol

from agent_runner.lines import Output

# Where the system cannot tell of a process's end, it is looked for.
POLL_SECONDS: Final = 0.05


class HasFileno(Protocol):
    """What selectors take."""

    def fileno(self) -> int:
        """The number of the open file."""
        ...


class Group:
    """One process and its descendants, but for those that leave the group."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: str | None = None,
        environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Starts it. OSError when that is not possible."""
        self._popen = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=pass_fds,
            bufsize=0,
        )
        self._lock = threading.Lock()
        self._is_reaped = False
        self._is_lost = False
        self._selector = selectors.DefaultSelector()
        self._pidfd = _pidfd(self._popen.pid)
        if self._pidfd is not None:
            self._selector.register(self._pidfd, selectors.EVENT_READ, _nothing)

    @property
    def pid(self) -> int:
        """Its process id, which is the group's too."""
        return self._popen.pid

    @property
    def stdin(self) -> IO[bytes] | None:
        """Its standard input, if that is a pipe."""
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """Its standard output."""
        assert self._popen.stdout is not None
        return self._popen.stdout

    @property
    def stderr(self) -> IO[bytes]:
        """Its standard error."""
        assert self._popen.stderr is not None
        return self._popen.stderr

    def when_ready(self, file: HasFileno, events: int, action: Callable[[], object]) -> None:
        """From now on `wait` calls this whenever the file is ready."""
        self._selector.register(file, events, action)

    def hear(self, output: Output) -> None:
        """From now on `wait` takes what comes on one of its pipes, to its end."""

        def read() -> None:
            if not output.read():
                self.forget(output)

        self.when_ready(output, selectors.EVENT_READ, read)

    def forget(self, file: HasFileno) -> None:
        """Looks at the file no more."""
        with suppress(KeyError):
            self._selector.unregister(file)

    def wait(self, seconds: float | None = None) -> bool:
        """Waits, at most so long, until something can be done, and does it. False once the process has ended."""
        if self.has_ended():
            return False
        if self._pidfd is None:
            seconds = POLL_SECONDS
        for key, _ in self._selector.select(seconds):
            action: Callable[[], object] = key.data
            action()
        return True

    def has_ended(self) -> bool:
        """Whether the process has ended; descendants may live."""
        try:
            # It is left to be reaped: until then nobody else gets its number.
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            # Agent code has waited for any child whatsoever.
            self._is_lost = True
            return True

    def signal(self, number: signal.Signals) -> None:
        """Signals the whole group. From any thread."""
        with self._lock:
            if not self._is_reaped:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, number)

    def end(self) -> int | None:
        """Kills what is left of it; returns the exit code, negative for a signal, None when others have taken it."""
        self.signal(signal.SIGKILL)
        with self._lock:
            self._is_reaped = True
        code = self._popen.wait()
        self._selector.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        return None if self._is_lost else code


def how_it_ended(code: int | None) -> str:
    """The exit code in words."""
    if code is None:
        return "an end whose exit code other code of the runner has taken"
    if code >= 0:
        return f"exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, out of memory perhaps" if name == "SIGKILL" else name


def _pidfd(pid: int) -> int | None:
    try:
        opener: Any = os.pidfd_open
        return opener(pid)
    except (AttributeError, OSError):
        return None


def _nothing() -> None:
    pass
