"""What fails, in a start or inside, is told without secrets and contents."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from agent_orchestration.tracebacks import told
from tests.authority import Authority
from tests.e2e.marks import Marks
from tests.e2e.processes import START_SECONDS, ControlPlane, Process

DEBUG = ("--log-level", "debug")
# A half that fails in all the ways there are, with all that it knows in the text of the error.
FAILING = """
import asyncio, gc, threading, warnings
from agent_orchestration.cli import main

def fails(*all):
    raise ValueError(str(all))

class Failing:
    def __init__(self, text): self.text = text
    def __del__(self): fails(self.text)

async def fail(request, headers=None):
    known = str(request), str(headers)
    asyncio.get_running_loop().call_soon(fails, *known)
    lost = asyncio.create_task(asyncio.to_thread(fails, *known))
    thread = threading.Thread(target=fails, args=known)
    thread.start()
    thread.join()
    Failing(known)
    await asyncio.wait([lost])
    del lost
    gc.collect()
    try:
        fails(known)
    except ValueError as error:
        error.add_note(str(known))
        raise ExceptionGroup(str(known), [KeyError(known), error]) from OSError(5, "failed", str(known))

async def retry(self, request, context):
    await fail(request)

async def decode(self, decoder, request, body):
    if b"fails" in body:
        await fail(body, request.headers)
    return decoder.decode(request.values, request.scope["query_string"], request.headers, body)

