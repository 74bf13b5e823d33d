"""Who gets which task: pairs waiting tasks with free slots, within the transaction that made either of them.

The writer asks for `claims` at the end of each transaction. A task and a free slot therefore meet in the commit that
creates the task or frees the slot, and the claim is durable before the assignment is sent.
"""

from collections import Counter, deque
from collections.abc import Callable, Container, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ao_server.engine import configuration, placement, transitions
from ao_server.engine.breakers import Breakers
from ao_server.engine.intake import TYPE_QUEUE
from ao_server.engine.paces import Paces
from ao_server.engine.placement import OLDEST_EVERY, Room
from ao_server.engine.queue_heads import LOOKED_AT, QueueHeads
from ao_server.engine.registry import Instance, Registry
from ao_server.engine.sessions import AgentKey, Assignment, Attempt, Session
from ao_server.engine.wakes import Queue, Types, Wakes, is_claimable
from ao_server.store import rows
from ao_server.store.batch import Batch
from ao_server.store.changes import Change, Changes, Found, Key, Operation
from ao_server.store.selections import TaskSelections

CLAIMED_AT_ONCE = 500
# Short tasks that go to one process in a row.
PORTION = 16
# The stream's limit is 16 MiB a message; one payload is at most 1 MiB.
ASSIGN_BYTES = 3 * 1024 * 1024


@dataclass(slots=True)
class _Group:
    """The processes of an agent that run the same types (None: all), with what each can take."""

    agent: rows.Agent
    # Seconds that an attempt may take, where its task does not say.
    timeout: float
    types: Types
    # All that the agent has; those of this group are among them.
    everybody: dict[Instance, Room]
    # What processes of the agent hold that can take nothing now.
    elsewhere: int
    rooms: dict[Instance, Room] = field(default_factory=dict[Instance, Room])
    # Whether more may be found for it in this transaction.
    again: bool = True

    @property
    def key(self) -> AgentKey:
        return AgentKey(self.agent.project_id, self.agent.id)

    @property
    def free(self) -> int:
        return sum(max(0, room.free) for room in self.rooms.values() if not room.is_exclusive)

    def let_go(self, gone: Container[str]) -> bool:
        """Whether rooms are no longer kept free, because these tasks wait no more."""
        rooms = [room for room in self.rooms.values() if room.kept_for is not None and room.kept_for in gone]
        for room in rooms:
            room.keep_no_longer()
        self.again = bool(rooms)
        return self.again


_Claimed = list[tuple[Session, Assignment]]


