"""Attempts that the server gives up because their process did not: the time is over, or a cancel was not confirmed."""

from collections.abc import Callable
from typing import Final

from ao_server.engine import failures, transitions
from ao_server.engine.sessions import Attempt, InstanceKey
from ao_server.engine.transitions import Failure
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation

UNCONFIRMED: Final = Failure("cancelled", "cancelled on request; its process did not confirm that it stopped")
TIMED_OUT: Final = Failure("timeout", "the attempt took longer than its timeout, and its process did not end it")


def give_up(key: InstanceKey, attempt: Attempt, random: Callable[[], float]) -> Operation[None]:
    """Ends an attempt whose deadline has passed, if it is still running. `random`, from 0 to 1, spreads retries."""

    def decide(found: Found, now: int) -> Changes[None]:
        task = found.get(rows.Task, key.project_id, attempt.task_id)
        if task is None or task.status != "running" or task.attempt != attempt.number:
            return Changes(None)
        if task.cancel_requested_at is not None:
            ended = transitions.cancel(task, UNCONFIRMED, now)
        else:
            agent = found.get(rows.Agent, key.project_id, key.agent_id)
            ended = failures.failed(task, agent, TIMED_OUT, now, random)
        return Changes(None, ended.rows, ended.events)

    keys = [Key(rows.Task, (key.project_id, attempt.task_id)), Key(rows.Agent, tuple(key.agent))]
    return Operation(decide, keys=keys)
