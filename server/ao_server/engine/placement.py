"""Which waiting task may go to which process, and if none may, why not. Dispatch acts on it, `explain` shows it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from ao_server.engine import presence, states
from ao_server.engine.transitions import SUSPECT_DELIVERIES
from ao_server.store import rows
from ao_server.store.selections import lane_of

# Every so many claims of an agent the oldest task goes first, whatever its priority: none waits for ever.
OLDEST_EVERY: Final = 16


class Hindrance(IntEnum):
    """What keeps a task from running, from the farthest to the nearest to running."""

    DELAYED = 1
    BACKING_OFF = 2
    NO_AGENT = 3
    AGENT_PAUSED = 4
    AGENT_DRAINING = 5
    NO_INSTANCE = 6
    NO_HANDLER = 7
    AGENT_ON_TRIAL = 8
    RUNS_ALONE = 9
    AT_CAPACITY = 10


@dataclass(slots=True)
class Room:
    """What one process of an agent can take. `types`: what it runs, None for everything."""

    types: frozenset[str] | None
    free: int
    held: int
    # It runs a task that must be alone, or is kept free for one: for this one.
    is_exclusive: bool = False
    kept_for: str | None = None

    def hindrance(self, task: rows.Task) -> Hindrance | None:
        """Why the task cannot go here now."""
        if self.types is not None and task.type not in self.types:
            return Hindrance.NO_HANDLER
        if self.is_exclusive or self.free <= 0:
            return Hindrance.AT_CAPACITY
        return Hindrance.RUNS_ALONE if is_suspect(task) and self.held else None

    def keep_for(self, task: rows.Task) -> None:
        """Nothing more goes here, so that it becomes empty for this task."""
        self.is_exclusive, self.kept_for = True, task.id

    def keep_no_longer(self) -> None:
        """The task that it was kept for has gone elsewhere."""
        self.is_exclusive, self.kept_for = False, None

    def take(self, task: rows.Task) -> None:
        """The task goes here."""
        self.free -= 1
        self.held += 1
        self.is_exclusive = is_suspect(task)


@dataclass(frozen=True, slots=True)
class Taker:
    """An agent that may take a task, the rooms of its processes, and what it holds beside them (see `of_agent`)."""

    agent: rows.Agent
    rooms: Sequence[Room]
    elsewhere: int = 0


def is_suspect(task: rows.Task) -> bool:
    """Whether so many processes were lost with this waiting task that the next must not take others down with it."""
    return task.deliveries >= SUSPECT_DELIVERIES


def of_time(task: rows.Task) -> Hindrance | None:
    """Why the task cannot be given to anybody yet."""
    if task.ready_at is None:
        return None
    return Hindrance.BACKING_OFF if task.failures else Hindrance.DELAYED


def of_agent(agent: rows.Agent, rooms: Sequence[Room], elsewhere: int = 0) -> Hindrance | None:
    """Why the agent gets no task at all now. `elsewhere`: what processes of it hold that can take nothing."""
    if agent.mode == states.PAUSED:
        return Hindrance.AGENT_PAUSED
    if agent.mode == states.DRAINING:
        return Hindrance.AGENT_DRAINING
    if not rooms:
        return Hindrance.NO_INSTANCE
    if presence.is_broken(agent) and (elsewhere or any(room.held for room in rooms)):
        return Hindrance.AGENT_ON_TRIAL
    return None


def of_task(task: rows.Task, takers: Iterable[Taker]) -> Hindrance | None:
    """What keeps the task from running on any of these agents: where there are several reasons, the nearest to running.

    None when one of them could take it: it waits only for those before it.
    """
    waiting = of_time(task)
    if waiting is not None:
        return waiting
    nearest = Hindrance.NO_AGENT
    for taker in takers:
        whole = of_agent(taker.agent, taker.rooms, taker.elsewhere)
        reasons = [room.hindrance(task) for room in taker.rooms] if whole is None else [whole]
        for reason in reasons:
            if reason is None:
                return None
            nearest = max(nearest, reason)
    return nearest


def place(
    agent: rows.Agent, tasks: Iterable[rows.Task], rooms: Sequence[Room], elsewhere: int = 0, portion: int = 1
) -> Iterator[tuple[rows.Task, Room]]:
    """Gives tasks, in this order, to the rooms of an agent, the emptiest first. It stops when nothing more fits.
    `elsewhere`: what the agent holds beside these rooms.

    `portion`: how many tasks in a row may go to one room, though never more than a quarter of what is free there. What
    goes together is one message: where tasks are short, that is dearer than they are.

    Where a task that must run alone finds no empty process, the emptiest gets nothing more until it is; one at a time,
    so that the others go on.
    """
    room: Room | None = None
    left = 0
    # On trial it is looked at anew after each task.
    portion = 1 if presence.is_broken(agent) else portion
    for task in tasks:
        if room is None or left <= 0 or room.hindrance(task) is not None:
            if of_agent(agent, rooms, elsewhere) is not None or not any(room.free > 0 for room in rooms):
                return
            fitting = [room for room in rooms if room.hindrance(task) is None]
            room = max(fitting, key=_free, default=None)
            left = min(portion, room.free // 4) if room is not None else 0
        if room is not None:
            room.take(task)
            left -= 1
            yield task, room
        elif is_suspect(task) and all(room.kept_for is None for room in rooms):
            able = [room for room in rooms if room.hindrance(task) is Hindrance.RUNS_ALONE]
            if able:
                min(able, key=_held).keep_for(task)


def in_turn(tasks: Sequence[rows.Task], claims: int) -> Iterable[rows.Task]:
    """The order in which an agent that made so many claims takes these tasks, given by priority, turn and age."""
    if not tasks or lane_of(tasks[0]) == lane_of(tasks[-1]):
        return tasks
    return _mixed(tasks, claims)


def _mixed(tasks: Sequence[rows.Task], claims: int) -> Iterator[rows.Task]:
    taken: set[str] = set()
    urgent = iter(tasks)
    oldest = iter(sorted(tasks, key=lambda task: task.id))
    for claim in range(claims + 1, claims + len(tasks) + 1):
        source = oldest if claim % OLDEST_EVERY == 0 else urgent
        task = next(each for each in source if each.id not in taken)
        taken.add(task.id)
        yield task


def _free(room: Room) -> int:
    return room.free


def _held(room: Room) -> int:
    return room.held
