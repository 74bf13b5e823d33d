"""Tasks beyond the thin path, over REST and gRPC alike."""

import asyncio
import secrets
from typing import Any

import pytest

from agent_orchestration.v1 import runners_pb2
from tests.api.conftest import RawRunner
from tests.contract.conftest import Api

ERROR: Any = {"failure": runners_pb2.Failure(code="task_error", message="boo")}


async def test_a_pending_task_is_cancelled_at_once_for_good_and_again_is_the_same(api: Api) -> None:
    agent_id = await api.agent()
    task_id = await api.task(agent_id)
    answer = await api.post(f"/tasks/{task_id}/cancel")
    assert (answer.status, answer.data["status"], answer.data["error"]["code"]) == (200, "cancelled", "cancelled")
    assert (await api.post(f"/tasks/{task_id}/cancel", {})).data == answer.data
    async with api.runner(agent_id) as runner:
        other = await api.task(agent_id)
        assert (await runner.assigned()).attempt.task_id == other
        assert await runner.finish(other, 1)
    refused = await api.post(f"/tasks/{other}/cancel")
    assert (refused.status, refused.code) == (409, "conflict")
    assert (await api.post("/tasks/task_none/cancel")).status == 404


async def test_a_running_task_is_asked_to_stop_and_is_cancelled_when_its_process_confirms(api: Api) -> None:
    agent_id = await api.agent()
    async with api.runner(agent_id) as runner:
        task_id = await api.task(agent_id)
        await runner.assigned()
        answer = await api.post(f"/tasks/{task_id}/cancel")
        assert (answer.status, answer.data["status"]) == (200, "running")
        assert "cancel_requested_at" in answer.data
        cancel = (await runner.receive("cancel")).cancel
        assert (cancel.attempt.task_id, cancel.reason) == (task_id, runners_pb2.CANCEL_REASON_REQUESTED)
        assert await runner.finish(task_id, 1, cancelled=runners_pb2.Cancelled())
    assert (await api.shown(task_id))["status"] == "cancelled"


async def test_an_outcome_made_before_the_cancel_arrived_counts_and_a_failure_is_not_retried_then(api: Api) -> None:
    agent_id = await api.agent(configuration={"retry_attempts": 5})
    async with api.runner(agent_id) as runner:
        for outcome, expected in ((({"result": "{}"}), "completed"), (ERROR, "failed")):
            task_id = await api.task(agent_id)
            await runner.assigned()
            await api.post(f"/tasks/{task_id}/cancel")
            await runner.receive("cancel")
            assert await runner.finish(task_id, 1, **outcome)
            assert (await api.shown(task_id))["status"] == expected


async def test_a_failed_attempt_is_tried_again_as_often_as_the_task_says_with_backoff_between(api: Api) -> None:
    agent_id = await api.agent(configuration={"retry_attempts": 0})
    retry = {"attempts": 2, "backoff": 0.3, "max_backoff": 0.3, "jitter": False}
    async with api.runner(agent_id) as runner:
        task_id = await api.task(agent_id, retry=retry)
        for number in (1, 2, 3):
            assert (await runner.assigned()).attempt.number == number
            assert await runner.finish(task_id, number, **ERROR)
            if number < 3:
                shown = await api.shown(task_id)
                assert (shown["status"], shown["failures"]) == ("pending", number)
                assert "ready_at" in shown
                assert shown["logs"][-1]["message"].startswith(f"attempt {number} failed (task_error)")
                why = (await api.get(f"/tasks/{task_id}/explain")).data
                assert why["reason"]["code"] in ("backing_off", "running")
    shown = await api.shown(task_id)
    assert (shown["status"], shown["failures"], shown["error"]) == (
        "failed",
        3,
        {"code": "task_error", "message": "boo"},
    )
    assert shown["retry"] == retry


