import asyncio
from collections.abc import AsyncIterator
from typing import cast

from google.rpc import code_pb2, status_pb2

from agent_orchestration.v1 import relay_pb2
from ao_server.api.deadlines import Deadlines
from ao_server.api.methods import Methods
from ao_server.api.relay import RelayServicer

DEADLINE = 10.0


async def test_only_the_tasks_whose_time_is_over_are_cancelled() -> None:
    deadlines = Deadlines()
    ended: list[tuple[str, bool]] = []

    async def run(name: str, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        deadlines.start(task, seconds)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append((name, deadlines.is_over(task)))
        finally:
            deadlines.finish(task)

    tasks = [asyncio.create_task(run(name, seconds)) for name, seconds in (("c", 60), ("b", 0.06), ("a", 0.02))]
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*tasks[1:])
        assert ended == [("a", True), ("b", True)]
        tasks[0].cancel()
        await tasks[0]
    assert ended[2:] == [("c", False)]


async def test_a_relayed_call_is_answered_when_its_time_is_over() -> None:
    class Slow:
        async def relayed(self, *call: object) -> bytes:
            await asyncio.Event().wait()
            return b""

    async def requests() -> AsyncIterator[relay_pb2.RelayRequest]:
        request = relay_pb2.RelayRequest()
        request.calls.add(id=7).timeout.FromMilliseconds(20)
        yield request
        await asyncio.Event().wait()

    servicer = RelayServicer(cast(Methods, Slow()))
    stream = servicer.Relay(requests(), None)
    async with asyncio.timeout(DEADLINE):
        response = await anext(aiter(stream))
        await servicer.idle()
    assert response.replies[0].id == 7
    status = status_pb2.Status.FromString(response.replies[0].status)
    assert status.code == code_pb2.DEADLINE_EXCEEDED
