from hypothesis import given
from hypothesis import strategies as st

from ao_server.engine.ids import Ids
from ao_server.store.id_times import first_at, time_of

MILLISECONDS = st.integers(0, (1 << 48) - 1)


@given(st.lists(st.integers(0, 4_000_000_000_000_000), min_size=2))
def test_ids_are_in_the_order_of_their_making_whatever_the_clock_does(times: list[int]) -> None:
    ids = Ids()
    made = [ids.new("task", time)[0] for time in times]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {len(each) for each in made} == {len("task_") + 26}


@given(st.integers(0, 4_000_000_000_000_000), st.integers(0, 4_000_000_000_000_000))
def test_ids_follow_one_of_another_server_by_another_clock(theirs: int, ours: int) -> None:
    other, ids = Ids().new("task", theirs)[0], Ids()
    ids.follow(None)
    ids.follow(other)
    assert other < ids.new("task", ours)[0] < ids.new("task", ours)[0]
    ids.follow(Ids().new("execution", 0)[0])
    assert other < ids.new("task", ours)[0]


@given(st.integers(0, 4_000_000_000_000_000))
def test_an_id_holds_its_creation_time_to_the_millisecond(now: int) -> None:
    identifier, created_at = Ids().new("task", now)
    assert created_at == now // 1000 * 1000
    assert first_at("task", created_at) <= identifier < first_at("task", created_at + 1)
    assert time_of(identifier) == created_at


def test_within_one_millisecond_the_random_part_is_counted_up() -> None:
    ids = Ids(random_bits=lambda bits: 7)
    first, second = ids.new("task", 5_000)[0], ids.new("task", 5_999)[0]
    assert first[:-1] == second[:-1]
    assert first < second
