"""A runner's key is good for the agents that it is bound to, and its reports for the attempts that it was given."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.access.world import Project, World, bearer
from tests.api.conftest import RawRunner

TYPE = "worker"


@asynccontextmanager
async def connected(world: World, credential: str, **hello: Any) -> AsyncGenerator[RawRunner]:
    runner = RawRunner(world.api.runners.Connect(metadata=bearer(credential)))
    try:
        await runner.hello(instance_id="instance_1", **hello)
        yield runner
    finally:
        runner.call.cancel()


async def refusal(world: World, credential: str, **hello: Any) -> tuple[str, str]:
    """How a hello is refused: code and text."""
    runner = RawRunner(world.api.runners.Connect(metadata=bearer(credential)))
    try:
        await runner.hello(instance_id="instance_1", **hello)
    except AssertionError:
        code, details = await runner.ended()
        return code.name, details
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    finally:
        runner.call.cancel()
    return "OK", ""


async def agents(project: Project) -> list[str]:
    return [each["id"] for each in (await project.call("GET", "/agents"))["data"]]


async def test_a_key_of_one_agent_is_that_agent_and_no_other(both: World) -> None:
    own = both.own
    mine, others = await own.agent(type=TYPE, name="mine"), await own.agent(type=TYPE, name="others")
    theirs = await both.other.agent(type=TYPE, name="theirs")
    key = (await own.key("runner:connect", agent_id=mine))["key"]
    before = await agents(own)
    for hello in (
        {"agent_id": others},
        {"agent_id": theirs},
        {"agent_id": "agent_none"},
        {"type": TYPE, "name": "others"},
        {"type": TYPE, "name": "new"},
        {"type": "new", "name": "mine"},
    ):
        assert await refusal(both, key, **hello) == (
            "PERMISSION_DENIED",
            "the credential is for runners of another agent",
        )
    # Nothing was made, nor seen, in the name of another.
    assert await agents(own) == before
    assert {each["status"] for each in (await own.call("GET", "/agents"))["data"]} == {"initializing"}
    for hello in ({"agent_id": mine}, {"type": TYPE, "name": "mine"}):
        async with connected(both, key, **hello) as runner:
            assert runner.welcome.agent_id == mine


async def test_a_key_of_a_type_is_all_agents_of_it_and_no_other(both: World) -> None:
    own = both.own
    existing, stranger = await own.agent(type=TYPE, name="one"), await own.agent(type="another", name="one")
    theirs = await both.other.agent(type=TYPE)
    key = (await own.key("runner:connect", agent_type=TYPE))["key"]
    denied = ("PERMISSION_DENIED", "the credential is for runners of another agent")
    assert await refusal(both, key, agent_id=stranger) == denied
    assert await refusal(both, key, type="another", name="one") == denied
    # As an agent that does not exist.
    expected = ("NOT_FOUND", "there is no such agent")
    for missing in (theirs, "agent_none"):
        code, details = await refusal(both, key, agent_id=missing)
        assert (code, details.replace(missing, "X")) == expected
    for hello, agent_id in (({"agent_id": existing}, existing), ({"type": TYPE, "name": "new"}, None)):
        async with connected(both, key, **hello) as runner:
            assert agent_id in (None, runner.welcome.agent_id)
    assert len(await agents(own)) == 3


async def test_only_the_scope_to_connect_connects(here: World) -> None:
    agent_id = await here.own.agent()
    key = (await here.own.key("agents:read", "agents:write", "tasks:read", "tasks:write", "monitoring:read"))["key"]
    code, details = await refusal(here, key, agent_id=agent_id)
    assert (code, details) == ("PERMISSION_DENIED", "the credential does not have the scope runner:connect")


async def test_a_deleted_agents_key_is_good_for_nothing_any_more(here: World) -> None:
    agent_id = await here.own.agent(type=TYPE, name="one")
    key = (await here.own.key("runner:connect", agent_id=agent_id))["key"]
    async with connected(here, key, agent_id=agent_id) as runner:
        await here.own.call("DELETE", f"/agents/{agent_id}")
        code, _ = await runner.ended()
        assert code.name == "NOT_FOUND"
    assert (await refusal(here, key, agent_id=agent_id))[0] == "NOT_FOUND"
    # Neither the name that it had, nor one who has it now.
    assert (await refusal(here, key, type=TYPE, name="one"))[0] == "PERMISSION_DENIED"
    await here.own.agent(type=TYPE, name="one")
    assert (await refusal(here, key, type=TYPE, name="one"))[0] == "PERMISSION_DENIED"


@pytest.mark.parametrize("is_same_project", [True, False])
async def test_a_stream_is_superseded_by_its_own_instance_alone(both: World, is_same_project: bool) -> None:
    own = both.own
    other = own if is_same_project else both.other
    mine, others = await own.agent(type=TYPE), await other.agent(type=TYPE)
    key = (await own.key("runner:connect", agent_id=mine))["key"]
    others_key = (await other.key("runner:connect", agent_id=others))["key"]
    async with connected(both, key, agent_id=mine) as runner, connected(both, others_key, agent_id=others):
        # Nor does one that is refused end it.
        assert (await refusal(both, others_key, agent_id=mine))[0] == "PERMISSION_DENIED"
        await runner.status()
        await runner.receive("renewed")
        task_id = await own.task(mine)
        assert (await runner.assigned()).attempt.task_id == task_id


@pytest.mark.parametrize("is_same_project", [True, False])
async def test_what_is_reported_of_others_attempts_leaves_no_trace(both: World, is_same_project: bool) -> None:
    own = both.own
    other = own if is_same_project else both.other
    mine, others = await own.agent(type=TYPE), await other.agent(type=TYPE)
    others_key = (await other.key("runner:connect", agent_id=others))["key"]
    async with connected(both, own.admin, agent_id=mine) as runner:
        task_id = await own.task(mine)
        await runner.assigned()
        before = await own.call("GET", f"/tasks/{task_id}")
        events = await event_count(own)
        held = [(task_id, 1)]
        async with connected(both, others_key, agent_id=others, held=held) as thief:
            # It is told to stop what it claims to hold, and nothing else comes of it.
            assert (await thief.receive("cancel")).cancel.attempt.task_id == task_id
            for message in messages(task_id):
                await thief.send(**message)
            assert not await thief.finish(task_id, 1)
            assert not await thief.finish(task_id, 1, failure={"code": "x", "message": "y"})
            await thief.send(drain={"goodbye": True})
            await thief.call.done_writing()
            await thief.ended()
        assert await own.call("GET", f"/tasks/{task_id}") == before
        assert (await own.call("GET", f"/tasks/{task_id}/logs"))["pagination"]["total"] == 0
        if not is_same_project:
            assert await event_count(own) == events
        assert await runner.finish(task_id, 1)


def messages(task_id: str) -> list[dict[str, Any]]:
    attempt = {"task_id": task_id, "number": 1}
    return [
        {"progress": {"reports": [{"attempt": attempt, "progress": 50, "message": "mine now"}]}},
        {"log": {"reports": [{"attempt": attempt, "message": "mine now"}]}},
        {"status": {"number": 99, "held": [attempt], "last_assign": 99, "capacity": 5}},
    ]


async def event_count(project: Project) -> str:
    """Where the project's feed stands."""
    headers = {"Authorization": f"Bearer {project.admin}"}
    async with project.client.stream("GET", "/events", headers=headers) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("id:"):
                return line.removeprefix("id:").strip()
    raise AssertionError("no cursor came")