async def test_what_must_not_be_tried_again_is_not(api: Api) -> None:
    agent_id = await api.agent(configuration={"retry_attempts": 5})
    never = runners_pb2.Failure(code="bad_input", message="no use", not_retryable=True)
    async with api.runner(agent_id) as runner:
        for outcome, code in (({"failure": never}, "bad_input"), ({"result": "[1]"}, "invalid_result")):
            task_id = await api.task(agent_id)
            await runner.assigned()
            assert await runner.finish(task_id, 1, **outcome)
            shown = await api.shown(task_id)
            assert (shown["status"], shown["error"]["code"], shown["attempt"]) == ("failed", code, 1)


async def test_a_delayed_task_waits_for_its_time_and_no_longer(api: Api) -> None:
    agent_id = await api.agent()
    async with api.runner(agent_id) as runner:
        last_moment = "9999-12-31T23:59:59.999999Z"
        far = await api.task(agent_id, schedule={"type": "delayed", "run_at": last_moment})
        assert last_moment[:-4] in (await api.get(f"/tasks/{far}/explain")).data["reason"]["message"]
        past = await api.task(agent_id, schedule={"type": "delayed", "run_at": "2020-01-01T00:00:00Z"})
        assert (await runner.assigned()).attempt.task_id == past
        soon = await api.task(agent_id, schedule={"type": "delayed", "delay": 0.5})
        shown = await api.shown(soon)
        assert (shown["status"], shown["schedule"]["type"]) == ("pending", "delayed")
        assert shown["ready_at"] == shown["schedule"]["run_at"] > shown["created_at"]
        assert (await api.get(f"/tasks/{soon}/explain")).data["reason"]["code"] == "delayed"
        assert (await runner.assigned()).attempt.task_id == soon
        started = await api.shown(soon)
        assert started["started_at"] >= started["schedule"]["run_at"]
    assert (await api.post(f"/tasks/{far}/cancel")).data["status"] == "cancelled"


@pytest.mark.parametrize(
    ("schedule", "field"),
    [
        ({"type": "delayed"}, "schedule.run_at"),
        ({"type": "delayed", "delay": 1, "run_at": "2126-01-01T00:00:00Z"}, "schedule.run_at"),
        ({"type": "immediate", "delay": 1}, "schedule.delay"),
        ({"type": "delayed", "delay": -1}, "schedule.delay"),
        ({"type": "cron"}, "schedule.type"),
    ],
)
async def test_an_odd_schedule_is_refused_with_its_field(api: Api, schedule: Any, field: str) -> None:
    agent_id = await api.agent()
    answer = await api.post("/tasks", {"agent_id": agent_id, "type": "work", "schedule": schedule})
    assert (answer.status, answer.fields) == (400, [field])
    assert (await api.get("/tasks", agent_id=agent_id)).json["pagination"]["total"] == 0


async def test_any_agent_of_a_type_takes_a_task_of_the_type_and_it_comes_back_to_all(api: Api) -> None:
    type_ = f"type_{secrets.token_hex(6)}"
    answer = await api.post("/tasks", {"agent_type": type_, "type": "work"})
    assert answer.status == 201
    task_id = answer.data["id"]
    assert "agent_id" not in answer.data
    assert (await api.get(f"/tasks/{task_id}/explain")).data["reason"]["code"] == "no_agent"
    first, second = await api.agent(type=type_), await api.agent(type=type_)
    assert (await api.get(f"/tasks/{task_id}/explain")).data["reason"]["code"] == "no_instance"
    async with api.runner(first) as runner:
        await runner.assigned()
        assert (await api.shown(task_id))["agent_id"] == first
        await api.post(f"/agents/{first}/pause")
        assert await runner.finish(task_id, 1, handed_back=runners_pb2.HandedBack())
        assert "agent_id" not in await api.shown(task_id)
        assert (await api.get(f"/tasks/{task_id}/explain")).data["reason"]["code"] == "no_instance"
        async with api.runner(second) as other:
            assert (await other.assigned()).attempt.number == 2
            assert await other.finish(task_id, 2)
    shown = await api.shown(task_id)
    assert (shown["status"], shown["agent_id"], shown["agent_type"]) == ("completed", second, type_)
    assert (await api.get("/tasks", agent_type=type_)).json["pagination"]["total"] == 1


