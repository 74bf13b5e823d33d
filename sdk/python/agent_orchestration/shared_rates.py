"""Calls counted in Redis, so that every gateway and server knows those that came through the others."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, cast

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from agent_orchestration.rate_limits import Decision

log = structlog.get_logger("agent_orchestration.rates")

PREFIX: Final = "ao:rate:"
# The longest that Redis may take for a call. After a failure Redis is left alone for the pause, then asked by one call.
DEADLINE_SECONDS: Final = 0.1
PAUSE_SECONDS: Final = 1.0
MAX_CONNECTIONS: Final = 16

# One hash per credential: `h` + hour of the clock -> its calls, second -> its calls. The minute is counted in whole
# seconds: a call counts for 59 to 60 s. Times in microseconds; without one given the clock is that of Redis, so that
# those who share need not agree on theirs. Returns the calls in the hour, the seconds since 1970 at its end, and for
# how long hour and minute stay full, 0 if they are not.
_SCRIPT: Final = """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local per_hour, per_minute, is_call = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local second = math.floor(now / 1000000)
local hour = math.floor(second / 3600)
local hour_ends = (hour + 1) * 3600
local in_hour, in_minute, buckets, old = 0, 0, {}, {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local name, count = fields[i], tonumber(fields[i + 1])
  local bucket = tonumber(name)
  if name == 'h' .. hour then
    in_hour = count
  elseif bucket and second - 60 < bucket and bucket <= second then
    in_minute = in_minute + count
    buckets[#buckets + 1] = {bucket, count}
  else
    old[#old + 1] = name
  end
end
local hour_wait, minute_wait = 0, 0
if is_call then
  if 0 < per_hour and per_hour <= in_hour then hour_wait = hour_ends * 1000000 - now end
  if 0 < per_minute and per_minute <= in_minute then
    table.sort(buckets, function(a, b) return a[1] < b[1] end)
    local left = in_minute
    for _, bucket in ipairs(buckets) do
      left = left - bucket[2]
      if left < per_minute then
        minute_wait = (bucket[1] + 60) * 1000000 - now
        break
      end
    end
  end
  if hour_wait == 0 and minute_wait == 0 then
    if #old > 0 then redis.call('HDEL', KEYS[1], unpack(old)) end
    in_hour = redis.call('HINCRBY', KEYS[1], 'h' .. hour, 1)
    redis.call('HINCRBY', KEYS[1], string.format('%d', second), 1)
    redis.call('EXPIRE', KEYS[1], math.max(hour_ends - second, 60))
  end
end
return {in_hour, hour_ends, hour_wait, minute_wait}
"""


class SharedWindows:
    """Counts calls in one Redis. A refused one counts nowhere. While Redis is away nothing is decided here."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str = PREFIX,
        deadline: float = DEADLINE_SECONDS,
        now: Callable[[], int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`deadline` in seconds. `now`: microseconds since 1970, in place of the clock of Redis. `monotonic`: seconds,
        for the pauses.
        """
        self._prefix = prefix
        self._deadline = deadline
        self._now = now
        self._monotonic = monotonic
        self._is_away = False
        self._ask_again_at = 0.0
        # Waiting here is our own load: it says nothing of Redis, and so is no part of the deadline.
        self._free = asyncio.Semaphore(MAX_CONNECTIONS)
        pool = BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType] - its options have no types
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=deadline,
            socket_connect_timeout=deadline,
            socket_timeout=deadline,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = Redis.from_pool(pool)
        self._script = self._redis.register_script(_SCRIPT)

    async def decide(self, key: str, per_hour: int, per_minute: int, *, is_call: bool) -> Decision | None:
        """Counts a call, if both windows have room for one, or tells what is left, which is no refusal.

        None while Redis is away: for calls that had to learn it, after the deadline.
        """
        async with self._free:
            return await self._ask(key, per_hour, per_minute, is_call)

    async def close(self) -> None:
        """Ends the connections."""
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _ask(self, key: str, per_hour: int, per_minute: int, is_call: bool) -> Decision | None:
        if self._is_away:
            if self._monotonic() < self._ask_again_at:
                return None
            # The others go on without, until this one knows.
            self._ask_again_at = self._monotonic() + PAUSE_SECONDS
        now = "" if self._now is None else self._now()
        try:
            async with asyncio.timeout(self._deadline):
                answer = await self._script(keys=[self._prefix + key], args=[now, per_hour, per_minute, int(is_call)])
        # TimeoutError is an OSError.
        except (RedisError, OSError) as error:
            self._failed(error)
            return None
        if self._is_away:
            self._is_away = False
            log.info("redis_back", effect="rate limits are shared again")
        in_hour, hour_ends, hour_wait, minute_wait = cast("list[int]", answer)
        decision = Decision(per_hour, max(0, per_hour - in_hour), hour_ends)
        if hour_wait or minute_wait:
            decision.refuse(hour_wait * 1000, minute_wait * 1000, per_minute)
        return decision

    def _failed(self, error: Exception) -> None:
        self._ask_again_at = self._monotonic() + PAUSE_SECONDS
        if not self._is_away:
            self._is_away = True
            # What the library says of it may hold the URL's user; the kind is enough.
            log.warning("redis_away", error=type(error).__name__, effect="each process counts rate limits by itself")
