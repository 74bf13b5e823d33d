"""When outcomes may follow those that are on their way."""

import pytest

from agent_runner.flight import GATHER_SECONDS, MAX_MESSAGES, Flight
from agent_runner.outbox import AttemptId

SLOTS = 10
NOW = 100.0


def _attempts(first: int, count: int) -> set[AttemptId]:
    return {AttemptId(f"task_{number}", 1) for number in range(first, first + count)}


def test_nothing_waits_while_nothing_is_on_its_way() -> None:
    flight = Flight()
    assert flight.may_follow(1, SLOTS, is_busy=True, now=NOW)
    assert flight.may_follow(1, SLOTS, is_busy=False, now=NOW)


def test_while_others_run_a_second_message_may_follow_and_no_third() -> None:
    flight = Flight()
    for number in range(MAX_MESSAGES):
        assert flight.may_follow(1, SLOTS, is_busy=True, now=NOW)
        flight.sent(_attempts(number, 1))
    assert not flight.may_follow(1, SLOTS, is_busy=True, now=NOW)


def test_when_nothing_runs_outcomes_wait_for_what_a_settlement_brings() -> None:
    flight = Flight()
    flight.sent(_attempts(0, 6))
    assert not flight.may_follow(4, SLOTS, is_busy=False, now=NOW)
    flight.settled(_attempts(0, 6), NOW)
    assert not flight.may_follow(4, SLOTS, is_busy=False, now=NOW)
    assert not flight.may_follow(7, SLOTS, is_busy=True, now=NOW)
    # All that were in two groups are in one.
    assert flight.may_follow(10, SLOTS, is_busy=False, now=NOW)


def test_they_do_not_wait_for_long() -> None:
    flight = Flight()
    flight.sent(_attempts(0, 6))
    assert not flight.may_follow(4, SLOTS, is_busy=False, now=NOW)
    flight.settled(_attempts(0, 6), NOW)
    assert flight.gathers_for(NOW) == pytest.approx(GATHER_SECONDS)
    assert flight.may_follow(4, SLOTS, is_busy=True, now=NOW + GATHER_SECONDS + 1e-6)
    assert flight.gathers_for(NOW + 1) == 0


def test_three_groups_become_one_too() -> None:
    flight = Flight()
    flight.sent(_attempts(0, 4))
    flight.sent(_attempts(4, 3))
    assert not flight.may_follow(3, SLOTS, is_busy=False, now=NOW)
    flight.settled(_attempts(0, 4), NOW)
    assert not flight.may_follow(7, SLOTS, is_busy=False, now=NOW)
    flight.settled(_attempts(4, 3), NOW + 0.01)
    assert flight.may_follow(10, SLOTS, is_busy=False, now=NOW + 0.01)


def test_what_is_settled_in_part_is_still_on_its_way() -> None:
    flight = Flight()
    flight.sent(_attempts(0, 2))
    flight.settled(_attempts(0, 1), NOW)
    assert not flight.may_follow(1, SLOTS, is_busy=False, now=NOW)
    flight.settled(_attempts(1, 1), NOW)
    assert flight.may_follow(1, SLOTS, is_busy=False, now=NOW + 2 * GATHER_SECONDS)


def test_a_process_that_takes_no_more_work_gathers_nothing() -> None:
    flight = Flight()
    flight.sent(_attempts(0, 6))
    assert not flight.may_follow(4, 0, is_busy=False, now=NOW)
    flight.settled(_attempts(0, 6), NOW)
    assert flight.may_follow(4, 0, is_busy=False, now=NOW)
