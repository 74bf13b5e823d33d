"""The link is woken once for all that is said in a turn of the user's loop, and is not kept waiting by a long one."""

import asyncio
import threading
import time

from agent_runner.doorbell import LONG_TURN_SECONDS, Doorbell
from agent_runner.user_loop import UserLoop


class Link:
    """Counts how often it is woken; it does not answer by itself."""

    def __init__(self, user: UserLoop) -> None:
        self.woken = 0
        self.doorbell = Doorbell(user, self._wake)

    def _wake(self) -> None:
        self.woken += 1


def _user() -> UserLoop:
    return UserLoop(asyncio.get_running_loop())


async def _turn() -> None:
    """What is ready now has run afterwards, and what that made ready too."""
    for _ in range(2):
        await asyncio.sleep(0)


async def test_it_is_rung_once_for_a_turn_and_not_before_its_end() -> None:
    link = Link(_user())
    for _ in range(3):
        link.doorbell.ring()
    assert link.woken == 0
    await _turn()
    assert link.woken == 1


async def test_it_is_not_rung_again_before_it_is_answered() -> None:
    link = Link(_user())
    for _ in range(2):
        link.doorbell.ring()
        await _turn()
    assert link.woken == 1
    link.doorbell.answered()
    link.doorbell.ring()
    await _turn()
    assert link.woken == 2


async def test_a_long_turn_keeps_nobody_waiting() -> None:
    link = Link(_user())
    link.doorbell.ring()
    time.sleep(LONG_TURN_SECONDS)  # noqa: ASYNC251 - the loop is to be blocked
    link.doorbell.ring()
    assert link.woken == 1
    await _turn()
    assert link.woken == 1


async def test_another_thread_rings_at_once() -> None:
    link = Link(_user())
    thread = threading.Thread(target=link.doorbell.ring)
    thread.start()
    thread.join()
    assert link.woken == 1


async def test_what_was_said_before_the_loop_blocked_is_heard_from_the_watch() -> None:
    heard = threading.Event()
    user = _user()
    watches: list[asyncio.Task[None]] = []

    def wake() -> None:
        heard.set()
        watches[0].cancel()

    async def watch() -> None:
        watches.append(asyncio.create_task(user.watch(0.001, 20.0)))
        await asyncio.wait(watches)

    doorbell = Doorbell(user, wake)
    doorbell.ring()
    thread = threading.Thread(target=lambda: asyncio.run(watch()))
    thread.start()
    assert heard.wait(20.0)
    thread.join()


class Ringing:
    """Agent code that has something to say in its first step, which is its last."""

    def __init__(self, user: UserLoop, link: Link) -> None:
        self._user = user
        self._link = link

    def begin(self) -> None:
        self._work = self._user.loop.create_task(self._run())

    async def _run(self) -> None:
        self._link.doorbell.ring()

    def look(self) -> None:
        """Nothing to see."""


async def test_what_ends_in_its_first_step_is_said_in_the_same_turn() -> None:
    user = _user()
    link = Link(user)
    for _ in range(3):
        user.begin(Ringing(user, link))
    await asyncio.sleep(0)
    assert link.woken == 0
    await asyncio.sleep(0)
    assert link.woken == 1
    await _turn()
    assert link.woken == 1


async def test_what_ends_while_others_begin_is_said_too() -> None:
    user = _user()
    link = Link(user)
    link.doorbell.ring()
    user.begin(Ringing(user, link))
    await _turn()
    assert link.woken == 1
    link.doorbell.answered()
    link.doorbell.ring()
    await _turn()
    assert link.woken == 2
