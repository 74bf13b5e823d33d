"""Both halves of `ao dev`, from the first start to the last exit."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_orchestration.cli.half import Half, HalfEnded
from agent_orchestration.cli.inner_socket import InnerSocket
from agent_orchestration.cli.ports import Reservation, grpc_addresses, rest_addresses

# A stop takes 10 s at most. The gateway goes first, so that its last requests still find the server.
GATEWAY_STOP_SECONDS: Final = 4.5
STOP_SECONDS: Final = 5.0
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# What is printed, in this order, by the word that a half's line begins with.
ANNOUNCED: Final = ("REST ", "gRPC ", "API key ")
_LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Options:
    """What `ao dev` was told. Port 0 is a free port, kept over restarts."""

    host: str
    port: int
    grpc_port: int
    # For both halves.
    common: Sequence[str]
    # With TLS: where the halves may have a socket of their own.
    socket_folder: Path | None


class Stack:
    """Runs both halves. They share one pipe whose end tells them that this process is gone."""

    def __init__(self, options: Options) -> None:
        """PortTaken when a port cannot be had."""
        # Held for as long as this object lives.
        self._rest = Reservation(rest_addresses(options.host), options.port)
        self._grpc = Reservation(grpc_addresses(options.host), options.grpc_port)
        read_end, self._write_end = os.pipe()
        common = ["--host", options.host, *options.common]
        server = ["--grpc-port", str(self._grpc.port), *common]
        target = _reachable(options.host, self._grpc.port)
        self._inner = InnerSocket(options.socket_folder) if options.socket_folder is not None else None
        if self._inner is not None:
            server += ["--inner-socket", str(self._inner.path)]
            target = f"unix:{self._inner.path}"
        gateway = ["--port", str(self._rest.port), "--server", target, *common]
        self._server = Half("server", server, read_end, self._heard)
        self._gateway = Half("gateway", gateway, read_end, self._heard)
        self._lines: dict[str, str] = {}
        self._printed = 0
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Runs until a signal or until a half cannot go on; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            # Whoever started this with a signal ignored (nohup) does not want it to count.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._signalled)
        server = asyncio.create_task(self._server.run())
        gateway = asyncio.create_task(self._gateway.run())
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait([server, gateway, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        self._gateway.stop()
        await asyncio.wait([gateway], timeout=0 if server.done() else GATEWAY_STOP_SECONDS)
        self._server.stop()
        _, late = await asyncio.wait([server, gateway], timeout=STOP_SECONDS)
        if late:
            self._kill()
            await asyncio.wait(late)
        if self._inner is not None:
            self._inner.remove()
        return max(_exit_code(server), _exit_code(gateway))

    def _signalled(self) -> None:
        if self._stop.is_set():
            self._kill()
            os._exit(1)
        self._stop.set()

    def _kill(self) -> None:
        self._gateway.kill()
        self._server.kill()

    def _heard(self, line: str) -> None:
        """Takes a line of either half. Each is printed once, when both are ready."""
        for word in ANNOUNCED:
            if line.startswith(word):
                self._lines.setdefault(word, line)
        if {"REST ", "gRPC "} <= self._lines.keys():
            known = [self._lines[word] for word in ANNOUNCED if word in self._lines]
            for each in known[self._printed :]:
                _print(each)
            self._printed = len(known)


def _reachable(host: str, port: int) -> str:
    """Where the gateway finds a server that listens on `host`."""
    address = _LOOPBACK_OF.get(host, host)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _exit_code(half: asyncio.Task[None]) -> int:
    error = half.exception()
    if error is None:
        return 0
    if not isinstance(error, HalfEnded):
        raise error
    if str(error):
        print(f"error: {error}", file=sys.stderr)
    return error.code


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # Nobody reads; that is no reason to stop serving. Nothing must be flushed there at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
