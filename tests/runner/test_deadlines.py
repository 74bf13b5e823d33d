"""One timer for many deadlines: each comes when it is due, unless it was cleared or set anew."""

import asyncio

from agent_runner.deadlines import SWEEP_AT, Deadlines

PATIENCE = 20.0


async def test_they_come_in_order_of_time() -> None:
    came: asyncio.Queue[str] = asyncio.Queue()
    deadlines: Deadlines[str] = Deadlines(asyncio.get_running_loop())
    for key, seconds in (("late", 0.03), ("early", 0.01), ("between", 0.02), ("at once", 0.0)):
        deadlines.set(key, seconds, came.put_nowait)
    async with asyncio.timeout(PATIENCE):
        assert [await came.get() for _ in range(4)] == ["at once", "early", "between", "late"]


async def test_what_was_cleared_or_set_anew_does_not_come() -> None:
    came: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    deadlines: Deadlines[str] = Deadlines(asyncio.get_running_loop())
    deadlines.set("cleared", 0.0, lambda key: came.put_nowait((key, "first")))
    deadlines.set("moved", 0.0, lambda key: came.put_nowait((key, "first")))
    deadlines.set("moved", 0.02, lambda key: came.put_nowait((key, "second")))
    deadlines.set("kept", 0.01, lambda key: came.put_nowait((key, "first")))
    deadlines.clear("cleared")
    deadlines.clear("never set")
    async with asyncio.timeout(PATIENCE):
        assert [await came.get() for _ in range(2)] == [("kept", "first"), ("moved", "second")]
    assert came.empty()


async def test_an_action_may_clear_and_set_others() -> None:
    came: asyncio.Queue[str] = asyncio.Queue()
    deadlines: Deadlines[str] = Deadlines(asyncio.get_running_loop())

    def first(key: str) -> None:
        came.put_nowait(key)
        deadlines.clear("second")
        deadlines.set("first", 0.01, came.put_nowait)

    deadlines.set("first", 0.0, first)
    deadlines.set("second", 0.0, came.put_nowait)
    async with asyncio.timeout(PATIENCE):
        assert [await came.get() for _ in range(2)] == ["first", "first"]
    assert came.empty()


async def test_nothing_comes_once_all_are_cleared() -> None:
    came: list[str] = []
    loop = asyncio.get_running_loop()
    deadlines: Deadlines[str] = Deadlines(loop)
    deadlines.set("one", 0.0, came.append)
    deadlines.clear_all()
    after = asyncio.Event()
    loop.call_later(0.02, after.set)
    await after.wait()
    assert came == []


async def test_memory_follows_what_is_set_and_not_what_was() -> None:
    deadlines: Deadlines[int] = Deadlines(asyncio.get_running_loop())
    for key in range(10 * SWEEP_AT):
        deadlines.set(key, 3600.0, lambda _: None)
        deadlines.clear(key)
    assert len(deadlines._heap) <= SWEEP_AT + 2  # pyright: ignore[reportPrivateUsage] - nothing else shows it
    deadlines.clear_all()
