"""How many calls a credential may make: so many in an hour of the clock, and so many in any minute."""

import time
from array import array
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from agent_orchestration.shared_rates import SharedWindows

HOUR_SECONDS: Final = 3600
# The least recently used credential beyond it begins anew.
MAX_CREDENTIALS: Final = 10_000
# The minute is counted in parts of a tenth of a second: a call counts for 59.9 to 60 s, so that nobody waits for longer
# than a minute.
_SECOND: Final = 1_000_000_000
_BUCKET: Final = _SECOND // 10
_HOUR: Final = HOUR_SECONDS * _SECOND
_SLOTS: Final = 60 * _SECOND // _BUCKET


class Limits(NamedTuple):
    """The most calls in an hour and in a minute; 0 for no limit."""

    per_hour: int
    per_minute: int


@dataclass(slots=True)
class Decision:
    """Whether a call may be made, and what is left.

    `limit`, `remaining` and `reset` (seconds since 1970) are of the hour; without a limit of the hour, `limit` is 0.
    A refusal names its `window` and the limit of that, and after how many whole seconds a call would pass.
    """

    limit: int
    remaining: int
    reset: int
    window: str = ""
    window_limit: int = 0
    retry_after: int = 0

    @property
    def is_refused(self) -> bool:
        """Whether the call may not be made."""
        return bool(self.window)

    @property
    def message(self) -> str:
        """What the refused caller is told."""
        limit = f"{self.window_limit} requests per {self.window}"
        return f"The limit of {limit} is used up: try again in {self.retry_after} s"

    def refuse(self, hour: int, minute: int, per_minute: int) -> None:
        """Names the window that stays full for longer: for how many nanoseconds, 0 when it is not full."""
        self.window, self.window_limit = ("hour", self.limit) if hour >= minute else ("minute", per_minute)
        self.retry_after = -(-max(hour, minute) // _SECOND)


class Windows:
    """Counts calls in memory. A refused one counts nowhere."""

    def __init__(
        self, wall: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        """Both in nanoseconds. `wall`, since 1970, says which hour of the clock it is; the minute is `monotonic`."""
        self._wall = wall
        self._monotonic = monotonic
        self._counts: OrderedDict[str, _Counts] = OrderedDict()

    def take(self, key: str, per_hour: int, per_minute: int) -> Decision:
        """Counts a call, if both windows have room for one."""
        return self._decide(key, per_hour, per_minute, True)

    def look(self, key: str, per_hour: int, per_minute: int) -> Decision:
        """What is left, counting nothing. It is no refusal."""
        return self._decide(key, per_hour, per_minute, False)

    def _decide(self, key: str, per_hour: int, per_minute: int, is_call: bool) -> Decision:
        now, monotonic = self._wall(), self._monotonic()
        hour, bucket = now // _HOUR, monotonic // _BUCKET
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = _Counts(hour, bucket)
            if len(self._counts) > MAX_CREDENTIALS:
                self._counts.popitem(last=False)
        else:
            self._counts.move_to_end(key)
            counts.move_on(hour, bucket)
        decision = Decision(per_hour, per_hour - counts.in_hour, (hour + 1) * HOUR_SECONDS)
        if is_call:
            is_minute_full = 0 < per_minute <= counts.in_minute
            if is_minute_full or 0 < per_hour <= counts.in_hour:
                _refuse(decision, counts, now, monotonic, per_minute if is_minute_full else 0)
            else:
                counts.add(bucket)
                decision.remaining -= 1
        if decision.remaining < 0:
            decision.remaining = 0
        return decision


class RateLimits:
    """The limits in force: those of a credential's own before those for all."""

    def __init__(self, limits: Limits, windows: Windows | None = None, shared: "SharedWindows | None" = None) -> None:
        """With `shared`, which it owns, `windows` decide only while that is away."""
        self._limits = limits
        self._windows = windows or Windows()
        self._shared = shared

    async def take(self, credential_id: str, per_hour: int | None, per_minute: int | None) -> Decision:
        """Counts a call of the credential, if there is room for one."""
        limits = self._in_force(per_hour, per_minute)
        if self._shared is not None and any(limits):
            decision = await self._shared.decide(credential_id, *limits, is_call=True)
            if decision is not None:
                if not decision.is_refused:
                    # So that it is known here when Redis goes away.
                    self._windows.take(credential_id, *limits)
                return decision
        return self._windows.take(credential_id, *limits)

    async def look(self, credential_id: str, per_hour: int | None, per_minute: int | None) -> Decision:
        """What is left, for an answer to a call that is not counted."""
        limits = self._in_force(per_hour, per_minute)
        # Only what is left of the hour is told.
        if self._shared is not None and limits.per_hour:
            decision = await self._shared.decide(credential_id, *limits, is_call=False)
            if decision is not None:
                return decision
        return self._windows.look(credential_id, *limits)

    async def close(self) -> None:
        """Ends the connections to Redis, if there are any."""
        if self._shared is not None:
            await self._shared.close()

    def _in_force(self, per_hour: int | None, per_minute: int | None) -> Limits:
        return Limits(
            self._limits.per_hour if per_hour is None else per_hour,
            self._limits.per_minute if per_minute is None else per_minute,
        )


def in_memory_or_shared(limits: Limits, redis_url: str | None) -> RateLimits:
    """Limits counted in memory, or in Redis when there is a URL."""
    if redis_url is None:
        return RateLimits(limits)
    # What it imports comes with an extra.
    from agent_orchestration.shared_rates import SharedWindows

    return RateLimits(limits, shared=SharedWindows(redis_url))


class _Counts:
    """The calls of one credential."""

    __slots__ = ("_buckets", "_oldest", "hour", "in_hour", "in_minute")

    def __init__(self, hour: int, bucket: int) -> None:
        self.hour: int = hour
        self.in_hour: int = 0
        self.in_minute: int = 0
        self._buckets = array("I", bytes(_SLOTS * array("I").itemsize))
        # No bucket before it holds a call that still counts.
        self._oldest = bucket

    def move_on(self, hour: int, bucket: int) -> None:
        """Forgets what lies behind."""
        if hour != self.hour:
            self.hour, self.in_hour = hour, 0
        first = bucket - _SLOTS + 1
        while self._oldest < first and self.in_minute:
            slot = self._oldest % _SLOTS
            self.in_minute -= self._buckets[slot]
            self._buckets[slot] = 0
            self._oldest += 1
        if not self.in_minute:
            self._oldest = bucket

    def add(self, bucket: int) -> None:
        """Counts a call."""
        self.in_hour += 1
        self.in_minute += 1
        self._buckets[bucket % _SLOTS] += 1

    def room_at(self, per_minute: int) -> int:
        """When the minute has room for a call, in monotonic nanoseconds; it is full."""
        left = self.in_minute
        bucket = self._oldest
        while True:
            left -= self._buckets[bucket % _SLOTS]
            if left < per_minute:
                return (bucket + _SLOTS) * _BUCKET
            bucket += 1


def _refuse(decision: Decision, counts: _Counts, now: int, monotonic: int, per_minute: int) -> None:
    """Refuses the call; `per_minute` is 0 when the minute is not full."""
    minute = counts.room_at(per_minute) - monotonic if per_minute else 0
    hour = decision.reset * _SECOND - now if 0 < decision.limit <= counts.in_hour else 0
    decision.refuse(hour, minute, per_minute)
