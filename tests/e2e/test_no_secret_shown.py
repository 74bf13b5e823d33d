"""Secrets and contents come to light nowhere, at `--log-level debug` either: not in logs, answers, frames or records.

Contents are in what their user asks for, and credentials in the one answer that makes them: those are not searched.
"""

import json
import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import httpx2
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from agent_orchestration.v1 import runners_pb2, runners_pb2_grpc, tasks_pb2, tasks_pb2_grpc
from tests.e2e.marks import MARK, Marks
from tests.e2e.processes import ControlPlane

DEADLINE = 20.0
# Where tasks and what they are about are kept.
CONTENTS = ("tasks", "payloads", "results", "log_lines", "event_portions", "idempotency_keys")
DEBUG = ("--log-level", "debug")
AGENTS = """
import logging
from agent_runner import Agent

agent = Agent(name="Careful", type="careful")

@agent.task("work")
def work(task):
    return {"given": task.payload}

@agent.task("fail")
def fail(task):
    raise ValueError(str(task.payload))
"""
# What asyncio has to say of slow callbacks and of what was never awaited.
ENVIRONMENT = {"PYTHONASYNCIODEBUG": "1", "PYTHONDEVMODE": "1"}


@pytest.fixture(scope="module")
def marks() -> Marks:
    return Marks()


@pytest.fixture
def plane(tmp_path: Path, marks: Marks) -> Generator[ControlPlane]:
    keys = {f"AGENT_ORCHESTRATION_{name}": marks.new(name, "ao_live_") for name in ("API_KEY", "GATEWAY_KEY")}
    with ControlPlane(tmp_path, environment=ENVIRONMENT | keys) as plane:
        plane.start_dev(*DEBUG)
        yield plane


def test_what_is_shown_in_right_and_wrong_places_comes_to_light_nowhere(plane: ControlPlane, marks: Marks) -> None:
    with plane.client(DEADLINE) as admin:
        lost = _keys(admin, marks)
        _headers(plane, admin, marks)
        _paths(admin, marks)
        _oauth(plane, admin, marks)
        _sockets(plane, marks, lost)
        _direct(plane, marks)
        _contents(plane, admin, marks)
        for path in ("/audit?limit=100", "/audit/export", "/metrics", "/health", "/keys", "/oauth/clients"):
            marks.answer(admin.get(path))
    for process in plane.processes:
        if process.is_running:
            process.stop()
        # The first start prints its admin key, this once.
        told = [line for line in process.lines if not line.startswith("API key ")]
        marks.hear(process.name, process.errors, *told)
    _files(plane, marks)
    assert len(marks.secrets) >= 50
    assert len([where for where, _ in marks.told if where.isdigit()]) >= 60
    assert {"400", "401", "403", "404", "405", "413", "415"} <= {where for where, _ in marks.told}
    assert marks.found() == [], "\n".join(map(str, marks.found()))


def _keys(admin: httpx2.Client, marks: Marks) -> str:
    """A good key, and the secret that was rotated out of it, which is returned."""
    body = {"name": "Reader", "scopes": ["tasks:read", "agents:read"]}
    made = admin.post("/keys", json=body).json()["data"]
    lost = marks.got("rotated-out key", made["key"])
    rotated = admin.post(f"/keys/{made['id']}/rotate", json={"overlap": 0}).json()["data"]
    key = marks.got("key", rotated["key"])
    for bearer in (key, lost):
        headers = {"Authorization": f"Bearer {bearer}"}
        # 200 and 401; 403.
        marks.answer(admin.get("/tasks", headers=headers))
        marks.answer(admin.get("/audit", headers=headers))
    marks.answer(admin.get(f"/keys/{made['id']}"))
    marks.answer(admin.put(f"/keys/{made['id']}", json={"key": marks.new("key in an update")}))
    return lost