from ao_server.api import tasks
from ao_gateway import unary
tasks.TaskServicer.RetryTask = retry
unary.Unary._decode = decode
main()
"""


@pytest.fixture
def marks() -> Marks:
    return Marks()


def half(plane: ControlPlane, *arguments: str) -> Process:
    """A half that fails."""
    environment = {"AGENT_ORCHESTRATION_DATABASE_URL": plane.database_url or "", "PYTHONASYNCIODEBUG": "1", "PATH": ""}
    process = Process(
        [sys.executable, "-c", FAILING, *arguments, *DEBUG],
        folder=plane.folder,
        environment=environment,
        name=f"{len(plane.processes)}-{arguments[0]}",
    )
    plane.processes.append(process)
    return process


def test_what_fails_inside_is_told_without_what_it_was_about(tmp_path: Path, postgres_url: str, marks: Marks) -> None:
    with ControlPlane(tmp_path, database_url=postgres_url) as plane:
        server = half(plane, "server", "--grpc-port", "0")
        plane.grpc_port = int(server.line("gRPC ").rsplit(":", 1)[1])
        gateway = half(plane, "gateway", "--port", "0", "--server", plane.grpc_address)
        plane.port = int(gateway.line("REST ").removesuffix("/v1").rsplit(":", 1)[1])
        marks.got("admin key", plane.api_key)
        with psycopg.connect(postgres_url, autocommit=True) as database:
            database.execute("ALTER TABLE tasks ADD CONSTRAINT refused CHECK (type <> 'refused')")
        with plane.client() as client:
            agent = client.post("/agents", json={"name": "n", "type": "t"}).json()["data"]["id"]
            task = {"agent_id": agent, "type": "refused", "payload": {"contents": marks.new("payload")}}
            failed = [
                client.post("/tasks", json=task | {"labels": {"about": marks.new("label")}}),
                client.post(f"/tasks/{marks.new('id', 'ao_live_')}/retry"),
                client.post("/tasks", json={"type": "fails", "payload": {"contents": marks.new("body")}}),
            ]
            assert [marks.answer(each).status_code for each in failed] == [500, 500, 500]
            marks.answer(client.get("/audit/export"))
        gateway.stop()
        server.stop()
        marks.hear("server", server.errors, *server.lines[:1])
        marks.hear("gateway", gateway.errors, *gateway.lines)
        for event in (
            "event=write_failed",
            "event=call_failed",
            "event=not_caught",
            "ERROR asyncio Exception in callback",
        ):
            assert event in server.errors, server.errors
        assert "event=request_failed" in gateway.errors
        # What is left is enough to find the place.
        assert "23514 new row for relation" in server.errors
        assert "retry < " in server.errors
        assert "Traceback" not in server.errors + gateway.errors
    assert marks.found() == []


def test_a_store_that_is_away_is_told_of_without_what_it_was_to_keep(control_plane: ControlPlane, marks: Marks) -> None:
    dev = control_plane.start_dev(*DEBUG)
    marks.got("admin key", control_plane.api_key)
    with control_plane.client() as client, closing(sqlite3.connect(control_plane.data_dir / "ao.db")) as database:
        agent = client.post("/agents", json={"name": "n", "type": "t"}).json()["data"]["id"]
        database.execute("BEGIN IMMEDIATE")
        body = {"agent_id": agent, "type": "t", "payload": {"contents": marks.new("payload")}}
        assert marks.answer(client.post("/tasks", json=body)).status_code == 503
        database.rollback()
    dev.stop()
    assert "store_away" in dev.errors
    marks.hear("dev", dev.errors, *dev.lines[:2])
    assert marks.found() == []


def test_a_start_that_fails_says_why_without_its_secrets(
    control_plane: ControlPlane, tmp_path: Path, marks: Marks
) -> None:
    control_plane.environment = {"AGENT_ORCHESTRATION_API_KEY": marks.new("admin key", "ao_live_")}
    at = "127.0.0.1:5432/postgres"
    urls = [
        f"postgresql://ao:{marks.new('bad port')}@127.0.0.1:notaport/ao",
        f"postgresql://ao:{marks.new('nobody there')}@127.0.0.1:1/ao",
        f"postgresql://nobody:{marks.new('wrong user')}@{at}",
        f"postgresql://ao:{marks.new('option')}@{at}?{marks.new('name of an option')}=1",
        f"postgresql://ao:{marks.new('bad percent')}%zz@{at}",
        f"mysql://ao:{marks.new('scheme')}@{at}",
        f"{marks.new('no url')}",
        f"redis+x://:{marks.new('redis')}@127.0.0.1:1/0",
    ]
    pair = Authority(tmp_path).sign("server", "127.0.0.1")
    pair.key.write_text(f"-----BEGIN PRIVATE KEY-----\n{marks.new('TLS key')}\n-----END PRIVATE KEY-----\n")
    starts: list[tuple[tuple[str, ...], dict[str, str]]] = [
        *((("server", "--data-dir", "other", *DEBUG), {"DATABASE_URL": url}) for url in urls),
        *((("admin-key", "--data-dir", "other", "--database-url", url), {}) for url in urls[:2]),
        (("gateway", *pair.options, *DEBUG), {}),
        (("server", *DEBUG), {"API_KEY": marks.new("key with a space", "a ")}),
        (("server", *DEBUG), {"GATEWAY_KEY": marks.new("long") * 1000}),
    ]
    for arguments, variables in starts:
        environment = {f"AGENT_ORCHESTRATION_{name}": value for name, value in variables.items()}
        start = control_plane.ao(*arguments, environment=environment)
        assert start.end(START_SECONDS) in (1, 2)
        assert start.errors.startswith("error: "), start.errors
        assert start.errors.count("\n") == 1, start.errors
        marks.hear(start.name, start.errors, *start.lines)
    assert marks.found() == []


def test_a_password_is_in_no_argument_of_a_process(
    control_plane: ControlPlane, postgres_url: str, marks: Marks
) -> None:
    url = postgres_url.replace("@", f":{marks.new('password')}@")
    dev = control_plane.start_dev("--database-url", url)
    marks.hear("arguments", *(dev.child(each).cmdline() for each in ("server", "gateway")))
    marks.hear("output", dev.errors, *dev.lines)
    assert marks.found() == []
    with psycopg.connect(postgres_url) as database:
        assert database.execute("SELECT count(*) FROM projects").fetchone() == (1,)


def test_a_failing_row_is_told_by_its_constraint_alone(postgres_url: str, marks: Marks) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as database:
        database.execute("CREATE TABLE kept (text TEXT CONSTRAINT short CHECK (length(text) < 3))")
        with pytest.raises(psycopg.Error) as row:
            database.execute("INSERT INTO kept VALUES (%s)", (marks.new("row"),))
        with pytest.raises(psycopg.Error) as value:
            database.execute("SELECT %s::integer", (marks.new("value"),))
    marks.hear("its own text", str(row.value), str(value.value))
    assert len(marks.found()) == 2
    marks.told.clear()
    chained = RuntimeError("could not be kept")
    chained.__cause__ = row.value
    text = told(chained)
    assert 'because of psycopg.errors.CheckViolation: 23514 new row for relation "kept" violates check' in text
    marks.hear("told", text, told(value.value))
    assert marks.found() == []
