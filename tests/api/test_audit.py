"""Who did what to which object, from where and with what outcome, whichever way the call came."""

import sqlite3
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from agent_orchestration.v1 import (
    access_pb2,
    access_pb2_grpc,
    agents_pb2,
    audit_pb2,
    audit_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    relay_pb2,
    relay_pb2_grpc,
    runners_pb2,
    tasks_pb2,
)
from ao_server.engine import audit
from tests.api.conftest import Api, serving

Metadata = tuple[tuple[str, str], ...]
MISSING = "agent_" + "0" * 26
DEFAULT = "project_default"


class Log:
    """The audit log of one project, as its admin reads it; each record is shown once."""

    def __init__(self, api: Api) -> None:
        self._stub: Any = audit_pb2_grpc.AuditServiceStub(api.channel)
        self._admin = api.admin
        self._seen: set[str] = set()

    async def all(self, **filters: Any) -> list[audit_pb2.AuditRecord]:
        response: audit_pb2.ListAuditRecordsResponse = await self._stub.ListAuditRecords(
            audit_pb2.ListAuditRecordsRequest(limit=100, **filters), metadata=self._admin
        )
        return list(response.data)

    async def new(self) -> list[tuple[str, str, str]]:
        """Action, object and outcome of what was added since the last look, oldest first."""
        fresh = [each for each in reversed(await self.all()) if each.id not in self._seen]
        self._seen |= {each.id for each in fresh}
        return [(each.action, each.object_id, each.outcome) for each in fresh]

    async def exported(self, **filters: Any) -> list[audit_pb2.AuditRecord]:
        request = audit_pb2.ExportAuditRecordsRequest(**filters)
        return [
            record
            async for response in self._stub.ExportAuditRecords(request, metadata=self._admin)
            for record in response.data
        ]


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def key_with(api: Api, *scopes: str, **fields: Any) -> tuple[str, Metadata]:
    """The id of a new key, and the metadata of calls under it."""
    stub: Any = keys_pb2_grpc.KeyServiceStub(api.channel)
    request = keys_pb2.CreateKeyRequest(name="Other", scopes=scopes, **fields)
    response: keys_pb2.CreateKeyResponse = await stub.CreateKey(request, metadata=api.admin)
    return response.data.id, (("authorization", f"Bearer {response.data.key}"),)


def gateway(folder: Path) -> Metadata:
    return (("authorization", "Bearer " + (folder / "data" / "gateway.key").read_text().strip()),)


async def relayed(api: Api, folder: Path, method: str, request: Message, metadata: dict[str, str]) -> None:
    """Makes one call as a gateway hands it on, and waits for whatever it is answered."""
    stub: Any = relay_pb2_grpc.RelayServiceStub(api.channel)
    stream = stub.Relay(metadata=gateway(folder))
    name = f"/agent_orchestration.v1.{method}"
    call = relay_pb2.RelayCall(id=1, method=name, message=request.SerializeToString(), metadata=metadata)
    await stream.write(relay_pb2.RelayRequest(calls=[call]))
    await stream.read()
    await stream.done_writing()