def _headers(plane: ControlPlane, admin: httpx2.Client, marks: Marks) -> None:
    for scheme in ("Bearer", "bearer", "BEARER", "Basic", "Digest", "Bearer ", "Token", "Bearer\t"):
        marks.answer(admin.get("/agents", headers={"Authorization": f"{scheme} {marks.new(f'scheme {scheme!r}')}"}))
    marks.answer(admin.get("/agents", headers={"Authorization": marks.basic("Basic", "admin")}))
    marks.answer(admin.get("/agents", headers=[(b"Authorization", b"Bearer " + marks.new("bytes").encode() + b"\xff")]))
    for name in (
        *("Proxy-Authorization", "Cookie", "X-Api-Key", "Referer", "User-Agent", "Origin", "X-Forwarded-For"),
        *("Idempotency-Key", "If-Match", "Accept", "Content-Type", "Last-Event-ID", "traceparent"),
    ):
        marks.answer(admin.post("/agents", json={}, headers={name: marks.new(name, "ao_live_")}))
    for prefix in ("ao_live_", "ao_cs_", "ao_at_", "ao_gw_"):
        marks.answer(admin.get("/agents", headers={"X-Request-Id": marks.new(f"request id {prefix}", prefix)}))
    with httpx2.Client(base_url=plane.rest_url, trust_env=False) as stranger:
        twice = [("Authorization", f"Bearer {marks.new('doubled')}"), ("Authorization", f"Bearer {plane.api_key}")]
        marks.answer(stranger.get("/agents", headers=twice))
        marks.answer(stranger.get("/agents", headers={"Host": f"admin:{marks.new('user in host')}@127.0.0.1"}))


def _paths(admin: httpx2.Client, marks: Marks) -> None:
    """Where a credential has no business: paths, queries and bodies."""
    for path in ("/agents", "/tasks", "/audit/export", "/health", "/events", "/nowhere", "/ws", "/../livez", "/docs"):
        for name in ("token", "access_token", "api_key"):
            query = f"{path}?{name}={marks.new(f'{path}?{name}', 'ao_live_')}"
            marks.answer(admin.get(query, headers={"Authorization": ""}))
            if path != "/events":
                marks.answer(admin.get(query))
    for path in (
        "/tasks/{}",
        "/tasks/{}/logs",
        "/tasks/{}/explain",
        "/agents/{}",
        "/keys/{}",
        "/oauth/clients/{}",
        "/{}",
    ):
        for method in ("GET", "DELETE", "POST", "PATCH"):
            marks.answer(admin.request(method, path.format(marks.new(f"{method} {path}", "ao_live_"))))
    for path in ("/tasks/{}/cancel", "/tasks/{}/retry", "/agents/{}/pause", "/keys/{}/rotate"):
        marks.answer(admin.post(path.format(marks.new(path, "ao_live_"))))
        marks.answer(admin.post(path.format(quote(f"ao_live_\0{marks.new(f'{path} NUL')}é"))))
    for body in (
        {"name": 1, "type": marks.new("type")},
        {"name": "n", "type": "t", "agent_id": marks.new("name of no field")},
        {"name": f"\0{marks.new('NUL')}", "type": f"{marks.new('not ASCII')}\udcff"},
        {"name": "n", "type": "t", "configuration": {"timeout": marks.new("configuration")}},
        {marks.new("field"): 1},
    ):
        marks.answer(admin.post("/agents", content=json.dumps(body).encode()))
    for name in ("agent_id", "idempotency_key", "priority", "labels", "payload", "schedule"):
        marks.answer(admin.post("/tasks", json={"type": "t", name: marks.new(f"tasks' {name}", "ao_live_")}))
    marks.answer(admin.post("/tasks", content=b'{"payload": {"key": "' + marks.new("cut off").encode()))
    marks.answer(admin.post("/tasks", content=b"\xff" + marks.new("no text").encode()))
    marks.answer(admin.post("/tasks", content=marks.new("too large").encode() * 1_500_000))
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    marks.answer(admin.post("/tasks", content=f"token={marks.new('form')}".encode(), headers=form))
    for query in ("status={}", "cursor={}", "agent_id={}", "page={}", "labels={}", "created_after={}"):
        marks.answer(admin.get(f"/tasks?{query.format(marks.new(f'query {query}', 'ao_live_'))}"))
        marks.answer(admin.get(f"/audit?{query.format(marks.new(f'audit {query}', 'ao_live_'))}"))


