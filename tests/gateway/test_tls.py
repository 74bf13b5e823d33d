"""All that the gateway serves, over TLS; certificates that are replaced while it does."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect

from agent_orchestration.certificates import Certificates
from agent_orchestration.tls import Serving, Unusable
from tests.authority import Authority, Pair
from tests.gateway.conftest import DEADLINE, Running, serving
from tests.gateway.scripted import ScriptedServer

GET = b"GET /v1/agents/agent_1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ao_live_one\r\n\r\n"
HOST = "127.0.0.1"


@dataclass
class Log:
    """What was told to a log, by level."""

    lines: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def warning(self, event: str, **about: Any) -> None:
        self.lines.append(("warning", event))

    def info(self, event: str, **about: Any) -> None:
        self.lines.append(("info", event))


@dataclass
class Secured:
    running: Running
    authority: Authority
    pair: Pair
    certificates: Certificates

    def look(self) -> Log:
        """Looks at the files as often as it takes to read them; what the log was told."""
        log = Log()
        for _ in range(3):
            self.certificates.refresh(log)
        return log

    async def connect(self, context: ssl.SSLContext | None = None) -> "Connection":
        async with asyncio.timeout(DEADLINE):
            reader, writer = await asyncio.open_connection(
                HOST, self.running.port, ssl=context or self.authority.trusting()
            )
        return Connection(reader, writer)


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def certificate(self) -> bytes:
        shown: ssl.SSLObject = self.writer.get_extra_info("ssl_object")
        certificate = shown.getpeercert(binary_form=True)
        assert certificate is not None
        return certificate

    async def get(self) -> bytes:
        """The first line of the answer to a request; empty when the connection is closed instead."""
        async with asyncio.timeout(DEADLINE):
            self.writer.write(GET)
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ssl.SSLError, ConnectionError):
                return b""
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await self.reader.readexactly(int(length))
        return head.partition(b"\r\n")[0]

    def close(self) -> None:
        self.writer.transport.abort()


def is_resumed(port: int, context: ssl.SSLContext) -> bool:
    """Whether a second connection may go on with what the first has shown."""
    session: ssl.SSLSession | None = None
    is_reused = False
    for _ in range(2):
        plain = socket.create_connection((HOST, port), DEADLINE)
        with context.wrap_socket(plain, server_hostname=HOST, session=session) as connection:
            connection.sendall(GET)
            assert connection.recv(12) == b"HTTP/1.1 200"
            session, is_reused = connection.session, bool(connection.session_reused)
    return is_reused


@asynccontextmanager
async def secured(upstream: ScriptedServer, folder: Path, client_ca: Path | None = None) -> AsyncGenerator[Secured]:
    authority = Authority(folder)
    pair = authority.sign("server", HOST, "localhost")
    certificates = Certificates(Serving(pair.certificate, pair.key, client_ca))
    async with serving(upstream, certificates=certificates) as running:
        await running.connected()
        yield Secured(running, authority, pair, certificates)


@pytest.fixture
async def tls(upstream: ScriptedServer, tmp_path: Path) -> AsyncGenerator[Secured]:
    async with secured(upstream, tmp_path) as each:
        yield each


async def test_rest_streams_and_sockets_are_served(tls: Secured) -> None:
    running, trust = tls.running, tls.authority.trusting()
    headers = {"Authorization": "Bearer ao_live_one"}
    async with httpx2.AsyncClient(base_url=running.url, headers=headers, verify=trust, trust_env=False) as client:
        answer = await client.get("/agents/agent_1")
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
        large = await client.post("/tasks", json={"type": "t", "agent_id": "a", "payload": {"x": "y" * 500_000}})
        assert large.status_code == 201
        async with client.stream("GET", "/events?channel=task_events") as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            running.upstream.publish(size=300_000)
            async with asyncio.timeout(DEADLINE):
                while not (await anext(lines)).startswith("data: "):
                    pass
        page = await client.get(running.url.removesuffix("/v1") + "/docs")
        assert f"curl https://{HOST}:{running.port}/v1/agents" in page.text
    async with connect(running.ws_url, ssl=trust, open_timeout=DEADLINE) as socket:
        for message in ({"type": "auth", "token": "ao_live_one"}, {"type": "subscribe", "channel": "task_events"}):
            await socket.send(json.dumps(message))
            await socket.recv()
        running.upstream.publish(size=300_000)
        async with asyncio.timeout(DEADLINE):
            assert json.loads(await socket.recv())["type"] == "task_progress"
    malformed = await tls.connect()
    malformed.writer.write(b"NOT HTTP\r\n\r\n")
    async with asyncio.timeout(DEADLINE):
        assert (await malformed.reader.read()).startswith(b"HTTP/1.1 400 ")
    malformed.close()


async def test_what_is_no_tls_or_an_old_one_gets_no_answer(tls: Secured) -> None:
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection(HOST, tls.running.port)
        writer.write(GET)
        assert b"HTTP" not in await reader.read()
        writer.close()
    old = tls.authority.trusting()
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        await tls.connect(old)
    connection = await tls.connect()
    assert await connection.get() == b"HTTP/1.1 200 OK"
    connection.close()


async def test_a_replaced_certificate_is_shown_to_new_connections_and_old_ones_live_on(tls: Secured) -> None:
    old = await tls.connect()
    assert tls.look().lines == []
    tls.authority.sign("server", HOST)
    assert tls.look().lines == [("info", "certificate_replaced")]
    new = await tls.connect()
    assert new.certificate != old.certificate
    for connection in (old, new):
        assert await connection.get() == b"HTTP/1.1 200 OK"
        connection.close()


async def test_the_gateway_stops_while_a_connection_waits_for_the_goodbye_of_its_peer(
    upstream: ScriptedServer, tmp_path: Path
) -> None:
    async with secured(upstream, tmp_path) as tls:
        plain = socket.create_connection((HOST, tls.running.port), DEADLINE)

        def ask() -> ssl.SSLSocket:
            connection = tls.authority.trusting().wrap_socket(plain, server_hostname=HOST)
            connection.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert connection.recv(12) == b"HTTP/1.1 200"
            return connection

        # It has heard its answer and says nothing more: the gateway's side is closing.
        silent = await asyncio.to_thread(ask)
    silent.close()


@pytest.mark.parametrize("wrong", [b"", b"nonsense", "half", "key of another", "gone"])
async def test_a_broken_pair_is_told_once_and_the_last_one_stays(
    tls: Secured, tmp_path: Path, wrong: bytes | str
) -> None:
    first = await tls.connect()
    whole = tls.pair.certificate.read_bytes()
    if wrong == "half":
        tls.pair.certificate.write_bytes(whole[: len(whole) // 2])
    elif wrong == "key of another":
        tls.pair.key.write_bytes(tls.authority.sign("other", HOST).key.read_bytes())
    elif wrong == "gone":
        tls.pair.certificate.unlink()
    elif isinstance(wrong, bytes):
        tls.pair.certificate.write_bytes(wrong)
    assert tls.look().lines == [("warning", "certificate_not_usable")]
    assert tls.look().lines == []
    kept = await tls.connect()
    assert kept.certificate == first.certificate
    # As certbot does it: a link is turned to another file.
    fresh = tls.authority.sign("fresh", HOST)
    for path, target in ((tls.pair.certificate, fresh.certificate), (tls.pair.key, fresh.key)):
        (tmp_path / "link").symlink_to(target)
        (tmp_path / "link").replace(path)
    assert tls.look().lines == [("info", "certificate_replaced")]
    mended = await tls.connect()
    assert mended.certificate != first.certificate
    for connection in (first, kept, mended):
        assert await connection.get() == b"HTTP/1.1 200 OK"
        connection.close()


async def test_files_that_are_being_written_are_left_for_later(tls: Secured) -> None:
    log = Log()
    whole = tls.authority.sign("next", HOST)
    for path, content in (
        (tls.pair.certificate, whole.certificate.read_bytes()[:100]),
        (tls.pair.certificate, whole.certificate.read_bytes()),
        (tls.pair.key, whole.key.read_bytes()),
    ):
        path.write_bytes(content)
        tls.certificates.refresh(log)
    assert log.lines == []
    tls.certificates.refresh(log)
    assert log.lines == [("info", "certificate_replaced")]


async def test_clients_need_a_certificate_of_the_authority(upstream: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / "clients").mkdir()
    clients, strangers = Authority(tmp_path / "clients"), Authority(tmp_path / "clients", "strangers")
    async with secured(upstream, tmp_path, clients.file) as tls:
        own, foreign = clients.sign("service", "service"), strangers.sign("stranger", "stranger")
        served = await tls.connect(tls.authority.trusting(own))
        assert await served.get() == b"HTTP/1.1 200 OK"
        for refused in (None, foreign):
            # In TLS 1.3 a client hears of it after its own handshake.
            connection = await tls.connect(tls.authority.trusting(refused))
            assert await connection.get() == b""
            connection.close()
        # Who was let in is asked again each time.
        assert not await asyncio.to_thread(is_resumed, tls.running.port, tls.authority.trusting(own))
        # Another authority from now on.
        clients.file.write_bytes(strangers.file.read_bytes())
        assert tls.look().lines == [("info", "certificate_replaced")]
        for pair, answer in ((own, b""), (foreign, b"HTTP/1.1 200 OK")):
            connection = await tls.connect(tls.authority.trusting(pair))
            assert await connection.get() == answer
            connection.close()
        assert await served.get() == b"HTTP/1.1 200 OK"
        served.close()


def test_files_that_cannot_be_used_end_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.sign("one", HOST), authority.sign("two", HOST)
    empty = tmp_path / "empty"
    empty.touch()
    for certificate, key, client_ca, problem in (
        (tmp_path / "none", pair.key, None, "none cannot be read: No such file"),
        (pair.certificate, tmp_path, None, "cannot be read"),
        (pair.certificate, other.key, None, "two.key is not the key of .*one.pem"),
        (empty, pair.key, None, "no certificate and key in PEM"),
        (pair.certificate, pair.key, empty, "empty holds no certificates"),
    ):
        with pytest.raises(Unusable, match=problem) as raised:
            Certificates(Serving(certificate, key, client_ca))
        assert "\n" not in str(raised.value)
