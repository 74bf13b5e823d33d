"""What instances report of their attempts. Every report is fenced: it counts only from the current attempt's holder.

A report that does not count changes nothing and leaves no trace; for an outcome the instance is told so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from ao_server.engine import failures, logs, presence, transitions
from ao_server.engine.sessions import Attempt, InstanceKey
from ao_server.engine.transitions import Failure
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """`percent` from 0 to 100."""

    attempt: Attempt
    percent: float
    message: str | None


@dataclass(frozen=True, slots=True)
class LogReport:
    """One line of an attempt."""

    attempt: Attempt
    line: logs.Line


class Completed(msgspec.Struct, frozen=True):
    """The text of a JSON object."""

    result: str


@dataclass(frozen=True, slots=True)
class CancelledByAgent:
    """The function ended because it was told to."""


@dataclass(frozen=True, slots=True)
class HandedBack:
    """Not run to the end, through no fault of the task."""


class Outcome(msgspec.Struct, frozen=True):
    """How an attempt ended."""

    attempt: Attempt
    ending: Completed | Failure | CancelledByAgent | HandedBack


Settlements = list[tuple[Attempt, bool]]
CANCELLED_ITSELF = Failure("cancelled", "cancelled by the agent")


def progress(key: InstanceKey, reports: Sequence[ProgressReport]) -> Operation[None]:
    """Takes the last report of each attempt in the batch."""
    last = {report.attempt: report for report in reports}

    def decide(found: Found, now: int) -> Changes[None]:
        changes: Changes[None] = Changes(None)
        for report in last.values():
            task = _current(found, key, report.attempt)
            if task is not None:
                changes.include([transitions.progress(task, report.percent, report.message, now)])
        return changes

    return Operation(decide, keys=_task_keys(key, list(last)))


def log(key: InstanceKey, reports: Sequence[LogReport]) -> Operation[None]:
    """Adds log lines, one event per attempt; lines beyond the limit of a task are dropped."""
    by_attempt: dict[Attempt, list[logs.Line]] = {}
    for report in reports:
        by_attempt.setdefault(report.attempt, []).append(report.line)

    def decide(found: Found, now: int) -> Changes[None]:
        changes: Changes[None] = Changes(None)
        for attempt, lines in by_attempt.items():
            task = _current(found, key, attempt)
            if task is not None:
                changes.include([logs.add(task, lines, now)])
        return changes

    return Operation(decide, keys=_task_keys(key, list(by_attempt)))


def settle(
    key: InstanceKey,
    outcomes: Sequence[Outcome],
    random: Callable[[], float],
    settled: Callable[[Settlements], None],
) -> Operation[Settlements]:
    """Counts outcomes, and tells `settled` for each whether it counted; one sent again after it counted, counted.

    `random`, from 0 to 1, spreads the retries of what failed.
    """

    def decide(found: Found, now: int) -> Changes[Settlements]:
        changes: Changes[Settlements] = Changes([])
        agent = found.get(rows.Agent, key.project_id, key.agent_id)
        seen: set[str] = set()
        has_worked = False
        for outcome in outcomes:
            attempt = outcome.attempt
            task = None if attempt.task_id in seen else _current(found, key, attempt)
            if task is None:
                changes.answer.append((attempt, _was_settled(found, key, outcome)))
                continue
            seen.add(attempt.task_id)
            has_worked = has_worked or isinstance(outcome.ending, Completed)
            changes.include([_ended(task, agent, outcome.ending, now, random)])
            changes.answer.append((attempt, True))
        if agent is not None and has_worked:
            changes.include([presence.succeeded(agent, now)])
        return changes

    keys = _task_keys(key, [outcome.attempt for outcome in outcomes])
    return Operation(decide, keys=[*keys, Key(rows.Agent, tuple(key.agent))], delivered=settled)


def _ended(
    task: rows.Task,
    agent: rows.Agent | None,
    ending: Completed | Failure | CancelledByAgent | HandedBack,
    now: int,
    random: Callable[[], float],
) -> Changes[rows.Task]:
    match ending:
        case Completed(result):
            return transitions.complete(task, result, now)
        case Failure():
            return failures.failed(task, agent, ending, now, random)
        case CancelledByAgent():
            reason = transitions.STOPPED if task.cancel_requested_at is not None else CANCELLED_ITSELF
            return transitions.cancel(task, reason, now)
        case HandedBack():
            return transitions.hand_back(task, now)


def _current(found: Found, key: InstanceKey, attempt: Attempt) -> rows.Task | None:
    """The task, if this instance holds this attempt of it and the attempt is the current one: the fence."""
    task = found.get(rows.Task, key.project_id, attempt.task_id)
    if task is None or task.status != "running":
        return None
    is_holder = task.agent_id == key.agent_id and task.instance_id == key.instance_id
    return task if is_holder and task.attempt == attempt.number else None


def _was_settled(found: Found, key: InstanceKey, outcome: Outcome) -> bool:
    """Whether this very outcome ended the task: it was counted, and only the answer got lost."""
    attempt = outcome.attempt
    task = found.get(rows.Task, key.project_id, attempt.task_id)
    if task is None or (task.agent_id, task.instance_id, task.attempt) != (*key[1:], attempt.number):
        return False
    match outcome.ending:
        case Completed():
            return task.status == "completed"
        case Failure(code):
            return task.status == "failed" and task.error_code == code
        case CancelledByAgent():
            return task.status == "cancelled"
        case HandedBack():
            return False


def _task_keys(key: InstanceKey, attempts: Sequence[Attempt]) -> list[Key]:
    return [Key(rows.Task, (key.project_id, attempt.task_id)) for attempt in attempts]
