"""Log lines of tasks: what agents write, and what the server adds about an attempt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ao_server.engine import bodies
from ao_server.store import rows
from ao_server.store.changes import Changes

MAX_LINES: Final = 10_000
# In one event. Escaped and in UTF-8 they take six times as many bytes at most.
EVENT_CHARACTERS: Final = 128 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `age` in microseconds before now."""

    level: str
    message: str
    age: int = 0


def add(task: rows.Task, lines: Sequence[Line], now: int) -> Changes[rows.Task]:
    """Adds lines of the current attempt, in few events; those beyond the limit of a task are dropped."""
    kept = lines[: max(0, MAX_LINES - task.log_lines)]
    if not kept:
        return Changes(task)
    after = rows.copy_of(task)
    after.log_lines += len(kept)
    written = [
        rows.LogLine(
            project_id=task.project_id,
            task_id=task.id,
            number=number,
            attempt=task.attempt,
            # Whatever age a process states: no line is older than its attempt, so that every time can be shown.
            timestamp=max(task.started_at or 0, now - line.age),
            level=line.level,
            message=line.message,
        )
        for number, line in enumerate(kept, task.log_lines + 1)
    ]
    events = [_event(task, shown, now) for shown in _portions(written)]
    return Changes(after, rows=[after, *written], events=events)


def _event(task: rows.Task, lines: Sequence[rows.LogLine], now: int) -> rows.Event:
    shown = [bodies.Line(line.timestamp, line.level, line.message) for line in lines]
    body = bodies.LogBody(task.id, task.agent_id, task.attempt, shown)
    return bodies.event("task_log", task.project_id, body, now, agent_id=task.agent_id or None, task_id=task.id)


def _portions(lines: Sequence[rows.LogLine]) -> Iterator[Sequence[rows.LogLine]]:
    """The lines of each event: one that is larger than a watcher's backlog could never be delivered."""
    start = size = 0
    for place, line in enumerate(lines):
        if size and size + len(line.message) > EVENT_CHARACTERS:
            yield lines[start:place]
            start, size = place, 0
        size += len(line.message)
    yield lines[start:]
