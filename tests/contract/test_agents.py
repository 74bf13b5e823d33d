"""Agents beyond the thin path, over REST and gRPC alike."""

import secrets

import grpc
import pytest

from agent_orchestration.v1 import runners_pb2
from tests.contract.conftest import Api


async def test_an_update_merges_the_configuration_by_its_keys_and_tells_the_processes(api: Api) -> None:
    agent_id = await api.agent(configuration={"max_concurrent_tasks": 1, "own": {"a": 1}, "kept": 1.0})
    async with api.runner(agent_id) as runner:
        answer = await api.put(
            f"/agents/{agent_id}",
            {"name": "Updated Agent Name", "configuration": {"max_concurrent_tasks": 15, "own": {"b": 2}}},
        )
        assert answer.status == 200
        stored = {"max_concurrent_tasks": 15, "own": {"b": 2}, "kept": 1.0}
        assert (answer.data["name"], answer.data["configuration"]) == ("Updated Agent Name", stored)
        configure = (await runner.receive("configure")).configure
        assert configure.max_concurrent_tasks == 15
        assert configure.configuration == '{"max_concurrent_tasks":15,"own":{"b": 2},"kept":1.0}'
        await runner.status(capacity=15)
        ids = {await api.task(agent_id) for _ in range(15)}
        taken: set[str] = set()
        while taken != ids:
            taken |= {each.attempt.task_id for each in (await runner.receive("assign")).assign.assignments}
    shown = (await api.get(f"/agents/{agent_id}")).data
    assert shown["updated_at"] > shown["created_at"]
    assert (await api.put(f"/agents/{agent_id}", {})).data["name"] == "Updated Agent Name"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "other"}, "type"),
        ({"status": "active"}, "status"),
        ({"id": "agent_1"}, "id"),
        ({"name": ""}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"configuration": []}, "configuration"),
        ({"configuration": {"timeout": 0}}, "configuration.timeout"),
        ({"configuration": {"max_concurrent_tasks": "5"}}, "configuration.max_concurrent_tasks"),
        ({"configuration": {"retry_attempts": None}}, "configuration.retry_attempts"),
    ],
)
async def test_a_bad_update_names_the_field_and_changes_nothing(api: Api, body: object, field: str) -> None:
    agent_id = await api.agent()
    before = (await api.get(f"/agents/{agent_id}")).data
    answer = await api.put(f"/agents/{agent_id}", body)
    assert (answer.status, answer.fields) == (400, [field])
    assert (await api.get(f"/agents/{agent_id}")).data == before


async def test_a_deleted_agent_is_gone_at_once_its_work_cancelled_its_process_told_and_its_name_free(api: Api) -> None:
    own = secrets.token_hex(6)
    agent_id = await api.agent(name=own, type=own, configuration={"max_concurrent_tasks": 1})
    async with api.runner(agent_id) as runner:
        done = await api.task(agent_id)
        await runner.assigned()
        assert await runner.finish(done, 1)
        running = await api.task(agent_id)
        await runner.assigned()
        made = await api.post("/tasks/bulk", {"tasks": [{"agent_id": agent_id, "type": "work"}] * 700})
        answer = await api.delete(f"/agents/{agent_id}")
        assert (answer.status, answer.json["message"]) == (200, "Agent deleted successfully")
        assert answer.json.keys() == {"message", "deleted_at"}
        code, details = await runner.ended()
        assert (code, "deleted" in details) == (grpc.StatusCode.NOT_FOUND, True)
    assert (await api.get(f"/agents/{agent_id}")).status == 404
    assert (await api.get("/agents", type=own)).json["pagination"]["total"] == 0
    for task_id in (running, made.data[0]["id"], made.data[-1]["id"]):
        task = (await api.get(f"/tasks/{task_id}", wait=20)).data
        assert (task["status"], task["error"]["code"]) == ("cancelled", "agent_deleted")
    assert (await api.shown(done))["status"] == "completed"
    totals = {
        status: (await api.get("/tasks", agent_id=agent_id, status=status)).json["pagination"]["total"]
        for status in ("pending", "running", "completed", "cancelled")
    }
    assert totals == {"pending": 0, "running": 0, "completed": 1, "cancelled": 701}
    refused = await api.post("/tasks", {"agent_id": agent_id, "type": "work"})
    assert (refused.status, refused.fields) == (400, ["agent_id"])
    for answer in (await api.delete(f"/agents/{agent_id}"), await api.put(f"/agents/{agent_id}", {"name": "x"})):
        assert answer.status == 404
    reborn = await api.agent(name=own, type=own)
    async with api.named_runner(own, own) as runner:
        assert runner.welcome.agent_id == reborn != agent_id


