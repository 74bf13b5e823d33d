"""Nothing of one project is seen, counted, run or touched from another, however alike the two are."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import websockets

from agent_orchestration.v1 import monitoring_pb2
from tests.access.world import DEADLINE, Project, World, bearer, world
from tests.api.conftest import RawRunner

TYPE = "worker"


@asynccontextmanager
async def runner(world: World, project: Project, types: tuple[str, ...] = ("work",)) -> AsyncGenerator[RawRunner]:
    """A process that says the same of itself in every project."""
    connected = RawRunner(world.api.runners.Connect(metadata=bearer(project.admin)))
    try:
        await connected.hello(type=TYPE, name="one", instance_id="instance_1", types=types)
        yield connected
    finally:
        connected.call.cancel()


async def figures(project: Project) -> Any:
    """All numbers that a project is shown."""
    health = await project.call("GET", "/health")
    metrics = await project.call("GET", "/metrics?period=1h")
    shown = {"queue": health["services"]["message_queue"]["pending_messages"]}
    shown |= {name: health["metrics"][name] for name in ("active_agents", "running_tasks", "completed_tasks_today")}
    shown |= metrics["data"]["metrics"]
    for path in ("/agents", f"/agents?type={TYPE}", "/keys", "/projects"):
        shown[path] = (await project.call("GET", path))["pagination"]["total"]
    queries = (
        "",
        "?status=pending",
        "?type=work",
        f"?agent_type={TYPE}",
        "?label=team=a",
        "?priority=high&status=running",
    )
    for query in (*queries, "?created_after=2020-01-01T00:00:00Z", "?created_after=2020-01-01T00:00:00Z&type=work"):
        shown[query] = (await project.call("GET", f"/tasks{query}"))["pagination"]["total"]
    return shown


async def test_work_goes_to_the_processes_of_its_own_project_alone(both: World) -> None:
    own, other = both.own, both.other
    async with runner(both, own) as mine, runner(both, other) as theirs:
        assert mine.welcome.agent_id != theirs.welcome.agent_id
        for number in range(20):
            await own.post("/tasks/bulk", {"tasks": [{"agent_type": TYPE, "type": "work"}]})
            assigned = await mine.assigned()
            assert await mine.finish(assigned.attempt.task_id, assigned.attempt.number), number
        by_agent = await own.task(mine.welcome.agent_id)
        assert (await mine.assigned()).attempt.task_id == by_agent
        marker = await other.task(agent_type=TYPE)
        assert (await theirs.assigned()).attempt.task_id == marker
        # Nor can it report on what it was not given, though its process has the same name.
        assert not await theirs.finish(by_agent, 1)
        assert (await own.call("GET", f"/tasks/{by_agent}"))["data"]["status"] == "running"


async def test_no_number_of_one_project_changes_with_what_happens_in_another(both: World) -> None:
    own, other = both.own, both.other
    # Asked for once, totals are kept current by what is heard of commits.
    before = await figures(other)
    async with runner(both, own) as mine:
        tasks = [await own.task(agent_type=TYPE, labels={"team": "a"}, priority="high") for _ in range(4)]
        assert [(await mine.assigned()).attempt.task_id for _ in tasks] == tasks
        for task_id in tasks[:3]:
            assert await mine.finish(task_id, 1)
        await own.task(agent_type="nobody", labels={"team": "a"})
        mine_now = await figures(own)
        assert (mine_now["completed_tasks_today"], mine_now["queue"], mine_now["?label=team=a"]) == (3, 1, 5)
        assert await figures(other) == before


async def test_a_place_in_line_and_its_reason_are_of_ones_own_project(both: World) -> None:
    own, other = both.own, both.other
    for _ in range(3):
        await own.task(agent_type=TYPE, priority="critical")
    async with runner(both, own, types=("something_else",)):
        waiting = await other.task(agent_type=TYPE)
        assert (await other.call("GET", f"/tasks/{waiting}/explain"))["data"]["reason"]["code"] == "no_agent"
        await other.agent(type=TYPE)
        explained = (await other.call("GET", f"/tasks/{waiting}/explain"))["data"]
        assert (explained["reason"]["code"], explained["position"]) == ("no_instance", 1)


async def ended(project: Project, task_id: str) -> str:
    return (await project.call("GET", f"/tasks/{task_id}?wait=20"))["data"]["error"]["code"]


async def test_watchers_hear_of_their_own_project_alone(both: World) -> None:
    own, other = both.own, both.other
    async with AsyncExitStack() as stack:
        grpc_events = await stack.enter_async_context(watch_events(both, other))
        sse_events = await stack.enter_async_context(sse(other))
        socket = await stack.enter_async_context(websockets.connect(both.ws_url, proxy=None))
        for message in (
            {"type": "auth", "token": other.admin},
            *({"type": "subscribe", "channel": f"{channel}_events"} for channel in ("agent", "task", "system")),
        ):
            await socket.send(json.dumps(message))
            assert json.loads(await socket.recv())["type"] in ("authenticated", "subscribed")
        async with runner(both, own) as mine:
            task_id = await own.task(agent_type=TYPE)
            await mine.assigned()
            await mine.finish(task_id, 1)
        marker = await other.agent()
        async with asyncio.timeout(DEADLINE):
            assert (await anext(grpc_events)) == marker
            assert (await anext(sse_events)) == marker
            assert json.loads(await socket.recv())["payload"]["agent_id"] == marker


@asynccontextmanager
async def watch_events(world: World, project: Project) -> AsyncGenerator[AsyncIterator[str]]:
    """Agents of the events; it asks for another project's, which is for gateways to do."""
    metadata = (*bearer(project.admin), ("agent-orchestration-project", world.own.id))
    call = world.api.monitoring.WatchEvents(monitoring_pb2.WatchEventsRequest(), metadata=metadata)
    assert not (await call.read()).events

    async def events() -> AsyncIterator[str]:
        while True:
            for event in (await call.read()).events:
                yield event.agent_id

    try:
        yield events()
    finally:
        call.cancel()


