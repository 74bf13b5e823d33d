"""The lease as the runner sees it, against a model of what servers may do.

The promise: whenever a server hands out what the instance holds, the instance's own clock has run out before. And
while no server is up, it does not run out, however long that takes.
"""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_runner.lease import HELLO, MARGIN_SECONDS, LeaseClock

LEASE = 15.0


@dataclass
class Servers:
    """Servers that come and go one after the other, and the instance's lease as they see it."""

    now: float = 0.0
    is_up: bool = True
    expires_at: float = LEASE
    has_handed_out: bool = False

    def advance(self, seconds: float) -> None:
        self.now += seconds
        if self.is_up and self.now >= self.expires_at:
            self.has_handed_out = True

    def kill(self) -> None:
        self.is_up = False

    def start(self) -> None:
        if not self.is_up:
            self.is_up = True
            self.expires_at = self.now + LEASE

    def hear(self) -> bool:
        """A status arrives; whether it renews the lease."""
        if self.is_up and not self.has_handed_out:
            self.expires_at = self.now + LEASE
            return True
        return False


@dataclass
class World:
    """One instance and its servers. Every step takes the time that it is given."""

    servers: Servers = field(default_factory=Servers)
    clock: LeaseClock = field(default_factory=LeaseClock)
    number: int = 0
    connected: bool = True
    # Answers on their way: they count for the instance only when it reads them.
    answers: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self.clock.sent(HELLO, self.servers.now)
        self.clock.welcomed(LEASE)

    def check(self) -> None:
        if self.servers.has_handed_out:
            assert self.clock.is_expired(self.servers.now), "two attempts at once"

    def status(self, delay: float) -> None:
        """Sends a status that arrives after the delay, if the stream and the server last so long."""
        if not self.connected:
            return
        self.number += 1
        self.clock.sent(self.number, self.servers.now)
        self.servers.advance(delay)
        if self.servers.hear():
            self.answers.append(self.number)

    def read(self, delay: float) -> None:
        self.servers.advance(delay)
        for number in self.answers:
            self.clock.renewed(number)
        self.answers.clear()

    def connect(self, delay: float) -> None:
        """Tries to connect; whether that is refused shows after the delay. The hello gets lost."""
        began = self.servers.now
        self.connected = False
        self.answers.clear()
        was_up = self.servers.is_up
        self.servers.advance(delay)
        if was_up:
            self.clock.up(began)
        else:
            self.clock.down(began)

    def stop_server(self, delay: float) -> None:
        """The server says that it stops, and does; the instance reads it after the delay, unless it is cut off."""
        if self.servers.is_up and self.connected:
            self.clock.down(self.servers.now)
        self.servers.kill()
        self.servers.advance(delay)

    def kill_server(self, delay: float) -> None:
        self.servers.kill()
        self.servers.advance(delay)

    def start_server(self, delay: float) -> None:
        self.servers.start()
        self.servers.advance(delay)

    def wait(self, delay: float) -> None:
        self.servers.advance(delay)


STEPS = [World.status, World.read, World.connect, World.stop_server, World.kill_server, World.start_server, World.wait]
SECONDS = st.one_of(st.floats(0, 3), st.floats(0, 40))


@given(st.lists(st.tuples(st.sampled_from(STEPS), SECONDS), max_size=40))
def test_it_runs_out_before_a_server_hands_anything_out(steps: list[tuple[object, float]]) -> None:
    world = World()
    for step, seconds in steps:
        assert callable(step)
        step(world, seconds)
        world.check()


@given(st.lists(st.floats(0, LEASE - MARGIN_SECONDS - 0.1), min_size=1), st.floats(0, LEASE - MARGIN_SECONDS - 0.1))
def test_it_stands_still_from_refusal_to_refusal_however_long(pauses: list[float], elapsed: float) -> None:
    clock = LeaseClock()
    clock.sent(HELLO, 0.0)
    clock.welcomed(LEASE)
    now = elapsed
    for pause in pauses:
        clock.down(now)
        now += pause
        assert not clock.is_expired(now)
    clock.up(now)
    left_before = LEASE - MARGIN_SECONDS - elapsed
    # All that was left is left, but for the time in which a server may have been up unseen.
    assert clock.deadline - now == pytest.approx(min(left_before, LEASE - MARGIN_SECONDS - pauses[-1]))


def test_it_counts_from_the_sending_of_what_was_answered() -> None:
    clock = LeaseClock()
    assert clock.deadline == math.inf
    clock.sent(HELLO, 100.0)
    clock.welcomed(LEASE)
    assert clock.deadline == 100.0 + LEASE - MARGIN_SECONDS
    clock.sent(1, 105.0)
    clock.sent(2, 110.0)
    clock.renewed(1)
    assert clock.deadline == 105.0 + LEASE - MARGIN_SECONDS
    clock.renewed(7)
    assert clock.deadline == 105.0 + LEASE - MARGIN_SECONDS
    assert not clock.is_expired(118.9)
    assert clock.is_expired(119.0)


def test_silence_resets_and_a_living_proxy_let_it_run() -> None:
    clock = LeaseClock()
    clock.sent(HELLO, 0.0)
    clock.welcomed(LEASE)
    for at in range(1, 14):
        clock.up(float(at))
    assert clock.is_expired(14.0)


def test_a_stopped_process_finds_itself_expired() -> None:
    """Refused, then SIGSTOP for a minute: a server may have come and handed out everything meanwhile."""
    clock = LeaseClock()
    clock.sent(HELLO, 0.0)
    clock.welcomed(LEASE)
    clock.down(5.0)
    assert clock.is_expired(65.0)
    clock.down(65.0)
    assert clock.is_expired(65.0), "a refusal afterwards does not bring it back"


def test_nothing_expires_after_it_was_given_up() -> None:
    clock = LeaseClock()
    clock.sent(HELLO, 0.0)
    clock.welcomed(LEASE)
    clock.sent(1, 5.0)
    clock.lapse()
    clock.renewed(1)
    assert not clock.is_expired(1000.0)
    clock.down(1000.0)
    clock.up(1001.0)
    assert not clock.is_expired(5000.0)
    clock.sent(HELLO, 5000.0)
    clock.welcomed(LEASE)
    assert clock.is_expired(5014.0)
