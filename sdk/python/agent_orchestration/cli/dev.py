"""`ao dev`: the whole control plane on one machine. A small parent that starts the two halves and dies with them."""

import asyncio
import os
import signal
import socket
import sys
from typing import Final

import click

from agent_orchestration.cli.half import Half, HalfEnded

STOP_SECONDS: Final = 9.5
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of REST, WebSocket and gRPC.")
@click.option("--port", default=3000, show_default=True, type=click.IntRange(0, 65535), help="REST; 0: a free one.")
@click.option(
    "--grpc-port", default=50051, show_default=True, type=click.IntRange(0, 65535), help="gRPC; 0: a free one."
)
@click.option("--data-dir", help="Folder of the database and keys.  [default: .ao]")
@click.option("--database-url", help="postgresql://... or sqlite:///PATH.  [default: ao.db in the data folder]")
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
@click.option("--insecure", is_flag=True, help="Listen beyond this machine without TLS.")
def dev(
    host: str,
    port: int,
    grpc_port: int,
    data_dir: str | None,
    database_url: str | None,
    log_level: str,
    insecure: bool,
) -> None:
    """Serve REST, WebSocket and gRPC on this machine until stopped."""
    if host not in LOOPBACK and not insecure:
        click.echo(f"error: --host {host} is reachable from other machines: it needs --insecure", err=True)
        sys.exit(2)
    common = ["--host", host, "--log-level", log_level, *(["--insecure"] if insecure else [])]
    if data_dir is not None:
        common += ["--data-dir", data_dir]
    stack = Stack(host, port, grpc_port, common, ["--database-url", database_url] if database_url else [])
    sys.exit(asyncio.run(stack.run()))


class Stack:
    """Both halves, from the first start to the last exit."""

    def __init__(self, host: str, port: int, grpc_port: int, common: list[str], server_only: list[str]) -> None:
        self._host = host
        self._port = port
        # The gateway is told the address before the server has it, so that both start at once.
        self._grpc_port = grpc_port or _free_port(host)
        self._common = common
        self._server_only = server_only
        # The children hold the read end; the write end closes when this process ends, in whichever way.
        read_end, self._write_end = os.pipe()
        self._server = Half("server", self._server_arguments, read_end)
        self._gateway = Half("gateway", self._gateway_arguments, read_end)
        self._lines: dict[str, str] = {}
        self._announced = False
        self._signals = 0

    async def run(self) -> int:
        """Runs until a signal or until a half cannot go on; returns the exit code."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled, stop)
        halves = [asyncio.create_task(half.run(self._heard)) for half in (self._server, self._gateway)]
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait([*halves, stopping], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        self._send(signal.SIGTERM)
        _, late = await asyncio.wait(halves, timeout=STOP_SECONDS)
        if late:
            self._send(signal.SIGKILL)
            await asyncio.wait(late)
        return max(_exit_code(half) for half in halves)

    def _signalled(self, stop: asyncio.Event) -> None:
        self._signals += 1
        if self._signals > 1:
            self._send(signal.SIGKILL)
            os._exit(1)
        stop.set()

    def _send(self, number: signal.Signals) -> None:
        for half in (self._gateway, self._server):
            half.send(number)

    def _heard(self, line: str) -> None:
        """Takes a line of either half; what is known of a port is kept for the next start."""
        word = "API key" if line.startswith("API key ") else line.split(" ", 1)[0]
        self._lines[word] = line
        if word == "REST":
            self._port = int(line.rsplit(":", 1)[1].split("/", 1)[0])
        if not self._announced and {"REST", "gRPC"} <= self._lines.keys():
            self._announced = True
            for each in ("REST", "gRPC", "API key"):
                if each in self._lines:
                    print(self._lines[each], flush=True)

    def _server_arguments(self) -> list[str]:
        return ["--grpc-port", str(self._grpc_port), *self._common, *self._server_only]

    def _gateway_arguments(self) -> list[str]:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return ["--port", str(self._port), "--server", f"{host}:{self._grpc_port}", *self._common]


def _exit_code(half: asyncio.Task[None]) -> int:
    error = half.exception()
    if error is None:
        return 0
    if not isinstance(error, HalfEnded):
        raise error
    if str(error):
        click.echo(f"error: {error}", err=True)
    return error.code


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]