@asynccontextmanager
async def sse(project: Project) -> AsyncGenerator[AsyncIterator[str]]:
    headers = {"Authorization": f"Bearer {project.admin}"}
    async with project.client.stream("GET", "/events", headers=headers) as answer:
        lines = answer.aiter_lines()
        await anext(lines)

        async def events() -> AsyncIterator[str]:
            async for line in lines:
                if line.startswith("data:") and "payload" in line:
                    yield json.loads(line.removeprefix("data:"))["payload"]["agent_id"]

        yield events()


async def test_an_idempotency_key_is_of_one_project(both: World) -> None:
    agents: list[str] = []
    for project in (both.own, both.other):
        for path in ("/agents", "/keys"):
            body = {"name": "n", "type": "t"} if path == "/agents" else {"name": "n", "scopes": ["tasks:read"]}
            headers = {"Authorization": f"Bearer {project.admin}", "Idempotency-Key": f"same{path}"}
            made = await project.client.post(path, json=body, headers=headers)
            again = await project.client.post(path, json=body, headers=headers)
            assert (made.status_code, again.status_code) == (201, 201)
            assert made.json()["data"]["id"] == again.json()["data"]["id"]
            assert "Idempotent-Replayed" in again.headers and "key" not in again.json()["data"]
            agents.append(made.json()["data"]["id"])
    assert len(set(agents)) == 4


async def test_a_bulk_create_with_one_id_of_another_project_makes_nothing(both: World) -> None:
    own = [{"agent_id": await both.own.agent(), "type": "work"} for _ in range(3)]
    tasks = [*own, {"agent_id": await both.other.agent(), "type": "work"}]
    answer = await both.client.post("/tasks/bulk", json={"tasks": tasks}, headers=as_admin(both.own))
    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["error"]["details"]] == ["tasks[3].agent_id"]
    assert (await both.own.call("GET", "/tasks"))["data"] == []


async def test_deleting_an_agent_takes_nothing_from_its_twin(both: World) -> None:
    async with runner(both, both.own) as mine, runner(both, both.other) as theirs:
        running = await both.other.task(agent_type=TYPE)
        await theirs.assigned()
        waiting = await both.other.task(agent_type=TYPE, schedule={"type": "delayed", "delay": 3600})
        cancelled = await both.own.task(mine.welcome.agent_id, schedule={"type": "delayed", "delay": 3600})
        await both.own.call("DELETE", f"/agents/{mine.welcome.agent_id}")
        code, _ = await mine.ended()
        assert code.name == "NOT_FOUND"
        assert await ended(both.own, cancelled) == "agent_deleted"
        assert await theirs.finish(running, 1)
        assert (await both.other.call("GET", f"/tasks/{waiting}"))["data"]["status"] == "pending"
        assert (await both.other.call("GET", f"/agents/{theirs.welcome.agent_id}"))["data"]["status"] == "active"


async def test_projects_made_while_running_are_whole_and_come_back_after_a_restart(
    tmp_path: Path, database_url: str
) -> None:
    async with world(tmp_path, database_url) as made:
        projects = [made.own, made.other, await made.project("late")]
        running: list[tuple[str, str]] = []
        async with AsyncExitStack() as stack:
            for project in projects:
                connected = await stack.enter_async_context(runner(made, project))
                await project.task(agent_type=TYPE)
                running.append((connected.welcome.agent_id, (await connected.assigned()).attempt.task_id))
        cursors = [await cursor(project) for project in projects]
        assert len(set(cursors)) == 3
    async with world(tmp_path, database_url) as again:
        for project, (agent_id, task_id), left_off in zip(projects, running, cursors, strict=True):
            project.client = again.client
            came_back = RawRunner(again.api.runners.Connect(metadata=bearer(project.admin)))
            await came_back.hello(agent_id=agent_id, instance_id="instance_1", held=[(task_id, 1)])
            assert await came_back.finish(task_id, 1)
            assert (await project.call("GET", f"/tasks/{task_id}"))["data"]["status"] == "completed"
            assert (await project.call("GET", "/tasks"))["pagination"]["total"] == 1
            async with again.client.stream("GET", f"/events?after={left_off}", headers=as_admin(project)) as answer:
                heard = [line async for line in _until(answer, "task_completed")]
            assert task_id in "".join(heard)
            came_back.call.cancel()


