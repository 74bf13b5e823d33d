"""Failed logins slow down their address, however the tries are timed, and nobody else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ao_gateway.throttle import MAX_ADDRESSES, MAX_FAILURES, MAX_WAIT_SECONDS, WINDOW_SECONDS, Throttle

HOME = "192.0.2.1"
# Those that make an address wait, and those after waits of 1, 2, 4, 8, 16 and 32 seconds.
MOST_IN_A_WINDOW = MAX_FAILURES + 6


class Door:
    """A throttle and its clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.throttle = Throttle(lambda: self.now)

    def fail(self, address: str = HOME, times: int = 1) -> None:
        """Tries that are let in, and fail."""
        for _ in range(times):
            assert self.throttle.wait(address) == 0
            self.throttle.failed(address)


@pytest.fixture
def door() -> Door:
    return Door()


def test_waits_grow_up_to_a_minute_and_a_success_ends_them(door: Door) -> None:
    door.fail(times=MAX_FAILURES)
    for expected in (1, 2, 4, 8, 16, 32, 60, 60):
        assert door.throttle.wait(HOME) == expected
        door.now += expected - 0.25
        assert door.throttle.wait(HOME) == 1
        door.now += 0.25
        door.fail()
    door.now += MAX_WAIT_SECONDS
    assert door.throttle.wait(HOME) == 0
    door.throttle.succeeded(HOME)
    door.fail(times=MAX_FAILURES - 1)
    assert door.throttle.wait(HOME) == 0


def test_after_a_wait_one_try_is_let_in_and_the_others_wait_for_it(door: Door) -> None:
    door.fail(times=MAX_FAILURES)
    door.now += 1
    assert [door.throttle.wait(HOME) for _ in range(3)] == [0, 1, 1]
    door.throttle.failed(HOME)
    assert door.throttle.wait(HOME) == 2


def test_tries_that_were_under_way_together_count_as_one_step(door: Door) -> None:
    for _ in range(50):
        assert door.throttle.wait(HOME) == 0
    for _ in range(50):
        door.throttle.failed(HOME)
    assert door.throttle.wait(HOME) == 1


def test_few_failures_and_old_ones_are_forgotten(door: Door) -> None:
    for _ in range(20):
        door.fail(times=MAX_FAILURES - 1)
        door.now += WINDOW_SECONDS + 1
    door.fail(times=MAX_FAILURES)
    door.now += WINDOW_SECONDS + 2
    door.fail(times=MAX_FAILURES - 1)
    assert door.throttle.wait(HOME) == 0


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("", "", True),
        ("testclient", "other", False),
    ],
)
def test_what_counts_as_one_address(door: Door, one: str, other: str, is_same: bool) -> None:
    door.fail(one, MAX_FAILURES)
    assert bool(door.throttle.wait(other)) == is_same


def test_addresses_beyond_the_bound_push_out_the_one_that_failed_longest_ago(door: Door) -> None:
    door.fail("10.0.0.1", MAX_FAILURES)
    door.fail("10.0.0.2", MAX_FAILURES)
    for number in range(MAX_ADDRESSES - 1):
        door.fail(f"10.1.{number >> 8}.{number & 255}")
    assert (door.throttle.wait("10.0.0.1"), door.throttle.wait("10.0.0.2")) == (0, 1)


@settings(derandomize=True, database=None, max_examples=200)
@given(st.lists(st.floats(0, 70, allow_nan=False), max_size=200))
def test_nobody_fails_more_often_in_a_minute_than_the_waits_allow(pauses: list[float]) -> None:
    door = Door()
    failed: list[float] = []
    for pause in pauses:
        door.now += pause
        for _ in range(3):
            if door.throttle.wait(HOME) == 0:
                door.throttle.failed(HOME)
                failed.append(door.now)
    for start in failed:
        assert sum(start <= each < start + WINDOW_SECONDS for each in failed) <= MOST_IN_A_WINDOW
