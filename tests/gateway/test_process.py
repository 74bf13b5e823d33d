"""`ao gateway` as its operator meets it: what it listens on, how it refuses to start, how it stops."""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import websockets
from google.rpc import status_pb2

from agent_orchestration.environment import PREFIX, CannotStart
from agent_orchestration.v1 import relay_pb2
from ao_gateway import listening
from tests.gateway.conftest import DEADLINE
from tests.gateway.scripted import GATEWAY_KEY, ScriptedServer

SECONDS_TO_REFUSE = 5.0


@asynccontextmanager
async def started(*options: str, **variables: str) -> AsyncGenerator[Process]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment |= {PREFIX + name: value for name, value in variables.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ao_gateway", *options, stdout=PIPE, stderr=PIPE, env=environment
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def refusal(*options: str, **variables: str) -> tuple[int | None, str]:
    async with started(*options, **variables) as process, asyncio.timeout(SECONDS_TO_REFUSE):
        stdout, stderr = await process.communicate()
        assert stdout == b""
        return process.returncode, stderr.decode()


async def ready_line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE):
        return (await process.stdout.readline()).decode()


def server_options(upstream: ScriptedServer, data_dir: Path) -> list[str]:
    (data_dir / "gateway.key").write_text(GATEWAY_KEY + "\n")
    return ["--port", "0", "--server", upstream.address, "--data-dir", str(data_dir)]


async def test_a_taken_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = await refusal("--port", str(port))
    assert (code, said) == (2, f"error: port {port} on 127.0.0.1 is taken by another program\n")


@pytest.mark.parametrize(
    ("options", "variables", "named"),
    [
        (["--host", "0.0.0.0"], {}, "--insecure"),
        (["--host", "no.such.host.invalid", "--insecure"], {}, "no.such.host.invalid"),
        (["--host", "192.0.2.1", "--insecure"], {}, "192.0.2.1"),
        ([], {"GATEWAY_KEY": "short"}, "AGENT_ORCHESTRATION_GATEWAY_KEY"),
        ([], {"GATEWAY_KEY": "with a space"}, "AGENT_ORCHESTRATION_GATEWAY_KEY"),
        ([], {"RATE_LIMIT_PER_HOUR": "10o"}, "AGENT_ORCHESTRATION_RATE_LIMIT_PER_HOUR"),
        ([], {"RATE_LIMIT_PER_MINUTE": "-1"}, "AGENT_ORCHESTRATION_RATE_LIMIT_PER_MINUTE"),
    ],
)
async def test_what_is_wrong_is_named_in_one_line(options: list[str], variables: dict[str, str], named: str) -> None:
    code, said = await refusal("--port", "0", *options, **variables)
    assert code == 2
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert named in said
    assert "with a space" not in said


async def test_once_ready_it_says_where_and_answers_there(upstream: ScriptedServer, tmp_path: Path) -> None:
    async with started(*server_options(upstream, tmp_path)) as process:
        line = await ready_line(process)
        assert line.startswith("REST http://127.0.0.1:")
        url = line.removeprefix("REST ").strip()
        headers = {"Authorization": "Bearer ao_live_one"}
        async with httpx2.AsyncClient(headers=headers, trust_env=False, timeout=DEADLINE) as client:
            assert (await client.get(f"{url}/agents/x")).status_code == 200
            if has_ipv6():
                assert (await client.get(url.replace("127.0.0.1", "[::1]") + "/agents/x")).status_code == 200
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            stdout, _ = await process.communicate()
        assert (process.returncode, stdout) == (0, b"")


async def test_a_request_in_flight_is_answered_before_the_stop(upstream: ScriptedServer, tmp_path: Path) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()
    answer = upstream.answer

    async def held(call: relay_pb2.RelayCall) -> bytes | status_pb2.Status:
        arrived.set()
        await go_on.wait()
        return await answer(call)

    upstream.answer = held
    async with started(*server_options(upstream, tmp_path)) as process:
        url = (await ready_line(process)).removeprefix("REST ").strip()
        headers = {"Authorization": "Bearer ao_live_one"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False, timeout=DEADLINE) as client,
            websockets.connect(url.replace("http", "ws", 1) + "/ws", proxy=None) as open_socket,
        ):
            request = asyncio.create_task(client.get(f"{url}/agents/x"))
            await arrived.wait()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(DEADLINE):
                await open_socket.wait_closed()
            assert open_socket.close_code == 1012
            go_on.set()
            assert (await request).status_code == 200
        async with asyncio.timeout(DEADLINE):
            assert await process.wait() == 0


async def test_a_second_signal_ends_it_at_once(upstream: ScriptedServer, tmp_path: Path) -> None:
    arrived = asyncio.Event()

    async def never(call: relay_pb2.RelayCall) -> bytes | status_pb2.Status:
        arrived.set()
        await asyncio.Event().wait()
        return b""

    upstream.answer = never
    async with started(*server_options(upstream, tmp_path)) as process:
        url = (await ready_line(process)).removeprefix("REST ").strip()
        headers = {"Authorization": "Bearer ao_live_one"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False, timeout=DEADLINE) as client,
            websockets.connect(url.replace("http", "ws", 1) + "/ws", proxy=None) as open_socket,
        ):
            request = asyncio.create_task(client.get(f"{url}/agents/x"))
            await arrived.wait()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(DEADLINE):
                await open_socket.wait_closed()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(2):
                assert await process.wait() == 1
            with pytest.raises(httpx2.TransportError):
                await request


def test_port_0_is_the_same_free_port_on_both_loopbacks() -> None:
    sockets = listening.listen("localhost", 0)
    try:
        assert len({each.getsockname()[1] for each in sockets}) == 1
        assert len(sockets) == (2 if has_ipv6() else 1)
        port = sockets[0].getsockname()[1]
        assert listening.url(sockets[0]) == f"http://127.0.0.1:{port}/v1"
        with pytest.raises(CannotStart, match="taken"):
            listening.listen("127.0.0.1", port)
    finally:
        for each in sockets:
            each.close()


def test_an_ipv6_address_is_printed_in_brackets() -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    (listener,) = listening.listen("::1", 0)
    with listener:
        assert listening.url(listener) == f"http://[::1]:{listener.getsockname()[1]}/v1"


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False