async def _until(answer: httpx2.Response, word: str) -> AsyncIterator[str]:
    """The lines of a stream up to the one after the first with this word."""
    lines = answer.aiter_lines()
    async for line in lines:
        yield line
        if word in line:
            yield await anext(lines)
            yield await anext(lines)
            return


async def cursor(project: Project) -> str:
    async with project.client.stream("GET", "/events", headers=as_admin(project)) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("id:"):
                return line.removeprefix("id:").strip()
    raise AssertionError("no cursor came")


def as_admin(project: Project) -> dict[str, str]:
    return {"Authorization": f"Bearer {project.admin}"}


STEPS = [{"id": "one", "agent_type": TYPE, "type": "work"}]


async def test_no_total_of_workflows_or_executions_changes_with_those_of_another_project(both: World) -> None:
    own, other = both.own, both.other
    queries = ("/workflows", "/workflows?status=active", "/executions", "/executions?status=running", "/tasks")

    async def totals(project: Project) -> list[int]:
        return [(await project.call("GET", query))["pagination"]["total"] for query in queries]

    before = await totals(other)
    workflow = await own.post("/workflows", {"name": "twin", "steps": STEPS})
    executions = [await own.post(f"/workflows/{workflow['id']}/execute") for _ in range(3)]
    assert await totals(own) == [1, 1, 3, 3, 3]
    assert await totals(other) == before
    async with runner(both, other):
        # Its agent takes nothing of them, though its type is the same.
        assert await waiting(own, executions[0]["id"]) == ["no_agent"]
        assert await totals(other) == before


async def waiting(project: Project, execution_id: str) -> list[str]:
    """Why the steps of an execution do not run."""
    explained = await project.call("GET", f"/executions/{execution_id}/explain")
    return [step["reason"]["code"] for step in explained["data"]["steps"]]


async def test_a_workflow_of_another_project_is_no_step_of_ones_own_made_or_changed(both: World) -> None:
    own, other = both.own, both.other
    foreign = (await other.post("/workflows", {"name": "inner", "steps": STEPS}))["id"]
    mine = (await own.post("/workflows", {"name": "outer", "steps": STEPS}))["id"]
    for foreign_or_none in (foreign, "workflow_00000000000000000000000000"):
        steps = [{"id": "sub", "kind": "workflow", "workflow_id": foreign_or_none}]
        for method, path, body in (
            ("POST", "/workflows", {"name": "n", "steps": steps}),
            ("PUT", f"/workflows/{mine}", {"steps": steps}),
        ):
            answer = await both.client.request(method, path, json=body, headers=as_admin(own))
            assert answer.status_code == 400, (method, path, answer.text)
            problems = answer.json()["error"]["details"]
            assert [each["field"] for each in problems] == ["steps[0].workflow_id"]
            assert problems[0]["message"].replace(foreign_or_none, "ID") == "step 'sub': there is no such workflow"
    assert (await own.call("GET", f"/workflows/{mine}"))["data"]["version"] == 1


async def test_events_of_workflows_are_heard_in_their_own_project_alone(both: World) -> None:
    own, other = both.own, both.other
    made = [(await each.post("/workflows", {"name": "twin", "steps": STEPS}))["id"] for each in (own, other)]
    async with websockets.connect(both.ws_url, proxy=None) as socket:
        for message in (
            {"type": "auth", "token": other.admin},
            {"type": "subscribe", "channel": "workflow_events"},
            {"type": "subscribe", "channel": "workflow_events", "workflow_id": made[0]},
        ):
            await socket.send(json.dumps(message))
            assert json.loads(await socket.recv())["type"] in ("authenticated", "subscribed")
        await own.post(f"/workflows/{made[0]}/execute")
        marker = await other.post(f"/workflows/{made[1]}/execute")
        async with asyncio.timeout(DEADLINE):
            heard = json.loads(await socket.recv())
        assert (heard["type"], heard["payload"]["execution"]["id"]) == ("workflow_started", marker["id"])


async def test_an_idempotency_key_of_an_execution_is_of_one_project(both: World) -> None:
    begun: list[str] = []
    for project in (both.own, both.other):
        workflow = await project.post("/workflows", {"name": "twin", "steps": STEPS})
        headers = as_admin(project) | {"Idempotency-Key": "same"}
        path = f"/workflows/{workflow['id']}/execute"
        answers = [await both.client.post(path, json={}, headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 201]
        assert len({answer.json()["data"]["id"] for answer in answers}) == 1
        begun.append(answers[0].json()["data"]["id"])
    assert len(set(begun)) == 2
