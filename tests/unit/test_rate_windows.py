"""The windows against a model that keeps the time of every call, with time that the test moves."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from agent_orchestration import rate_limits
from agent_orchestration.rate_limits import Decision, Windows

MILLISECOND = 1_000_000
SECOND = 1_000 * MILLISECOND
BUCKET = 100 * MILLISECOND
HOUR = 3_600 * SECOND
# A wall clock in the middle of an hour.
BEGIN = 1_640_993_395 * SECOND

# Milliseconds that pass before a call, and its key; pauses that matter are those around a bucket, a minute and an hour.
PAUSES = st.one_of(
    st.integers(0, 250), st.integers(0, 20_000), st.integers(59_800, 60_300), st.integers(3_500_000, 3_700_000)
)


class Clock:
    """One time for both clocks, moved by hand."""

    def __init__(self) -> None:
        self.passed = 0

    def wall(self) -> int:
        return BEGIN + self.passed

    def monotonic(self) -> int:
        return 12_345 * MILLISECOND + self.passed

    def windows(self) -> Windows:
        return Windows(self.wall, self.monotonic)


class Model:
    """Keeps when each call of one key was made."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: list[tuple[int, int]] = []

    def in_hour(self) -> int:
        return sum(wall // HOUR == self._clock.wall() // HOUR for wall, _ in self._calls)

    def in_minute(self) -> int:
        bucket = self._clock.monotonic() // BUCKET
        return sum(monotonic // BUCKET > bucket - 600 for _, monotonic in self._calls)

    def has_room(self, per_hour: int, per_minute: int) -> bool:
        return not (0 < per_hour <= self.in_hour() or 0 < per_minute <= self.in_minute())

    def add(self) -> None:
        self._calls.append((self._clock.wall(), self._clock.monotonic()))


@given(
    st.lists(st.tuples(PAUSES, st.sampled_from("ab"), st.booleans()), max_size=60),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 8)), min_size=1, max_size=3),
)
def test_the_windows_decide_as_one_who_remembers_every_call(
    calls: list[tuple[int, str, bool]], limits: list[tuple[int, int]]
) -> None:
    clock = Clock()
    windows, models = clock.windows(), {"a": Model(clock), "b": Model(clock)}
    for number, (pause, key, is_call) in enumerate(calls):
        clock.passed += pause * MILLISECOND
        # The limits of a key may change between two calls.
        chosen = limits[number % len(limits)]
        model = models[key]
        decision = (windows.take if is_call else windows.look)(key, *chosen)
        assert decision.is_refused == (is_call and not model.has_room(*chosen))
        if decision.is_refused:
            _check_refusal(decision, clock, lambda model=model, chosen=chosen: model.has_room(*chosen))
        elif is_call:
            model.add()
        assert decision.limit == chosen[0]
        assert decision.remaining == max(0, chosen[0] - model.in_hour())
        assert decision.reset == (clock.wall() // HOUR + 1) * 3_600


def _check_refusal(decision: Decision, clock: Clock, has_room: Callable[[], bool]) -> None:
    """A call passes after Retry-After, and no whole second sooner."""
    clock.passed += (decision.retry_after - 1) * SECOND
    assert decision.retry_after >= 1
    assert not has_room()
    clock.passed += SECOND
    assert has_room()
    clock.passed -= decision.retry_after * SECOND


def test_no_minute_holds_more_calls_than_its_limit_however_they_come() -> None:
    clock = Clock()
    windows = clock.windows()
    passed: list[int] = []
    for _ in range(40_000):
        clock.passed += 7 * MILLISECOND
        if not windows.take("key", 0, 100).is_refused:
            passed.append(clock.passed)
    assert len(passed) >= 400
    assert all(
        later - earlier > 60 * SECOND - 100 * MILLISECOND for earlier, later in zip(passed, passed[100:], strict=False)
    )


def test_the_window_that_stays_full_for_longer_is_named() -> None:
    clock = Clock()
    windows = clock.windows()
    assert not windows.take("key", 1, 1).is_refused
    refused = windows.take("key", 1, 1)
    assert (refused.window, refused.window_limit, refused.retry_after) == ("hour", 1, 1_800 + 5)
    clock.passed += HOUR // 2 - 20 * SECOND
    windows.take("other", 1, 2)
    assert windows.take("other", 0, 1).message == "The limit of 1 requests per minute is used up: try again in 60 s"


def test_a_wall_clock_that_is_put_back_begins_another_hour_and_breaks_no_minute() -> None:
    wall, monotonic = BEGIN, 0
    windows = Windows(lambda: wall, lambda: monotonic)
    assert not windows.take("key", 1, 2).is_refused
    wall -= HOUR
    assert not windows.take("key", 1, 2).is_refused
    wall -= HOUR
    assert windows.take("key", 1, 2).window == "minute"


def test_the_least_recently_used_key_is_forgotten_first(monkeypatch: Any) -> None:
    monkeypatch.setattr(rate_limits, "MAX_CREDENTIALS", 3)
    windows = Clock().windows()
    for key in ("a", "b", "c", "a", "d"):
        windows.take(key, 10, 0)
    assert {key: windows.look(key, 10, 0).remaining for key in ("a", "c", "d")} == {"a": 8, "c": 9, "d": 9}
    assert windows.look("b", 10, 0).remaining == 10