async def test_every_change_and_every_refused_one_is_there_with_its_object_and_reads_are_not(api: Api) -> None:
    log = Log(api)
    agent_id = await api.create_agent()
    key_id, other = await key_with(api, "agents:read", "tasks:write")
    keys: Any = keys_pb2_grpc.KeyServiceStub(api.channel)
    await keys.RevokeKey(keys_pb2.RevokeKeyRequest(key_id=key_id), metadata=api.admin)
    # Its end may not have got about yet.
    assert await code_of(keys.GetKey(keys_pb2.GetKeyRequest(key_id=key_id), metadata=other)) != grpc.StatusCode.OK
    limited_id, limited = await key_with(api, "agents:read")
    pause = agents_pb2.PauseAgentRequest(agent_id=agent_id)
    assert await code_of(api.agents.PauseAgent(pause, metadata=limited)) == grpc.StatusCode.PERMISSION_DENIED
    missing = agents_pb2.PauseAgentRequest(agent_id=MISSING)
    assert await code_of(api.agents.PauseAgent(missing, metadata=api.admin)) == grpc.StatusCode.NOT_FOUND
    bad = agents_pb2.CreateAgentRequest(name="", type="worker")
    assert await code_of(api.agents.CreateAgent(bad, metadata=api.admin)) == grpc.StatusCode.INVALID_ARGUMENT
    unknown = (("authorization", "Bearer nobody-knows-this"),)
    assert await code_of(api.agents.PauseAgent(pause, metadata=unknown)) == grpc.StatusCode.UNAUTHENTICATED
    get = agents_pb2.GetAgentRequest(agent_id=agent_id)
    assert await code_of(api.agents.GetAgent(get, metadata=limited)) == grpc.StatusCode.OK
    assert await log.new() == [
        ("CreateAgent", agent_id, "success"),
        ("CreateKey", key_id, "success"),
        ("RevokeKey", key_id, "success"),
        ("CreateKey", limited_id, "success"),
        ("PauseAgent", agent_id, "forbidden"),
        ("PauseAgent", MISSING, "not_found"),
        ("CreateAgent", "", "validation_error"),
    ]
    (refused,) = await log.all(outcome="forbidden")
    assert (refused.actor_id, refused.actor_name, refused.address) == (limited_id, "Other", "127.0.0.1")
    assert refused.request_id.startswith("req_")
    assert refused.created_at.ToMicroseconds() > 0


async def test_tasks_are_there_when_they_are_refused_and_all_of_them_where_that_is_asked_for(
    tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, database_url) as api:
        agent_id = await api.create_agent()
        created = await api.create_task(agent_id)
        refused = tasks_pb2.CreateTaskRequest(agent_id=MISSING, type="work")
        assert await code_of(api.tasks.CreateTask(refused, metadata=api.admin)) == grpc.StatusCode.INVALID_ARGUMENT
        await api.tasks.CancelTask(tasks_pb2.CancelTaskRequest(task_id=created), metadata=api.admin)
        assert (await Log(api).new())[1:] == [
            ("CreateTask", "", "validation_error"),
            ("CancelTask", created, "success"),
        ]
    async with serving(tmp_path, database_url, audits_tasks=True) as api:
        created = await api.create_task(agent_id)
        assert (await Log(api).new())[-1] == ("CreateTask", created, "success")


async def test_a_runner_that_connects_is_there_once_and_so_is_one_that_may_not(api: Api) -> None:
    log = Log(api)
    agent_id, not_its_agent = await api.create_agent(), await api.create_agent("Other")
    _, bound = await key_with(api, "runner:connect", agent_id=agent_id)
    await log.new()
    async with api.runner(agent_id) as runner:
        await runner.status()
        await runner.receive("renewed")
    call = api.runners.Connect(metadata=bound)
    await call.write(runners_pb2.ConnectRequest(hello=runners_pb2.Hello(agent_id=not_its_agent, instance_id="i")))
    assert await code_of(call.read()) == grpc.StatusCode.PERMISSION_DENIED
    assert await log.new() == [("Connect", agent_id, "success"), ("Connect", not_its_agent, "forbidden")]


async def test_a_token_is_asked_for_by_its_client_and_a_failed_login_is_there(api: Api, tmp_path: Path) -> None:
    access: Any = access_pb2_grpc.AccessServiceStub(api.channel)
    metadata = (*gateway(tmp_path), ("agent-orchestration-client", "203.0.113.9"), ("x-request-id", "req_mine"))
    unknown = "client_" + "0" * 26
    for client_id in (unknown, "ao_cs_secret-in-the-wrong-place"):
        request = access_pb2.IssueTokenRequest(client_id=client_id, client_secret="wrong")
        assert await code_of(access.IssueToken(request, metadata=metadata)) == grpc.StatusCode.UNAUTHENTICATED
    second, first = await Log(api).all()
    for record, object_id in ((first, unknown), (second, "")):
        assert (record.action, record.object_id, record.outcome) == ("IssueToken", object_id, "unauthorized")
        assert (record.actor_id, record.address, record.request_id) == ("gateway", "203.0.113.9", "req_mine")


