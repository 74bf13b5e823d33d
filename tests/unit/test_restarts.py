"""How long `ao dev` waits before it starts a dead half again, and when it gives up. Times are made up."""

import pytest

from agent_orchestration.cli.restarts import Restarts


def test_it_waits_longer_each_time_and_gives_up_at_the_fifth_death_within_30_seconds() -> None:
    restarts = Restarts()
    delays = [restarts.after_death(now) for now in (100.0, 101.0, 102.0, 105.0, 129.9)]
    assert delays == [pytest.approx(0.1), pytest.approx(0.4), pytest.approx(1.6), pytest.approx(5.0), None]


def test_deaths_that_are_long_past_do_not_count() -> None:
    restarts = Restarts()
    assert all(restarts.after_death(60.0 * number) == pytest.approx(0.1) for number in range(20))


def test_a_death_counts_for_30_seconds() -> None:
    restarts = Restarts()
    for now in (0.0, 10.0, 20.0, 29.0):
        assert restarts.after_death(now) is not None
    assert restarts.after_death(30.0) == pytest.approx(5.0)
    assert restarts.after_death(30.1) is None
