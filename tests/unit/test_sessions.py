import pytest

from ao_server.engine.registry import Registry
from ao_server.engine.sessions import AgentKey, Assignment, Attempt, InstanceKey, Session, TaskType
from ao_server.errors import Superseded
from ao_server.store import rows

KEY = InstanceKey("project_default", "agent_1", "instance_1")
LEASE = 15.0
ANYTHING = [TaskType("*")]


class FakeClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time

    def now(self) -> int:
        return round(self.time * 1e6)


def running(task_id: str, attempt: int = 1, instance_id: str = "instance_1") -> rows.Task:
    return rows.Task(
        project_id=KEY.project_id,
        id=task_id,
        agent_id=KEY.agent_id,
        type="t",
        priority=2,
        created_at=0,
        status="running",
        attempt=attempt,
        instance_id=instance_id,
    )


def given(session: Session, task_id: str, at: float) -> None:
    session.assign([Assignment(Attempt(task_id, 1), "t", "{}", 1.0)], at)


async def test_an_assignment_that_the_process_read_past_goes_back() -> None:
    session = Session("session_1", KEY, ANYTHING, 10)
    given(session, "task_a", at=0.0)
    believed = {"task_a": 1}
    assert session.not_taken_up({}, believed, last_assign=0, overdue=-1.0) == []
    assert session.not_taken_up({}, believed, last_assign=1, overdue=-1.0) == [Attempt("task_a", 1)]
    assert not session.deaf


async def test_an_unread_assignment_goes_back_after_a_lease_and_the_deaf_process_is_not_fed() -> None:
    registry = Registry(FakeClock(), LEASE)
    session = Session("session_1", KEY, ANYTHING, 10)
    instance = registry.attach(session)
    session.ready = True
    given(session, "task_a", at=0.0)
    assert session.not_taken_up({}, {"task_a": 1}, last_assign=0, overdue=0.0) == [Attempt("task_a", 1)]
    assert instance.room(()) is None
    given(session, "task_b", at=1.0)
    assert session.not_taken_up({"task_b": 1}, {"task_b": 1}, last_assign=2, overdue=0.0) == []
    room = instance.room(())
    assert room is not None and room.free == 10


async def test_an_ended_task_is_not_missed_and_a_strange_one_is_stopped_only_when_it_stays() -> None:
    session = Session("session_1", KEY, ANYTHING, 10)
    given(session, "task_a", at=0.0)
    assert session.not_taken_up({}, {}, last_assign=1, overdue=9.0) == []
    assert session.strangers({"task_a": 1}, {}) == []
    assert session.strangers({"task_a": 1}, {}) == [Attempt("task_a", 1)]


async def test_the_newer_stream_of_an_instance_wins_and_the_late_exit_of_the_older_removes_nothing() -> None:
    registry = Registry(FakeClock(), LEASE)
    older, newer = Session("session_1", KEY, ANYTHING, 1), Session("session_2", KEY, ANYTHING, 1)
    registry.attach(older)
    instance = registry.attach(newer)
    assert isinstance(older.outbox.take(), Superseded)
    registry.detach(older)
    assert instance.session is newer


async def test_a_lease_ends_only_after_its_time_and_cannot_be_renewed_then() -> None:
    clock = FakeClock()
    registry = Registry(clock, LEASE)
    instance = registry.attach(Session("session_1", KEY, ANYTHING, 1))
    clock.time += LEASE - 0.01
    assert registry.expire() == []
    registry.renew(instance)
    clock.time += LEASE
    assert registry.expire() == [instance]
    with pytest.raises(Superseded):
        registry.renew(instance)
    assert registry.attach(Session("session_2", KEY, ANYTHING, 1)) is not instance


async def test_after_a_restart_the_holders_of_running_tasks_have_a_full_lease() -> None:
    clock = FakeClock()
    registry = Registry(clock, LEASE)
    registry.restore([running("task_a"), running("task_b", instance_id="instance_2")])
    assert registry.is_present(AgentKey(KEY.project_id, KEY.agent_id))
    assert registry.expire() == []
    clock.time += LEASE
    assert {frozenset(instance.held) for instance in registry.expire()} == {
        frozenset({"task_a"}),
        frozenset({"task_b"}),
    }


async def test_what_an_instance_holds_follows_what_was_committed() -> None:
    registry = Registry(FakeClock(), LEASE)
    instance = registry.attach(Session("session_1", KEY, ANYTHING, 1))
    pending, held = running("task_a"), running("task_a", attempt=2)
    pending.status, pending.instance_id = "pending", None
    registry.observe([(pending, held)])
    assert instance.held == {"task_a": 2}
    ended = rows.copy_of(held)
    ended.status = "completed"
    registry.observe([(held, ended)])
    assert instance.held == {}


async def test_a_stream_that_is_not_read_is_ended_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ao_server.engine.sessions.OUTBOX_LIMIT", 3)
    session = Session("session_1", KEY, ANYTHING, 10)
    for number in range(5):
        given(session, f"task_{number}", at=0.0)
    left = [session.outbox.take() for _ in range(len(session.outbox))]
    assert isinstance(left[3], Exception)
    assert not session.ready


async def test_a_deaf_process_is_fed_again_only_once_it_has_read_what_it_left_unread() -> None:
    session = Session("session_1", KEY, ANYTHING, 10)
    session.keep({"task_a": 1})
    given(session, "task_b", at=0.0)
    believed = {"task_a": 1, "task_b": 1}
    held = {"task_a": 1}
    assert session.not_taken_up(held, believed, last_assign=0, overdue=0.0) == [Attempt("task_b", 1)]
    assert session.not_taken_up(held, held, last_assign=0, overdue=5.0) == []
    assert session.deaf, "what it held all along does not show that it reads"
    assert session.not_taken_up(held, held, last_assign=1, overdue=5.0) == []
    assert not session.deaf


async def test_an_attempt_that_is_not_given_yet_is_not_missed() -> None:
    session = Session("session_1", KEY, ANYTHING, 10)
    given(session, "task_a", at=0.0)
    assert session.not_taken_up({}, {"task_a": 2}, last_assign=1, overdue=9.0) == []


async def test_nothing_is_queued_on_a_stream_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ao_server.engine.sessions.OUTBOX_LIMIT", 3)
    session = Session("session_1", KEY, ANYTHING, 10)
    for number in range(50):
        given(session, f"task_{number}", at=0.0)
        session.end(Superseded("again"))
    assert len(session.outbox) == 2


async def test_a_task_that_ends_while_the_overdue_are_looked_for_is_none_of_them() -> None:
    registry = Registry(FakeClock(), LEASE)
    instance = registry.attach(Session("session_1", KEY, ANYTHING, 1))
    instance.hold(running("task_a"), 0.0)

    class Ending(dict[str, int]):
        def __contains__(self, key: object) -> bool:
            return self.pop(str(key), None) is not None

    instance.held = Ending(instance.held)
    assert registry.overdue() == [(instance, Attempt("task_a", 1))]
    instance.held.clear()
    assert registry.overdue() == []