async def test_an_address_and_a_refusal_are_believed_of_a_gateway_and_of_nobody_else(api: Api, tmp_path: Path) -> None:
    log = Log(api)
    agent_id = await api.create_agent()
    await log.new()
    pause = agents_pb2.PauseAgentRequest(agent_id=agent_id)
    claimed = {"agent-orchestration-client": "203.0.113.9", "agent-orchestration-refusal": "payload_too_large"}
    await api.agents.PauseAgent(pause, metadata=(*api.admin, *claimed.items()))
    delete = agents_pb2.DeleteAgentRequest(agent_id=agent_id)
    await relayed(api, tmp_path, "AgentService/DeleteAgent", delete, {**dict(api.admin), **claimed})
    assert await log.new() == [("PauseAgent", agent_id, "success"), ("DeleteAgent", agent_id, "payload_too_large")]
    assert [each.address for each in await log.all()][:2] == ["203.0.113.9", "127.0.0.1"]
    assert (await api.agent(agent_id)).id == agent_id, "what was refused has not happened"


async def test_records_are_found_by_each_filter_paged_behind_one_and_exported_oldest_first(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ao_server.api.audit.EXPORTED_AT_ONCE", 2)
    log = Log(api)
    agents = [await api.create_agent(f"Agent {number}") for number in range(3)]
    key_id, limited = await key_with(api, "agents:read")
    for agent_id in agents:
        await code_of(api.agents.PauseAgent(agents_pb2.PauseAgentRequest(agent_id=agent_id), metadata=limited))
    everything = await log.all()
    times = [each.created_at.ToNanoseconds() for each in everything]
    assert len(everything) == 7
    middle = everything[3]
    chosen: dict[str, list[audit_pb2.AuditRecord]] = {
        "actor_id": [each for each in everything if each.actor_id == key_id],
        "action": [each for each in everything if each.action == "PauseAgent"],
        "object_id": [each for each in everything if each.object_id == agents[0]],
        "outcome": [each for each in everything if each.outcome == "success"],
        "created_after": [each for each, time in zip(everything, times, strict=True) if time > times[3]],
        "created_before": [each for each, time in zip(everything, times, strict=True) if time < times[3]],
    }
    wanted = {"actor_id": key_id, "action": "PauseAgent", "object_id": agents[0], "outcome": "success"}
    for name, expected in chosen.items():
        filters: dict[str, Any] = {name: wanted.get(name, middle.created_at)}
        assert await log.all(**filters) == expected, name
        assert await log.exported(**filters) == expected[::-1], name
    assert await log.all(starting_after=middle.id) == everything[4:]
    assert await code_of(log.all(starting_after="audit_unknown")) == grpc.StatusCode.INVALID_ARGUMENT


async def test_the_database_itself_refuses_to_change_a_record(tmp_path: Path) -> None:
    path = tmp_path / "ao.db"
    async with serving(tmp_path, f"sqlite:///{path}") as api:
        await api.create_agent()
        with sqlite3.connect(path) as connection, pytest.raises(sqlite3.IntegrityError, match="never changed"):
            connection.execute("UPDATE audit_records SET outcome = 'success'")


@pytest.mark.parametrize("text", ["ao_live_" + "x" * 43, "Bearer x", "", "key_", "key_" + "0" * 27, "../../etc/passwd"])
def test_only_what_has_the_form_of_an_id_is_taken_for_one(text: str) -> None:
    assert not audit.is_id(text)
    assert audit.is_id("key_01kb5r8d3vqhj0kz9yb8s0w2m4") and audit.is_id(DEFAULT)