def _oauth(plane: ControlPlane, admin: httpx2.Client, marks: Marks) -> None:
    made = admin.post("/oauth/clients", json={"name": "Billing", "scopes": ["tasks:read"]}).json()["data"]
    right = marks.got("client secret", made["client_secret"])
    with httpx2.Client(base_url=plane.rest_url.removesuffix("/v1"), trust_env=False, timeout=DEADLINE) as service:
        body = {"grant_type": "client_credentials", "client_id": made["client_id"], "client_secret": right}
        token = marks.got("access token", service.post("/oauth/token", json=body).json()["access_token"])
        basic = {"Authorization": marks.basic("right Basic", made["client_id"], right)}
        again = service.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=basic)
        marks.got("another access token", again.json()["access_token"])
        wrong = marks.new("wrong secret", "ao_cs_")
        marks.answer(service.post("/oauth/token", json=body | {"client_secret": wrong}))
        marks.answer(service.post("/oauth/token", data=body | {"client_secret": marks.new("wrong in a form")}))
        marks.answer(service.post("/oauth/token", json=body | {"client_id": marks.new("secret as id", "ao_cs_")}))
        marks.answer(service.post("/oauth/token", json=body | {"scope": marks.new("scope")}))
        marks.answer(service.post("/oauth/token", json=body | {"grant_type": marks.new("grant type")}))
        marks.answer(service.post(f"/oauth/token?client_secret={marks.new('secret in query')}", json=body))
        marks.answer(service.post("/oauth/token", content=b'{"client_secret": "' + marks.new("cut").encode()))
        headers = {"Authorization": marks.basic("wrong Basic", made["client_id"])}
        marks.answer(service.post("/oauth/token", data={"grant_type": "client_credentials"}, headers=headers))
        marks.answer(admin.get("/tasks", headers={"Authorization": f"Bearer {token}"}))
        marks.answer(service.post("/oauth/revoke", data={"token": token}, headers=basic))
        marks.answer(service.post("/oauth/revoke", data={"token": marks.new("no token", "ao_at_")}, headers=basic))
        marks.answer(admin.get("/tasks", headers={"Authorization": f"Bearer {token}"}))


def _sockets(plane: ControlPlane, marks: Marks, lost: str) -> None:
    bad = marks.new("socket's token", "ao_live_")
    auth = json.dumps({"type": "auth", "token": plane.api_key})
    for frames in (
        [json.dumps({"type": "auth", "token": bad})],
        [json.dumps({"type": "auth", "token": lost})],
        [json.dumps({"type": "auth", "token": [marks.new("token in a list")]})],
        ['{"type": "auth", "token": "' + marks.new("frame cut off")],
        [marks.new("binary").encode() + b"\xff"],
        [auth, json.dumps({"type": "auth", "token": marks.new("second token", "ao_live_")}), '{"type":"ping"}'],
        [auth, json.dumps({"type": "subscribe", "channel": marks.new("channel"), "token": marks.new("more")})],
        [auth, json.dumps({"type": "subscribe", "channel": "task_events", "agent_id": marks.new("agent", "ao_live_")})],
        [json.dumps({"type": marks.new("type of frame")})],
    ):
        url = f"ws://127.0.0.1:{plane.port}/v1/ws?token={marks.new(f'socket {len(marks.secrets)}')}"
        with connect(url, proxy=None) as socket:
            for frame in frames:
                try:
                    socket.send(frame)
                    marks.hear("frame", socket.recv(DEADLINE))
                except ConnectionClosed as closed:
                    marks.hear("close", str(closed))