@pytest.mark.parametrize(("verb", "health"), [("pause", "paused"), ("drain", "draining")])
async def test_a_paused_or_draining_agent_gets_nothing_new_until_it_is_resumed(
    api: Api, verb: str, health: str
) -> None:
    agent_id = await api.agent()
    async with api.runner(agent_id) as runner:
        running = await api.task(agent_id)
        await runner.assigned()
        answer = await api.post(f"/agents/{agent_id}/{verb}")
        assert (answer.status, answer.data["status"], answer.data["health"]["status"]) == (200, "inactive", health)
        waiting = await api.task(agent_id)
        why = (await api.get(f"/tasks/{waiting}/explain")).data
        assert why["reason"]["code"] == {"pause": "agent_paused", "drain": "agent_draining"}[verb]
        assert (why["position"], why["status"]) == (1, "pending")
        assert await runner.finish(running, 1)
        if verb == "drain":
            assert (await api.get(f"/agents/{agent_id}")).data["health"]["status"] == "drained"
        again = await api.post(f"/agents/{agent_id}/{verb}", {})
        assert again.status == 200
        resumed = await api.post(f"/agents/{agent_id}/resume")
        assert (resumed.data["status"], resumed.data["health"]["status"]) == ("active", "healthy")
        assert (await runner.assigned()).attempt.task_id == waiting
        assert await runner.finish(waiting, 1)


async def test_an_agent_shows_what_its_processes_run_and_how_they_do(api: Api) -> None:
    agent_id = await api.agent(environment="production", type=f"type_{secrets.token_hex(6)}")
    before = (await api.get(f"/agents/{agent_id}")).data
    assert (before["status"], before["health"]["status"], before["task_types"]) == ("initializing", "unknown", [])
    async with api.runner(agent_id, types=("work", "play")) as runner:
        status = runners_pb2.Status(number=1, capacity=10, memory_usage=1.5, cpu_usage=23.1, stuck=1)
        status.uptime.FromSeconds(86_400)
        await runner.send(status=status)
        await runner.receive("renewed")
        shown = (await api.get(f"/agents/{agent_id}")).data
        assert (shown["metrics"]["memory_usage"], shown["metrics"]["cpu_usage"]) == (1.5, 23.1)
        assert (shown["health"]["uptime"], shown["health"]["status"]) == (86_400, "degraded")
        assert [each["name"] for each in shown["task_types"]] == ["play", "work"]
        listed = await api.get("/agents", environment="production", type=shown["type"], status="active")
        assert [each["id"] for each in listed.data] == [agent_id]
        assert "task_types" not in listed.data[0]


async def test_why_a_task_waits_is_said_from_capacity_down_to_the_place_in_line(api: Api) -> None:
    agent_id = await api.agent(configuration={"max_concurrent_tasks": 1})
    first = await api.task(agent_id)
    why = (await api.get(f"/tasks/{first}/explain")).data
    assert (why["task_id"], why["reason"]["code"], why["position"]) == (first, "no_instance", 1)
    assert why["remedies"]
    async with api.runner(agent_id) as runner:
        await runner.assigned()
        low = await api.task(agent_id, priority="low")
        high = await api.task(agent_id, priority="high")
        for task_id, position in ((high, 1), (low, 2)):
            why = (await api.get(f"/tasks/{task_id}/explain")).data
            assert (why["reason"]["code"], why["position"]) == ("at_capacity", position)
        why = (await api.get(f"/tasks/{first}/explain")).data
        assert (why["reason"]["code"], why["status"], "position" in why) == ("running", "running", False)
    assert (await api.get("/tasks/task_none/explain")).status == 404
