"""Why a task is not running, in words, from the same rules that dispatch follows."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ao_server.engine import placement
from ao_server.engine.placement import Hindrance, Taker
from ao_server.engine.states import FINAL
from ao_server.engine.unhandled import no_handler_message
from ao_server.store import rows

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Explanation:
    """A stable code, a text and what would change it. `waits_in_line`: its place in the queue matters."""

    code: str
    message: str
    remedies: list[str] = field(default_factory=list[str])
    waits_in_line: bool = False


def explain(task: rows.Task, takers: Sequence[Taker]) -> Explanation:
    """What holds the task. `takers`: the agents that may take it."""
    if task.status in FINAL:
        why = f": {task.error_message}" if task.error_message else ""
        return Explanation(task.status, f"the task is {task.status}{why}", [_again(task, takers)])
    if task.status == "running":
        if task.cancel_requested_at is not None:
            return Explanation("cancelling", f"attempt {task.attempt} was asked to stop and has not confirmed it yet")
        return Explanation("running", f"attempt {task.attempt} runs on agent {task.agent_id}")
    hindrance = placement.of_task(task, takers)
    if hindrance is None:
        message = "a process has room for it: it is given out after the tasks that go before it"
        return Explanation("queued", message, ["give it a higher priority when it is submitted"], waits_in_line=True)
    return _EXPLAIN[hindrance](task, _target(task), takers)


def _delayed(task: rows.Task, target: str, takers: object) -> Explanation:
    at = _shown(task.ready_at)
    return Explanation(
        "delayed", f"its schedule says not before {at}", [f"wait until {at}", "submit one without a delay"]
    )


def _backing_off(task: rows.Task, target: str, takers: object) -> Explanation:
    at = _shown(task.ready_at)
    message = f"attempt {task.attempt} failed; the next one begins not before {at}"
    return Explanation("backing_off", message, [f"wait until {at}", "look at its logs for the failure"])


def _no_agent(task: rows.Task, target: str, takers: object) -> Explanation:
    remedy = f"register an agent of type {task.agent_type!r}, or start a process of one"
    return Explanation("no_agent", f"there is no {target}", [remedy])


def _paused(task: rows.Task, target: str, takers: object) -> Explanation:
    return Explanation("agent_paused", f"{target} is paused", [_resume(task)], True)


def _draining(task: rows.Task, target: str, takers: object) -> Explanation:
    message = f"{target} is draining: it takes no new tasks"
    return Explanation("agent_draining", message, [_resume(task)], True)


def _no_instance(task: rows.Task, target: str, takers: object) -> Explanation:
    return Explanation("no_instance", f"no process of {target} is connected", ["start one: ao runner FILE"], True)


def _no_handler(task: rows.Task, target: str, takers: Sequence[Taker]) -> Explanation:
    known = sorted({name for taker in takers for room in taker.rooms for name in room.types or ()})
    message = no_handler_message(task.type, known, f"connected process of {target}")
    remedies = [f"start a process that runs {task.type!r}; without one the task fails with the code no_handler"]
    return Explanation("no_handler", message, remedies)


def _on_trial(task: rows.Task, target: str, takers: object) -> Explanation:
    message = f"processes of {target} died while they worked: it gets one task at a time until one completes"
    return Explanation("agent_on_trial", message, ["look at why its processes die", "wait for the running task"], True)


def _alone(task: rows.Task, target: str, takers: object) -> Explanation:
    message = f"{task.deliveries} processes were lost while they ran it: it waits for one that holds nothing else"
    return Explanation("runs_alone", message, ["wait for a process to become empty", "start another one"], True)


def _at_capacity(task: rows.Task, target: str, takers: object) -> Explanation:
    remedies = ["wait for a running task to end", "raise max_concurrent_tasks", "start another process"]
    return Explanation("at_capacity", f"every process of {target} holds as many tasks as it takes", remedies, True)


_EXPLAIN = {
    Hindrance.DELAYED: _delayed,
    Hindrance.BACKING_OFF: _backing_off,
    Hindrance.NO_AGENT: _no_agent,
    Hindrance.AGENT_PAUSED: _paused,
    Hindrance.AGENT_DRAINING: _draining,
    Hindrance.NO_INSTANCE: _no_instance,
    Hindrance.NO_HANDLER: _no_handler,
    Hindrance.AGENT_ON_TRIAL: _on_trial,
    Hindrance.RUNS_ALONE: _alone,
    Hindrance.AT_CAPACITY: _at_capacity,
}


def _again(task: rows.Task, takers: Sequence[Taker]) -> str:
    if task.queue == task.agent_id and not takers:
        return "its agent was deleted: submit a new task for another one"
    return f"retry it: POST /v1/tasks/{task.id}/retry"


def _resume(task: rows.Task) -> str:
    return f"resume it: POST /v1/agents/{task.agent_id or 'AGENT_ID'}/resume"


def _target(task: rows.Task) -> str:
    return f"agent {task.agent_id}" if task.agent_id else f"agent of type {task.agent_type!r}"


def _shown(time: int | None) -> str:
    # In integers: as a float the last microsecond of the year 9999 is in the year 10000, which datetime does not know.
    shown = _EPOCH + timedelta(microseconds=time or 0)
    return shown.isoformat(timespec="milliseconds").replace("+00:00", "Z")
