"""Why a step of an execution is not running, or not any more, in words, from the same state that the planner folds."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ao_server.engine.explanations import Explanation
from ao_server.engine.workflows.definition import Graph, Step
from ao_server.store import rows

SHOWN_STEPS = 10
# Steps that have not ended.
OPEN = ("pending", "running")


@dataclass(frozen=True, slots=True)
class Reason:
    """A stable code, a text, and what would change it. `waits_for`: ids of steps that have to end first."""

    code: str
    message: str
    waits_for: list[str] = field(default_factory=list[str])
    remedies: list[str] = field(default_factory=list[str])


def explain(
    graph: Graph,
    execution: rows.Execution,
    steps: Mapping[int, rows.ExecutionStep],
    place: int,
    waiting: Explanation | None,
) -> Reason:
    """What holds the step in this place, or has ended it.

    `steps`: all of the execution. `waiting`: what holds the first of its tasks that wait, if any does.
    """
    row, step = steps[place], graph.nodes[place].step
    assert step is not None
    match row.status:
        case "pending":
            return _pending(graph, execution, steps, place)
        case "running":
            return _running(execution, row, step, waiting)
        case "skipped":
            return Reason("condition_false", f"its condition does not hold: {step.condition}")
        case "failed":
            return Reason(row.error_code or "", row.error_message or "", remedies=_again(execution))
        case "cancelled":
            is_cancelled = execution.phase == "cancelling" or execution.status == "cancelled"
            how = "was cancelled" if is_cancelled else "failed"
            return Reason("cancelled", f"the execution {how} before it had ended", remedies=_again(execution))
        case _:
            return _completed(row, waiting)


def _completed(row: rows.ExecutionStep, waiting: Explanation | None) -> Reason:
    match row.compensation:
        case None:
            return Reason("completed", "it is completed")
        case "running" if waiting is not None:
            message = f"it is completed; the task that undoes it waits: {waiting.message}"
            return Reason(waiting.code, message, remedies=waiting.remedies)
        case "running":
            return Reason("undoing", "it is completed and being undone")
        case "completed":
            return Reason("undoing_completed", "it is completed and was undone")
        case "failed":
            return Reason(
                "undoing_failed", f"it is completed; undoing it failed: {row.error_code}: {row.error_message}"
            )
        case _:
            return Reason("undoing_cancelled", "it is completed; undoing it was cancelled")


def _pending(graph: Graph, execution: rows.Execution, steps: Mapping[int, rows.ExecutionStep], place: int) -> Reason:
    if execution.phase != "forward":
        return Reason("ending", "the execution ends: nothing more begins", remedies=["wait for what still runs"])
    waits_for = [
        before.id
        for each in graph.waits_for(place)
        if steps[each].status in OPEN and (before := graph.nodes[each].step) is not None
    ]
    if not waits_for:
        return Reason("postponed", "too much else begins at the moment", remedies=["wait: it is about to begin"])
    more = f" and {len(waits_for) - SHOWN_STEPS} more" if len(waits_for) > SHOWN_STEPS else ""
    message = f"it waits for {', '.join(map(repr, waits_for[:SHOWN_STEPS]))}{more} to end"
    return Reason("waiting_for_steps", message, waits_for, ["look at why these are not done"])


def _running(execution: rows.Execution, row: rows.ExecutionStep, step: Step, waiting: Explanation | None) -> Reason:
    if execution.phase == "cancelling":
        return Reason("cancelling", "it was asked to stop and has not confirmed it yet")
    if step.kind == "approval":
        url = f"POST /v1/executions/{execution.id}/steps/{step.id}"
        return Reason(
            "waiting_for_approval",
            "it waits until somebody approves or rejects",
            remedies=[f"approve it: {url}/approve", f"reject it: {url}/reject"],
        )
    if waiting is not None:
        return Reason(waiting.code, f"a task of it waits: {waiting.message}", remedies=waiting.remedies)
    if step.kind == "workflow":
        remedy = f"look into it: GET /v1/executions/{row.last_id}/explain"
        return Reason("waiting_for_execution", f"the execution {row.last_id} has not ended", remedies=[remedy])
    if row.items is not None:
        done = row.kept + row.completed
        return Reason("running", f"{row.running} of its {row.items} items run, {done} are completed")
    return Reason("running", f"its task {row.last_id} runs")


def _again(execution: rows.Execution) -> list[str]:
    if execution.phase != "ended":
        return ["wait for what still runs"]
    if execution.status == "completed":
        return []
    if execution.parent_id is not None:
        return [f"retry the execution that it is a step of: POST /v1/executions/{execution.parent_id}/retry"]
    if execution.compensates:
        return ["steps were undone: execute the workflow anew"]
    return [f"retry it: POST /v1/executions/{execution.id}/retry"]