async def test_tasks_of_a_type_spread_over_its_agents_and_nothing_stays_behind(api: Api) -> None:
    type_ = f"type_{secrets.token_hex(6)}"
    agents = [await api.agent(type=type_, configuration={"max_concurrent_tasks": 3}) for _ in range(2)]
    finished: set[str] = set()

    async def work(runner: RawRunner) -> None:
        while len(finished) < 10:
            message = await runner.read()
            for each in message.assign.assignments:
                outcome = runners_pb2.Outcome(attempt=each.attempt, result="{}")
                await runner.send(outcomes=runners_pb2.Outcomes(outcomes=[outcome]))
            finished.update(each.attempt.task_id for each in message.settled.settlements)

    async with api.runner(agents[0]) as one, api.runner(agents[1]) as two:
        workers = [asyncio.create_task(work(runner)) for runner in (one, two)]
        body = {"tasks": [{"agent_type": type_, "type": "work"} for _ in range(10)]}
        ids = {task["id"] for task in (await api.post("/tasks/bulk", body)).data}
        done, _ = await asyncio.wait(workers, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        for worker in done:
            worker.result()
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    assert finished == ids
    totals = [(await api.get(f"/agents/{agent}")).data["metrics"]["tasks_completed"] for agent in agents]
    assert sum(totals) == 10 and all(totals)


async def test_a_label_finds_its_tasks_by_key_and_by_value(api: Api) -> None:
    agent_id = await api.agent()
    own = secrets.token_hex(6)
    one = await api.task(agent_id, labels={own: "one", "odd key é": ""})
    two = await api.task(agent_id, labels={own: "two", "team": "a"})
    assert (await api.shown(one))["labels"] == {own: "one", "odd key é": ""}

    async def found(*labels: str) -> list[str]:
        return [task["id"] for task in (await api.get("/tasks", label=list(labels))).data]

    assert await found(own) == [two, one]
    assert await found(f"{own}=one") == [one]
    assert await found(own, "team=a") == [two]
    assert await found(f"{own}=three") == []
    assert (await api.get("/tasks", label="=x")).fields == ["label"]
    many = await api.post("/tasks", {"agent_id": agent_id, "type": "t", "labels": {str(n): "" for n in range(65)}})
    assert (many.status, many.fields) == (400, ["labels"])
    long = await api.post("/tasks", {"agent_id": agent_id, "type": "t", "labels": {"k": "x" * 257, "\0": "", "": "x"}})
    assert sorted(long.fields) == ["labels", "labels.\0", "labels.k"]
    split = await api.post("/tasks", {"agent_id": agent_id, "type": "t", "labels": {"a=b": "c"}})
    assert (split.status, split.fields) == (400, ["labels.a=b"])


async def test_a_page_that_starts_after_a_task_does_not_shift(api: Api) -> None:
    agent_id = await api.agent()
    ids = [await api.task(agent_id, type=kind) for kind in ("a", "b", "a", "b", "a")]
    page = (await api.get("/tasks", agent_id=agent_id, limit=2)).json
    assert [task["id"] for task in page["data"]] == [ids[4], ids[3]]
    await api.task(agent_id)
    page = (await api.get("/tasks", agent_id=agent_id, limit=2, starting_after=ids[3])).json
    assert [task["id"] for task in page["data"]] == [ids[2], ids[1]]
    assert page["pagination"] == {"page": 1, "limit": 2, "total": 6, "pages": 3}
    assert (await api.get("/tasks", agent_id=agent_id, type="a")).json["pagination"]["total"] == 3
    both = await api.get("/tasks", starting_after=ids[0], page=1)
    assert (both.status, both.fields) == (400, ["starting_after"])
    assert (await api.get("/tasks", starting_after="task_none")).fields == ["starting_after"]


async def test_a_bulk_create_is_all_or_nothing_and_names_the_bad_task(api: Api) -> None:
    agent_id = await api.agent()
    good = {"agent_id": agent_id, "type": "work"}
    made = await api.post("/tasks/bulk", {"tasks": [{**good, "payload": {"n": n}} for n in range(1_000)]})
    assert made.status == 201
    assert [task["status"] for task in made.data] == ["pending"] * 1_000
    for tasks, field in (
        ([good, {**good, "type": ""}], "tasks[1].type"),
        ([good, {**good, "agent_id": "agent_none"}], "tasks[1].agent_id"),
        ([good, {"type": "work"}], "tasks[1].agent_id"),
        ([{**good, "idempotency_key": "k"}], "tasks[0].idempotency_key"),
        ([], "tasks"),
        ([good] * 1_001, "tasks"),
    ):
        refused = await api.post("/tasks/bulk", {"tasks": tasks})
        assert (refused.status, refused.fields) == (400, [field])
    assert (await api.get("/tasks", agent_id=agent_id)).json["pagination"]["total"] == 1_000


async def test_a_create_repeated_with_its_key_gives_the_first_answer_and_one_task(api: Api) -> None:
    agent_id = await api.agent()
    key, body = secrets.token_hex(8), {"agent_id": agent_id, "type": "work", "payload": {"n": 1}}
    refused = await api.post("/tasks", {**body, "type": ""}, key=key)
    assert refused.status == 400, "and the key is not used up"
    answers = await asyncio.gather(*(api.post("/tasks", body, key=key) for _ in range(20)))
    assert {answer.status for answer in answers} == {201}
    assert {answer.data["id"] for answer in answers} == {answers[0].data["id"]}
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    await api.post(f"/tasks/{answers[0].data['id']}/cancel")
    again = await api.post("/tasks", body, key=key)
    assert again.data == answers[0].data, "as it was answered first"
    for path, other in (("/tasks", {**body, "type": "other"}), ("/agents", {"name": "n", "type": "t"})):
        conflict = await api.post(path, other, key=key)
        assert (conflict.status, conflict.code) == (409, "idempotency_conflict")
    in_body = await api.post("/tasks", {**body, "idempotency_key": key})
    assert in_body.data == answers[0].data
    differing = await api.post("/tasks", {**body, "idempotency_key": "other"}, key=key)
    assert (differing.status, differing.fields) == (400, ["idempotency_key"])
    assert (await api.post("/tasks", body, key="x" * 256)).fields == ["idempotency_key"]
    assert (await api.get("/tasks", agent_id=agent_id)).json["pagination"]["total"] == 1


async def test_bulk_retry_and_agents_are_created_once_under_a_key(api: Api) -> None:
    key, own = secrets.token_hex(8), secrets.token_hex(8)
    agents = [await api.post("/agents", {"name": own, "type": own}, key=key) for _ in range(2)]
    assert agents[0].json == agents[1].json
    agent_id = agents[0].data["id"]
    bulk = {"tasks": [{"agent_id": agent_id, "type": "work"}] * 3}
    made = [await api.post("/tasks/bulk", bulk, key=f"{key}-bulk") for _ in range(2)]
    assert made[0].json == made[1].json
    task_id = made[0].data[0]["id"]
    await api.post(f"/tasks/{task_id}/cancel")
    retried = [await api.post(f"/tasks/{task_id}/retry", key=f"{key}-retry") for _ in range(2)]
    assert retried[0].json == retried[1].json
    assert retried[1].headers["idempotent-replayed"] == "true"
    assert (await api.get("/tasks", agent_id=agent_id)).json["pagination"]["total"] == 4


async def test_a_retry_makes_a_new_task_like_the_final_one(api: Api) -> None:
    agent_id = await api.agent()
    task_id = await api.task(agent_id, priority="high", payload={"n": 7}, labels={"a": "b"}, timeout=30)
    early = await api.post(f"/tasks/{task_id}/retry")
    assert (early.status, early.code) == (409, "conflict")
    await api.post(f"/tasks/{task_id}/cancel")
    answer = await api.post(f"/tasks/{task_id}/retry")
    assert answer.status == 201
    new = answer.data
    assert (new["retry_of"], new["status"], new["attempt"]) == (task_id, "pending", 0)
    same = ("agent_id", "type", "priority", "payload", "labels", "timeout")
    old = await api.shown(task_id)
    assert [new[name] for name in same] == [old[name] for name in same]
    await api.delete(f"/agents/{agent_id}")
    assert (await api.post(f"/tasks/{task_id}/retry")).status == 409
    assert (await api.post("/tasks/task_none/retry")).status == 404


async def test_a_wait_ends_with_the_task_or_with_its_time(api: Api) -> None:
    agent_id = await api.agent()
    task_id = await api.task(agent_id)
    assert (await api.get(f"/tasks/{task_id}", wait=0.2)).data["status"] == "pending"
    async with api.runner(agent_id) as runner:
        await runner.assigned()
        waiting = asyncio.create_task(api.get(f"/tasks/{task_id}", wait=60))
        await asyncio.sleep(0)
        assert await runner.finish(task_id, 1)
        async with asyncio.timeout(20):
            assert (await waiting).data["status"] == "completed"
    assert (await api.get(f"/tasks/{task_id}", wait=60)).data["status"] == "completed"
    assert (await api.get(f"/tasks/{task_id}", wait=61)).fields == ["wait"]
    assert (await api.get("/tasks/task_none", wait=1)).status == 404


async def test_all_log_lines_are_paged_oldest_first_and_the_last_hundred_shown_with_the_task(api: Api) -> None:
    agent_id = await api.agent()
    async with api.runner(agent_id) as runner:
        task_id = await api.task(agent_id)
        attempt = (await runner.assigned()).attempt
        lines = [runners_pb2.LogReport(attempt=attempt, message=f"line {number}") for number in range(1, 131)]
        await runner.send(log=runners_pb2.Log(reports=lines))
        assert await runner.finish(task_id, 1)
    page = (await api.get(f"/tasks/{task_id}/logs", page=2, limit=100)).json
    assert [line["message"] for line in page["data"]] == [f"line {number}" for number in range(101, 131)]
    assert page["pagination"] == {"page": 2, "limit": 100, "total": 130, "pages": 2}
    inline = (await api.shown(task_id))["logs"]
    assert [inline[0]["message"], inline[-1]["message"], len(inline)] == ["line 31", "line 130", 100]
    assert (await api.get("/tasks/task_none/logs")).status == 404


async def test_every_sixteenth_claim_takes_the_oldest(api: Api) -> None:
    agent_id = await api.agent(configuration={"max_concurrent_tasks": 1})
    oldest = await api.task(agent_id, priority="low")
    urgent = {"agent_id": agent_id, "type": "work", "priority": "critical"}
    await api.post("/tasks/bulk", {"tasks": [urgent] * 20})
    order: list[str] = []
    async with api.runner(agent_id) as runner:
        for _ in range(21):
            order.append((await runner.assigned()).attempt.task_id)
            assert await runner.finish(order[-1], 1)
    assert order.index(oldest) == 15


async def test_a_type_that_no_process_runs_fails_after_a_lease_and_names_what_they_run(api: Api) -> None:
    agent_id = await api.agent()
    lonely = await api.task(agent_id, type="strange")
    async with api.runner(agent_id, types=("work", "play")) as runner:
        assert (await api.get(f"/tasks/{lonely}/explain")).data["reason"]["code"] == "no_handler"
        final = asyncio.create_task(api.get(f"/tasks/{lonely}", wait=20))
        while not final.done():
            await runner.status()
            await asyncio.wait([final], timeout=0.5)
    task = (await final).data
    assert (task["status"], task["error"]["code"]) == ("failed", "no_handler")
    assert "'strange'" in task["error"]["message"] and "play, work" in task["error"]["message"]
