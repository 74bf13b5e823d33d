"""What must hold of executions after any faults: each has ended, each step has one outcome, all numbers agree."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.e2e.processes import wait_until
from tests.faults.flows import Json, Patient
from tests.faults.load import END_SECONDS, FINAL, Journal, Watcher

# The events of a step: once it has ended it may begin again, if it was not completed, with a retry of its execution.
STORY: Final = re.compile(r"((started )?(failed|cancelled) )*((started )?(completed|failed|cancelled)|skipped) ")
UNENDED: Final = ("pending", "running")


def assert_whole(patient: Patient, begun: Sequence[str]) -> dict[str, Json]:
    """Every execution that was accepted is there and has ended, and no other; all of them by id, whole."""
    listed = patient.listed("/executions")
    for status in ("running", *FINAL):
        found = patient.listed("/executions", status=status)
        assert found.keys() == {each["id"] for each in listed.values() if each["status"] == status}
    assert not patient.listed("/executions", status="running")
    top = {each["id"] for each in listed.values() if "parent_execution_id" not in each}
    assert len(begun) == len(set(begun)) and top == set(begun), "a create was lost, or counted twice"
    assert all(each.get("parent_execution_id", begun[0]) in listed for each in listed.values())
    executions = {identifier: patient.get(f"/executions/{identifier}")["data"] for identifier in listed}
    for execution in executions.values():
        assert "waiting_for" not in execution, execution
        for step in execution["steps"]:
            assert step["status"] not in UNENDED and step.get("compensation") != "running", execution
            items = step.get("items", {"running": 0})
            assert items["running"] == 0, execution
            if step["status"] == "completed" and "total" in items:
                assert items["completed"] == items["total"] or has_gaps(step), execution
    return executions


def has_gaps(step: Json) -> bool:
    """Whether items of it have failed and did not matter."""
    return None in step["output"]


def assert_counted_once(
    patient: Patient, executions: Mapping[str, Json], journal: Journal, kills: Sequence[float] = ()
) -> None:
    """What ran is what is kept: each step that was completed has one completed task for each item, run once, or again
    where its runner was killed (`kills`: when that was, in monotonic seconds).
    """
    tasks = patient.listed("/tasks")
    for status in (*UNENDED, *FINAL):
        of_status = patient.listed("/tasks", status=status)
        assert of_status.keys() == {each["id"] for each in tasks.values() if each["status"] == status}
    assert {task["status"] for task in tasks.values()} <= set(FINAL)
    assert journal.runs.keys() <= tasks.keys()
    for task in tasks.values():
        runs = sorted(journal.runs.get(task["id"], {}))
        # An attempt that was claimed when the server died may never have reached the runner.
        # Of a task that somebody cancelled neither the one may have that was to follow a lost one.
        is_last = runs[-1:] == [task["attempt"]] or (kills and task["status"] != "completed")
        assert len(runs) <= task["attempt"] and (is_last or not runs), (task, runs)
        if task["status"] == "completed":
            again = len(runs) - 1 - task["failures"]
            assert 0 <= again <= len(kills), f"work was restarted: {task}, {runs}"
    journal.assert_never_two_at_once(kills)
    completed: dict[tuple[str, str, str], Counter[int | None]] = defaultdict(Counter)
    for task in tasks.values():
        if task["status"] == "completed":
            completed[task["execution_id"], task["step_id"], task["type"]][task.get("item")] += 1
    assert all(set(each.values()) == {1} for each in completed.values()), "an item was completed twice"
    for execution in executions.values():
        for step in execution["steps"]:
            if step.get("agent_type") is not None:
                _assert_step(execution, step, completed)


def _assert_step(execution: Json, step: Json, completed: Mapping[tuple[str, str, str], Counter[int | None]]) -> None:
    items = completed.get((execution["id"], step["id"], "step"), Counter())
    if "items" not in step:
        assert items.total() == (step["status"] == "completed"), (execution, items)
    else:
        assert items.total() == step["items"]["completed"], (execution, items)
    undone = completed.get((execution["id"], step["id"], "undo"), Counter()).total()
    assert undone == (step.get("compensation") == "completed"), (execution, undone)


def assert_events_tell_of_executions(watcher: Watcher, executions: Mapping[str, Json]) -> None:
    """The watcher heard of each beginning and each end once, steps after those they wait for."""

    def ended() -> bool:
        ends = {event["payload"]["execution"]["id"] for event in watcher.events if event["type"] in ENDS}
        return ends >= executions.keys()

    wait_until(ended, END_SECONDS, "not every end was heard of")
    assert not watcher.problems, watcher.problems
    cursors = [event["cursor"] for event in watcher.events]
    assert cursors == sorted(set(cursors)), "events out of order, or twice"
    told: dict[str, list[Json]] = defaultdict(list)
    for event in watcher.events:
        told[event["payload"]["execution"]["id"]].append(event)
    assert told.keys() == executions.keys()
    for identifier, execution in executions.items():
        _assert_told(execution, told[identifier])


ENDS: Final = tuple(f"workflow_{status}" for status in FINAL)


def _assert_told(execution: Json, events: Sequence[Json]) -> None:
    types = [event["type"] for event in events]
    rounds = 1 + execution["retries"]
    assert types[0] == "workflow_started" and types[-1] == f"workflow_{execution['status']}", (execution, types)
    assert types.count("workflow_started") == sum(map(types.count, ENDS)) == rounds, (execution, types)
    assert types.count("workflow_cancel_requested") == (execution["status"] == "cancelled"), (execution, types)
    stories: dict[str, str] = defaultdict(str)
    undoings: Counter[str] = Counter()
    for event in events:
        step: Any = event["payload"].get("step")
        if step is None:
            continue
        word = event["type"].removeprefix("workflow_step_")
        if word == "compensation":
            undoings[step["id"]] += 1
            continue
        if word == "started":
            waits_for = [stories[each] for each in waited_for(execution, step["id"])]
            assert all(story and not story.endswith("started ") for story in waits_for), (execution, types)
        stories[step["id"]] += f"{word} "
    for step in execution["steps"]:
        story = stories[step["id"]]
        assert STORY.fullmatch(story) and story.endswith(f"{step['status']} "), (execution, step["id"], story)
        assert sum(map(story.split().count, ("skipped", *FINAL))) <= rounds, (execution, story)
        assert ("started_at" in step) == ("started" in story), (execution, step["id"], story)
        # Its beginning and its end.
        assert undoings[step["id"]] == 2 * ("compensation" in step), (execution, undoings)


def waited_for(execution: Json, step_id: str) -> list[str]:
    """The steps in front of this one."""
    steps: Json = {step["id"]: step for step in execution["steps"]}
    if any(step["depends_on"] for step in steps.values()):
        return steps[step_id]["depends_on"]
    return [each for each, step in steps.items() if step["order"] < steps[step_id]["order"]]
