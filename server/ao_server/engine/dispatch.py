"""Who gets which task: pairs waiting tasks with free slots, within the transaction that made either of them.

The writer asks for `claims` at the end of each transaction. A task and a free slot therefore meet in the commit that
creates the task or frees the slot, and the claim is durable before the assignment is sent.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ao_server.engine import intake, transitions
from ao_server.engine.registry import Instance, Registry
from ao_server.engine.sessions import AgentKey, Assignment, Attempt, Session
from ao_server.store import rows
from ao_server.store.batch import Batch
from ao_server.store.changes import Change, Changes, Found, Operation
from ao_server.store.tasks import TaskSelections

CLAIMED_AT_ONCE = 500
# The stream's limit is 16 MiB a message; one payload is at most 1 MiB.
ASSIGN_BYTES = 3 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Claimed:
    """What one claim did: assignments by session, and whether the queue may hold more."""

    assigned: list[tuple[Session, Assignment]]
    exhausted: bool


@dataclass(frozen=True, slots=True)
class _Group:
    """Free slots of instances of an agent that run the same types (None: all), at most one claim's worth."""

    agent: AgentKey
    types: frozenset[str] | None
    slots: dict[Instance, int]
    is_only: bool


class Dispatcher:
    """Finds out which queues may hold work for whom, and claims it."""

    def __init__(self, registry: Registry, selections: TaskSelections, monotonic: Callable[[], float]) -> None:
        self._registry = registry
        self._selections = selections
        self._monotonic = monotonic
        # Agents whose queue may hold a task that a free slot could take. Changed only in the writer's thread.
        self._backlog: set[AgentKey] = set()

    def look_again(self, agent: AgentKey) -> Operation[None]:
        """A write that changes nothing: slots have appeared, so the claims behind it look at the agent's queue."""

        def decide(found: Found, now: int) -> Changes[None]:
            self._backlog.add(agent)
            return Changes(None)

        return Operation(decide)

    def claims(self, batch: Batch) -> Iterator[Sequence[Operation[_Claimed]]]:
        """Rounds of claims for one transaction. Instances of an agent that run the same types are served together."""
        freed: Counter[tuple[str, str, str]] = Counter()
        touched = set(self._backlog)
        for change in batch.changes:
            if type(change.after) is rows.Task:
                _note(change, freed, touched)
        self._backlog |= touched
        rounds = [self._groups(agent, freed) for agent in touched if self._registry.is_present(agent)]
        while rounds:
            operations = [self._claim(group) for groups in rounds for group in groups[:1]]
            if operations:
                yield operations
            rounds = [groups[1:] for groups in rounds if len(groups) > 1]

    def _groups(self, agent: AgentKey, freed: Counter[tuple[str, str, str]]) -> list[_Group]:
        """Instances with free slots, grouped by the types that they run, in portions of one claim each."""
        groups: dict[frozenset[str] | None, list[tuple[Instance, int]]] = {}
        for instance in self._registry.of(agent):
            if instance.session is not None:
                free = instance.free_after(freed[instance.key])
                groups.setdefault(instance.session.types, []).append((instance, free))
        return [
            _Group(agent, types, portion, is_only=len(groups) == 1)
            for types, group in groups.items()
            for portion in _portions(group)
        ]

    def _claim(self, group: _Group) -> Operation[_Claimed]:
        agent, types = group.agent, group.types
        wanted = sum(group.slots.values())

        def decide(found: Found, now: int) -> Changes[_Claimed]:
            changes = Changes(_Claimed([], exhausted=len(found.selected) < wanted))
            slots = dict(group.slots)
            for task, payload in found.selected:
                if task.status != "pending":
                    continue
                instance = max(slots, key=slots.__getitem__)
                session = instance.session
                if slots[instance] == 0 or session is None:
                    break
                slots[instance] -= 1
                claimed = transitions.claim(task, instance.key.instance_id, now)
                changes.include([claimed])
                attempt = Attempt(task.id, claimed.answer.attempt)
                assignment = Assignment(attempt, task.type, payload.payload, intake.DEFAULT_TIMEOUT_SECONDS)
                changes.answer.assigned.append((session, assignment))
            return changes

        def committed(claimed: _Claimed) -> None:
            # What this group found nothing of may still wait for another.
            if claimed.exhausted and group.is_only:
                self._backlog.discard(agent)

        selection = self._selections.pending(*agent, sorted(types) if types is not None else None, wanted)
        return Operation(decide, selection=selection, committed=committed, delivered=self._deliver)

    def _deliver(self, claimed: _Claimed) -> None:
        by_session: dict[Session, list[Assignment]] = {}
        for session, assignment in claimed.assigned:
            by_session.setdefault(session, []).append(assignment)
        for session, assignments in by_session.items():
            for message in _messages(assignments):
                session.assign(message, self._monotonic())


def _note(change: Change, freed: Counter[tuple[str, str, str]], touched: set[AgentKey]) -> None:
    before: rows.Task | None = change.before
    after: rows.Task = change.after
    if before is not None and before.status == "running" and after.status != "running":
        freed[before.project_id, before.agent_id, before.instance_id or ""] += 1
    if after.status == "pending":
        touched.add(AgentKey(after.project_id, after.agent_id))


def _portions(group: list[tuple[Instance, int]]) -> Iterator[dict[Instance, int]]:
    portion: dict[Instance, int] = {}
    room = CLAIMED_AT_ONCE
    for instance, free in group:
        while free > 0:
            taken = min(free, room)
            portion[instance] = taken
            free, room = free - taken, room - taken
            if room == 0:
                yield portion
                portion, room = {}, CLAIMED_AT_ONCE
    if portion:
        yield portion


def _messages(assignments: list[Assignment]) -> Iterator[list[Assignment]]:
    message: list[Assignment] = []
    size = 0
    for assignment in assignments:
        if message and size + len(assignment.payload) > ASSIGN_BYTES:
            yield message
            message, size = [], 0
        message.append(assignment)
        size += len(assignment.payload)
    yield message
