"""A failed attempt: the end of its task, or another attempt after a while."""

from collections.abc import Callable

from ao_server.engine import configuration, logs, retries, transitions
from ao_server.engine.transitions import Failure
from ao_server.store import rows
from ao_server.store.changes import Changes


def failed(
    task: rows.Task, agent: rows.Agent | None, failure: Failure, now: int, random: Callable[[], float]
) -> Changes[rows.Task]:
    """What follows from the failure of a running attempt. `random`: from 0 to 1."""
    wait = None
    if agent is not None and task.cancel_requested_at is None and not _is_final(failure):
        wait = retries.backoff(task, configuration.settings_of(agent.configuration), random)
    if wait is None:
        return transitions.fail(task, failure, now)
    text = f"attempt {task.attempt} failed ({failure.code}), the next begins in {wait / 1e6:.1f} s: {failure.message}"
    noted = logs.add(task, [logs.Line("warning", text)], now)
    backing_off = transitions.back_off(noted.answer, wait, now)
    return Changes(
        backing_off.answer,
        [*noted.rows, *backing_off.rows],
        [*noted.events, *backing_off.events],
    )


def _is_final(failure: Failure) -> bool:
    return failure.is_final or failure.code in retries.FUTILE