class Dispatcher:
    """Finds out which queues may hold work for whom, and claims it. Lives in the writer's thread but for `_deliver`."""

    def __init__(self, registry: Registry, selections: TaskSelections, monotonic: Callable[[], float]) -> None:
        self._registry = registry
        self._selections = selections
        self._monotonic = monotonic
        # Agents whose slots have changed otherwise than by a task's end. The event loop appends, the writer takes.
        self._look: deque[AgentKey] = deque()
        # Agents that the present transaction looks at; those of one that did not commit are looked at again.
        self._looked_at: set[AgentKey] = set()
        self._heads = QueueHeads()
        self._breakers = Breakers(monotonic)
        self._paces = Paces()
        self._claims: Counter[AgentKey] = Counter()
        # By the id of a task that must run alone: agents that have kept a process free for it.
        self._keepers: dict[str, set[AgentKey]] = {}
        # Agents that the present transaction deletes.
        self._deleted: list[rows.Agent] = []

    def look_again(self, agent: AgentKey) -> Operation[None]:
        """Slots have appeared: the claims of the next transaction look at the agent's queues. The write that is
        returned changes nothing; it is there so that there is a next one.
        """
        self._look.append(agent)
        return Operation(lambda found, now: Changes(None))

    def claims(self, batch: Batch) -> Generator[Sequence[Operation[_Claimed]], None, None]:
        """Rounds of claims for one transaction. Processes of an agent that run the same types are served together."""
        self._heads.begin()
        wakes = Wakes.of(batch.changes())
        self._deleted = [agent for agent in wakes.changed.values() if agent.deleted_at is not None]
        agents = wakes.agents | self._looked_at | self._breakers.due()
        while self._look:
            agents.add(self._look.popleft())
        self._looked_at = set()
        made: Counter[AgentKey] = Counter()
        every: list[_Group] = []
        while agents := agents or self._keepers_of(wakes.gone) or self._takers(wakes):
            self._looked_at |= agents
            rounds = [groups for agent in agents if (groups := self._groups(agent, wakes))]
            every += [group for groups in rounds for group in groups]
            while rounds:
                for groups in rounds:
                    with self._breakers.of(groups[0].key):
                        yield from self._claims_of(groups[0], wakes, made)
                    if not groups[0].again:
                        groups.pop(0)
                rounds = [groups for groups in rounds if groups]
                # A process was kept free in one group for a task that another has taken.
                rounds = rounds or [[group] for group in every if group.let_go(wakes.gone)]
            agents = set[AgentKey]()

    def observe(self, changes: Sequence[Change]) -> None:
        """The transaction was committed."""
        self._looked_at = set()
        self._heads.observe(changes)
        self._paces.observe(changes)
        self._breakers.worked()
        for agent in self._deleted:
            key = AgentKey(agent.project_id, agent.id)
            self._claims.pop(key, None)
            self._paces.forget(key)
            self._breakers.forget(key)
            for queue in _queues(agent):
                self._heads.forget(queue)
        self._deleted = []

    def _keepers_of(self, gone: Container[str]) -> set[AgentKey]:
        """Further agents that kept a process free for a task which waits no more."""
        keepers: set[AgentKey] = set()
        for task_id in [task_id for task_id in self._keepers if task_id in gone]:
            keepers |= self._keepers.pop(task_id)
        return keepers - self._looked_at

    def _takers(self, wakes: Wakes) -> set[AgentKey]:
        """Further agents that may take what is left of what has come into the queues of their types: as many as needed
        if they take all that they can, the emptiest first.
        """
        takers: set[AgentKey] = set()
        for (project_id, queue), waiting in wakes.waiting.items():
            if not waiting or not queue.startswith(TYPE_QUEUE):
                continue
            left = Counter(task.type for task in waiting.values())
            present = self._registry.of_type(project_id, queue.removeprefix(TYPE_QUEUE))
            able = [(agent, self._groups(agent, wakes)) for agent in present if agent not in self._looked_at]
            for agent, groups in sorted(able, key=_free, reverse=True):
                for group in groups:
                    if _fill(left, group):
                        takers.add(agent)
        return takers

    def _groups(self, key: AgentKey, wakes: Wakes) -> list[_Group]:
        """Groups with free slots; none when the agent is not to get anything."""
        agent = wakes.changed.get(key) or self._registry.agent(key)
        if agent is None or agent.deleted_at is not None or not self._breakers.lets(key):
            return []
        rooms = self._registry.rooms(key, wakes.freed)
        elsewhere = self._registry.held(key, wakes.freed) - sum(room.held for room in rooms.values())
        if placement.of_agent(agent, list(rooms.values()), elsewhere) is not None:
            return []
        with self._breakers.of(key):
            timeout = configuration.settings_of(agent.configuration).timeout
        groups: dict[Types, _Group] = {}
        for instance, room in rooms.items():
            groups.setdefault(room.types, _Group(agent, timeout, room.types, rooms, elsewhere)).rooms[instance] = room
        return [group for group in groups.values() if group.free]

    def _claims_of(
        self, group: _Group, wakes: Wakes, made: Counter[AgentKey]
    ) -> Generator[Sequence[Operation[Any]], None, None]:
        """The next claim of a group, where needed after a look into its queues. `made` counts the claims of this
        transaction, which are not committed yet.
        """
        queues = _queues(group.agent)
        wanted = min(group.free, CLAIMED_AT_ONCE)
        claims = self._claims[group.key] + made[group.key]
        oldest = (claims + wanted) // OLDEST_EVERY - claims // OLDEST_EVERY
        first = self._heads.first(queues, group.types, wanted, oldest, wakes)
        if first is None:
            yield [self._look_into(queue, group.types, max(wanted, LOOKED_AT)) for queue in queues]
            first = self._heads.first(queues, group.types, wanted, oldest, wakes)
        group.again = bool(first)
        if first:
            yield [self._claim(group, first, wanted, claims, wakes, made)]

    def _look_into(self, queue: Queue, types: Types, limit: int) -> Operation[None]:
        project_id, name = queue

        def decide(found: Found, now: int) -> Changes[None]:
            self._heads.looked(queue, types, found.selected, limit)
            return Changes(None)

        among = None if types is None else sorted(types)
        return Operation(decide, selection=self._selections.head(project_id, name, among, limit))

    def _claim(
        self, group: _Group, offered: list[str], wanted: int, claims: int, wakes: Wakes, made: Counter[AgentKey]
    ) -> Operation[_Claimed]:
        agent = group.agent
        key = group.key
        portion = PORTION if self._paces.is_short(key) else 1
        owners = {id(room): instance for instance, room in group.rooms.items()}

        def decide(found: Found, now: int) -> Changes[_Claimed]:
            tasks = [found.get(rows.Task, key.project_id, task_id) for task_id in offered]
            waiting = {task.id: task for task in tasks if task is not None and is_claimable(task)}
            wakes.gone.update(task_id for task_id in offered if task_id not in waiting)
            changes = Changes[_Claimed]([])
            order = placement.in_turn(list(waiting.values()), claims)
            if placement.of_agent(agent, list(group.everybody.values()), group.elsewhere) is not None:
                # Another group of the agent has taken what it may take.
                order = ()
            # Read once: a stream may end at any moment, and work that was given to it comes back with its lease.
            sessions = {
                each: session for each in group.rooms if (session := each.session) is not None and session.ready
            }
            rooms = [group.rooms[each] for each in sessions]
            # Beyond so many, a queue may hold tasks that go before those found in the other.
            for task, room in islice(placement.place(agent, order, rooms, group.elsewhere, portion), wanted):
                del waiting[task.id]
                instance = owners[id(room)]
                seconds = group.timeout if task.timeout is None else task.timeout / 1e6
                claimed = transitions.claim(task, agent.id, instance.key.instance_id, round(seconds * 1e6), now)
                changes.include([claimed])
                wakes.took(task)
                attempt = Attempt(task.id, claimed.answer.attempt)
                assignment = Assignment(attempt, task.type, _payload(found, task), seconds)
                changes.answer.append((sessions[instance], assignment))
            made[key] += len(changes.answer)
            for room in rooms:
                if room.kept_for is not None:
                    self._keepers.setdefault(room.kept_for, set()).add(key)
            # More may stand behind what was taken, by it or by others of its type before it.
            took_all = len(changes.answer) == wanted or not waiting
            group.again = bool(group.free) and len(offered) >= wanted and took_all
            return changes

        def committed(claimed: _Claimed) -> None:
            self._claims[key] += len(claimed)

        keys = [Key(row, (key.project_id, task_id)) for row in (rows.Task, rows.Payload) for task_id in offered]
        return Operation(decide, keys=keys, committed=committed, delivered=self._deliver)

    def _deliver(self, claimed: _Claimed) -> None:
        by_session: dict[Session, list[Assignment]] = {}
        for session, assignment in claimed:
            by_session.setdefault(session, []).append(assignment)
        for session, assignments in by_session.items():
            for message in _messages(assignments):
                session.assign(message, self._monotonic())


def _queues(agent: rows.Agent) -> tuple[Queue, Queue]:
    """Where its tasks wait: its own queue, and that of all agents of its type."""
    return (agent.project_id, agent.id), (agent.project_id, TYPE_QUEUE + agent.type)


def _free(able: tuple[AgentKey, list[_Group]]) -> int:
    return sum(group.free for group in able[1])


def _fill(left: Counter[str], group: _Group) -> bool:
    """Whether the group could take any of what is left, by type; what it could take is taken off."""
    free = group.free
    for type_, count in list(left.items()):
        if count > 0 and free > 0 and (group.types is None or type_ in group.types):
            left[type_] -= min(count, free)
            free -= min(count, free)
    return free < group.free


def _payload(found: Found, task: rows.Task) -> str:
    payload = found.get(rows.Payload, task.project_id, task.id)
    if payload is None:
        raise LookupError(f"task {task.id} has no payload")
    return payload.payload


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
