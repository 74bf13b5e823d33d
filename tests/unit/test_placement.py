"""Which process a waiting task may go to: the rules that dispatch and `explain` share."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ao_server.engine import placement
from ao_server.engine.placement import Hindrance, Room, Taker
from ao_server.store import rows


def agent(**fields: Any) -> rows.Agent:
    values: dict[str, Any] = {"project_id": "p", "id": "agent_1", "name": "n", "type": "t", "status": "active"}
    values |= {"configuration": "{}", "created_at": 0, "updated_at": 0, **fields}
    return rows.Agent(**values)


def task(number: int, **fields: Any) -> rows.Task:
    values: dict[str, Any] = {"project_id": "p", "id": f"task_{number:04}", "agent_id": "agent_1", "type": "work"}
    values |= {"priority": 2, "created_at": 0, "status": "pending", **fields}
    return rows.Task(**values)


def placed(the_agent: rows.Agent, tasks: list[rows.Task], rooms: list[Room]) -> list[tuple[str, int]]:
    return [(each.id, rooms.index(room)) for each, room in placement.place(the_agent, tasks, rooms)]


def test_a_task_whose_processes_were_lost_twice_runs_alone_on_an_empty_process() -> None:
    suspect, good = task(1, deliveries=2), [task(number) for number in range(2, 9)]
    rooms = [Room(None, 3, 0), Room(None, 3, 0)]
    found = placed(agent(), [suspect, *good], rooms)
    alone = found[0][1]
    assert found[0][0] == suspect.id
    assert [room for _, room in found[1:]] == [1 - alone] * 3, "and nothing beside it"


def test_where_no_process_is_empty_one_is_kept_free_until_it_is() -> None:
    suspect = task(1, deliveries=2)
    rooms = [Room(None, 1, 2), Room(None, 2, 1)]
    assert placed(agent(), [suspect, task(2), task(3)], rooms) == [(task(2).id, 0)]
    assert placement.of_task(suspect, [Taker(agent(), [Room(None, 2, 1)])]) is Hindrance.RUNS_ALONE


def test_tasks_spread_one_by_one_but_go_in_portions_where_a_message_is_dearer_than_they_are() -> None:
    def found(portion: int, free: int) -> list[int]:
        rooms = [Room(None, free, 0) for _ in range(3)]
        numbers = {id(room): number for number, room in enumerate(rooms)}
        tasks = [task(number) for number in range(12)]
        return [numbers[id(room)] for _, room in placement.place(agent(), tasks, rooms, portion=portion)]

    assert found(1, 100) == [0, 1, 2] * 4
    assert found(4, 100) == [0] * 4 + [1] * 4 + [2] * 4
    assert found(4, 8) == [0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1, 2], "never more than a quarter of what is free"


def test_an_agent_in_error_gets_one_trial_task_at_a_time() -> None:
    broken = agent(lost_sessions=5, status="error")
    tasks = [task(number) for number in range(1, 5)]
    assert len(placed(broken, tasks, [Room(None, 3, 0), Room(None, 3, 0)])) == 1
    assert len(list(placement.place(broken, tasks, [Room(None, 100, 0)], portion=16))) == 1
    assert placed(broken, tasks, [Room(None, 3, 0), Room(None, 2, 1)]) == []
    assert placement.of_task(tasks[0], [Taker(broken, [Room(None, 2, 1)])]) is Hindrance.AGENT_ON_TRIAL


def test_what_holds_a_task_is_the_reason_that_is_nearest_to_running() -> None:
    waiting = task(1)
    none: list[Room] = []
    assert placement.of_task(waiting, []) is Hindrance.NO_AGENT
    assert placement.of_task(waiting, [Taker(agent(mode="paused"), none)]) is Hindrance.AGENT_PAUSED
    assert placement.of_task(waiting, [Taker(agent(mode="draining"), none)]) is Hindrance.AGENT_DRAINING
    assert placement.of_task(waiting, [Taker(agent(), none)]) is Hindrance.NO_INSTANCE
    other = Room(frozenset({"play"}), 1, 0)
    assert placement.of_task(waiting, [Taker(agent(), [other])]) is Hindrance.NO_HANDLER
    assert placement.of_task(waiting, [Taker(agent(), [other, Room(None, 0, 1)])]) is Hindrance.AT_CAPACITY
    assert placement.of_task(waiting, [Taker(agent(mode="paused"), none), Taker(agent(), [Room(None, 1, 0)])]) is None
    assert placement.of_task(task(1, ready_at=9), [Taker(agent(), [Room(None, 1, 0)])]) is Hindrance.DELAYED
    assert placement.of_task(task(1, ready_at=9, failures=1), []) is Hindrance.BACKING_OFF


ROOMS = st.builds(
    Room, st.sampled_from([None, frozenset({"work"}), frozenset({"play"})]), st.integers(0, 4), st.just(0)
)


@given(
    st.lists(st.tuples(st.sampled_from(["work", "play"]), st.integers(0, 3), st.integers(0, 1)), max_size=30),
    st.lists(ROOMS, max_size=4),
    st.integers(0, 40),
)
def test_no_room_is_overfilled_and_no_task_that_fits_is_left(
    kinds: list[tuple[str, int, int]], rooms: list[Room], claims: int
) -> None:
    tasks = [task(n, type=kind, priority=priority, turn=turn) for n, (kind, priority, turn) in enumerate(kinds)]
    by_turn = sorted(tasks, key=lambda each: (each.priority, each.turn, each.id))
    free = [room.free for room in rooms]
    order = list(placement.in_turn(by_turn, claims))
    assert sorted(each.id for each in order) == [each.id for each in tasks]
    taken = list(placement.place(agent(), order, rooms))
    assert len({each.id for each, _ in taken}) == len(taken)
    for room, before in zip(rooms, free, strict=True):
        mine = [each for each, chosen in taken if chosen is room]
        assert len(mine) == before - room.free and room.free >= 0
        assert all(room.types is None or each.type in room.types for each in mine)
    left = {each.id for each in tasks} - {each.id for each, _ in taken}
    for each in tasks:
        if each.id in left:
            assert placement.of_task(each, [Taker(agent(), rooms)]) is not None


@given(st.integers(1, 60), st.integers(0, 100), st.sampled_from([{"priority": 3, "turn": 0}, {"priority": 0}]))
def test_of_sixteen_claims_running_one_takes_the_oldest(count: int, claims: int, behind: dict[str, int]) -> None:
    oldest = task(0, **behind)
    urgent = [task(number, priority=0, turn=0) for number in range(1, count + 1)]
    order = [each.id for each in placement.in_turn([*urgent, oldest], claims)]
    due = -(claims + 1) % placement.OLDEST_EVERY
    assert order.index(oldest.id) == min(due, count)
