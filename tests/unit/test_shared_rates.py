"""Rate limits counted in a real Redis, with time that the test moves."""

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import pytest
from redis import Redis
from structlog.testing import capture_logs

from agent_orchestration import environment
from agent_orchestration.environment import CannotStart, redis_url
from agent_orchestration.rate_limits import Limits, RateLimits, Windows
from agent_orchestration.shared_rates import SharedWindows

SECOND = 1_000_000
# 1,805 s before an hour of the clock ends.
BEGIN = (1_800_000_000 // 3_600 * 3_600 + 1_795) * SECOND


class Clock:
    def __init__(self) -> None:
        self.now = BEGIN

    def windows(self) -> Windows:
        return Windows(lambda: self.now * 1000, lambda: self.now * 1000)


def shared(url: str, prefix: str, clock: Clock) -> SharedWindows:
    # A machine that is busy with other tests is no Redis that is away.
    return SharedWindows(url, prefix=prefix, deadline=10.0, now=lambda: clock.now)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def pair(redis_url: str, clock: Clock) -> AsyncGenerator[tuple[RateLimits, RateLimits]]:
    """Two gateways, as it were, that share limits of 10 an hour and 4 a minute."""
    prefix = f"ao:test:{secrets.token_hex(6)}:"
    both = tuple(RateLimits(Limits(10, 4), clock.windows(), shared(redis_url, prefix, clock)) for _ in range(2))
    yield both[0], both[1]
    for each in both:
        await each.close()


async def test_calls_at_once_through_two_gateways_never_pass_the_limit(
    pair: tuple[RateLimits, RateLimits],
) -> None:
    decisions = await asyncio.gather(*(pair[number % 2].take("key", 50, 0) for number in range(300)))
    passed = [each for each in decisions if not each.is_refused]
    assert sorted(each.remaining for each in passed) == list(range(50))


async def test_two_gateways_tell_the_same_and_refuse_at_the_same_call(
    pair: tuple[RateLimits, RateLimits], clock: Clock
) -> None:
    one, other = pair
    told = [(await each.take("key", None, None)).remaining for each in (one, other, one, other)]
    assert told == [9, 8, 7, 6]
    for each in pair:
        refused = await each.take("key", None, None)
        assert (refused.window, refused.window_limit, refused.retry_after, refused.remaining) == ("minute", 4, 60, 6)
        assert (await each.look("key", None, None)).remaining == 6
    assert not (await other.take("another", None, None)).is_refused
    clock.now += 59 * SECOND
    assert (await one.take("key", None, None)).is_refused
    clock.now += SECOND
    assert (await one.take("key", None, None)).remaining == 5


async def test_the_hour_is_that_of_the_clock_and_outlasts_the_minute(
    pair: tuple[RateLimits, RateLimits], clock: Clock
) -> None:
    one, other = pair
    assert [(await one.take("key", 2, 2)).is_refused for _ in range(3)] == [False, False, True]
    refused = await other.take("key", 2, 2)
    assert (refused.window, refused.retry_after, refused.reset) == ("hour", 1805, BEGIN // SECOND + 1805)
    clock.now += 1805 * SECOND
    assert (await other.take("key", 2, 2)).remaining == 1


async def test_a_key_in_redis_expires_with_its_hour(redis_url: str, clock: Clock) -> None:
    prefix = f"ao:test:{secrets.token_hex(6)}:"
    windows = shared(redis_url, prefix, clock)
    await windows.decide("key", 5, 5, is_call=True)
    with Redis.from_url(redis_url) as client:  # pyright: ignore[reportUnknownMemberType]
        assert 1700 < client.ttl(prefix + "key") <= 1805
    await windows.close()


async def test_the_time_is_that_of_redis(redis_url: str) -> None:
    windows = SharedWindows(redis_url, prefix=f"ao:test:{secrets.token_hex(6)}:", deadline=10.0)
    decision = await windows.decide("key", 5, 0, is_call=True)
    await windows.close()
    assert decision is not None
    assert 0 <= decision.reset - time.time() <= 3601


async def test_without_limits_redis_is_not_asked_and_without_redis_calls_count_here() -> None:
    # Bound, and nobody listens.
    with socket.socket() as nobody, capture_logs() as logs:
        nobody.bind(("127.0.0.1", 0))
        url = f"redis://user:s3cret@127.0.0.1:{nobody.getsockname()[1]}/0"
        limits = RateLimits(Limits(0, 0), shared=SharedWindows(url))
        assert not (await limits.take("free", None, None)).is_refused
        assert logs == []
        decisions = [await limits.take("key", 2, 0) for _ in range(3)]
        await limits.close()
    assert [each.is_refused for each in decisions] == [False, False, True]
    assert [(each["event"], each["log_level"]) for each in logs] == [("redis_away", "warning")]
    assert "s3cret" not in str(logs)


async def test_a_redis_that_answers_nothing_delays_one_call_and_is_used_again_when_it_answers(
    redis_url: str, clock: Clock
) -> None:
    """A way to Redis that is silent first; then it carries."""
    parts = urlsplit(redis_url)
    answers = False

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not answers:
                await reader.read()
                return
            there, back = await asyncio.open_connection(parts.hostname, parts.port)
            await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
        finally:
            writer.close()

    passed = 0.0
    prefix = f"ao:test:{secrets.token_hex(6)}:"
    async with await asyncio.start_server(carry, "127.0.0.1", 0) as way:
        url = f"redis://127.0.0.1:{way.sockets[0].getsockname()[1]}/0"
        windows = SharedWindows(url, prefix=prefix, now=lambda: clock.now, monotonic=lambda: passed)
        limits = RateLimits(Limits(10, 0), clock.windows(), windows)
        with capture_logs() as logs:
            assert [(await limits.take("key", None, None)).remaining for _ in range(3)] == [9, 8, 7]
            answers = True
            assert (await limits.take("key", None, None)).remaining == 6
            passed += 1.0
            # Shared again: Redis knows of none of those.
            assert (await limits.take("key", None, None)).remaining == 9
        await limits.close()
    assert [each["event"] for each in logs] == ["redis_away", "redis_back"]


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://127.0.0.1",
        "redis://",
        "redis://:s3cret@host:port/0",
        "redis://:s3cret@host:70000",
        "redis://:s3cret@host/a",
        "redis://:s3cret@host?socket_timeout=60",
        "redis://:s3cret@[host/0",
        "unix://",
        "unix:///run/redis.sock?db=x",
    ],
)
def test_a_bad_url_is_named_and_not_shown(url: str) -> None:
    with pytest.raises(CannotStart) as refused:
        redis_url({"AGENT_ORCHESTRATION_REDIS_URL": url})
    assert str(refused.value).startswith("AGENT_ORCHESTRATION_REDIS_URL must be redis://")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["redis://host", "rediss://user:pass%40@host:6380/3", "redis://[::1]:6379/", "unix:///run/redis.sock?db=2"]
)
def test_a_good_url_is_taken_and_needs_the_extra(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert redis_url({"AGENT_ORCHESTRATION_REDIS_URL": f" {url}\r\n"}) == url

    def find_nothing(_: str) -> None:
        return None

    monkeypatch.setattr(environment, "find_spec", find_nothing)
    with pytest.raises(CannotStart, match=r"^AGENT_ORCHESTRATION_REDIS_URL needs the extra: .*\[redis\]"):
        redis_url({"AGENT_ORCHESTRATION_REDIS_URL": url})