def _direct(plane: ControlPlane, marks: Marks) -> None:
    with grpc.insecure_channel(plane.grpc_address) as channel:
        tasks: Any = tasks_pb2_grpc.TaskServiceStub(channel)
        runners: Any = runners_pb2_grpc.RunnerServiceStub(channel)
        good = ("authorization", f"Bearer {plane.api_key}")
        for metadata in (
            [("authorization", f"Bearer {marks.new('bad bearer', 'ao_live_')}")],
            [("authorization", f"basic {marks.new('basic in metadata')}")],
            [good, ("authorization", f"Bearer {marks.new('second in metadata')}")],
            [("x-api-key", marks.new("key of its own")), ("cookie", marks.new("cookie in metadata"))],
            [good, ("x-request-id", marks.new("request id of a call", "ao_live_"))],
            [good, ("x-request-id", marks.new("long request id") * 20)],
            [good, ("agent-orchestration-project", marks.new("project")), ("agent-orchestration-client", "x" * 300)],
        ):
            for request in (
                tasks_pb2.CancelTaskRequest(task_id=marks.new(f"id in a call {len(marks.secrets)}", "ao_live_")),
                tasks_pb2.CancelTaskRequest(task_id=f"\0é{marks.new(f'odd id in a call {len(marks.secrets)}')}"),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    tasks.CancelTask(request, metadata=metadata, timeout=DEADLINE)
                marks.hear("gRPC", repr(refused.value), refused.value.trailing_metadata())
        for hello in (
            runners_pb2.Hello(agent_id=marks.new("runner's agent", "ao_live_"), instance_id="instance_1"),
            runners_pb2.Hello(agent_id="agent_none", instance_id=marks.new("instance", "ao_live_")),
        ):
            first = runners_pb2.ConnectRequest(hello=hello)
            call = runners.Connect(iter([first]), metadata=[good], timeout=DEADLINE)
            with pytest.raises(grpc.RpcError) as refused:
                list(call)
            marks.hear("gRPC", repr(refused.value), refused.value.trailing_metadata())


def _contents(plane: ControlPlane, admin: httpx2.Client, marks: Marks) -> None:
    """What agents are given and give back is in what their users ask for alone."""
    (plane.folder / "agents.py").write_text(AGENTS)
    plane.start_runner(plane.folder / "agents.py", *DEBUG)
    key = {"Idempotency-Key": marks.new("good idempotency key", "ao_live_")}
    for kind in ("work", "fail"):
        body = {"agent_type": "careful", "type": kind, "payload": {"contents": marks.new(f"payload to {kind}")}}
        made = admin.post("/tasks", json=body, headers=key if kind == "work" else {}).json()["data"]
        admin.get(f"/tasks/{made['id']}?wait=20")
    # The same key again, for something else.
    marks.answer(admin.post("/tasks", json=body, headers=key))
    bad = {"AGENT_ORCHESTRATION_API_KEY": marks.new("runner's key", "ao_live_")}
    for server in (plane.grpc_address, "127.0.0.1:1"):
        runner = plane.ao("runner", "agents.py", "--server", server, *DEBUG, name="refused", environment=bad)
        runner.error("not connected" if server.endswith(":1") else "credential")


def _files(plane: ControlPlane, marks: Marks) -> None:
    """The folder; of the database, what is in it of credentials."""
    with closing(sqlite3.connect(plane.data_dir / "ao.db")) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = database.execute(f"SELECT * FROM {table}").fetchall()
            if table not in CONTENTS:
                marks.hear(f"table {table}", repr(rows))
    kept = [path for path in plane.folder.rglob("*") if path.is_file() and path.suffix != ".err"]
    for path in kept:
        if path.name not in ("admin.key", "gateway.key") and not path.name.startswith("ao.db"):
            marks.hear(str(path), path.read_text(errors="replace"))
    assert MARK in (plane.data_dir / "admin.key").read_text()
