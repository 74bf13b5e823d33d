import asyncio

import pytest

from ao_server.engine.outbox import Outbox


async def test_what_was_put_is_taken_in_order_and_the_reader_is_woken() -> None:
    outbox: Outbox[int] = Outbox()
    waiting = asyncio.ensure_future(outbox.filled())
    outbox.put(1)
    outbox.put(2)
    await waiting
    assert [outbox.take() for _ in range(len(outbox))] == [1, 2]
    with pytest.raises(IndexError):
        outbox.take()


async def test_a_reader_that_comes_late_does_not_wait_and_one_that_gave_up_is_not_missed() -> None:
    outbox: Outbox[int] = Outbox()
    gone = outbox.filled()
    gone.cancel()
    outbox.put(1)
    await asyncio.wait_for(outbox.filled(), 1)
    assert outbox.take() == 1
