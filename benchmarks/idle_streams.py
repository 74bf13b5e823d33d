"""`python -m benchmarks.idle_streams agents ADDRESS KEY COUNT`: agents that stay, a connection each.

`... bare`: a server of such streams that does nothing else.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from agent_orchestration.v1 import runners_pb2, runners_pb2_grpc

HELLOS_AT_ONCE: Final = 20
HEARTBEAT_SECONDS: Final = 2.0
# Streams of one process share no connection.
OPTIONS: Final = (("grpc.use_local_subchannel_pool", 1),)


async def _agents(address: str, key: str, count: int) -> None:
    """Connects so many agents, and keeps them."""
    at_once = asyncio.Semaphore(HELLOS_AT_ONCE)
    calls = await asyncio.gather(*(_connected(address, key, number, at_once) for number in range(count)))
    print("connected", flush=True)
    # Not all at once.
    pauses = (HEARTBEAT_SECONDS * number / count for number in range(count))
    await asyncio.gather(*(_live(call, pause) for call, pause in zip(calls, pauses, strict=True)))


async def _connected(address: str, key: str, number: int, at_once: asyncio.Semaphore) -> Any:
    """The stream of an agent that was welcomed."""
    stub: Any = runners_pb2_grpc.RunnerServiceStub(grpc.aio.insecure_channel(address, options=OPTIONS))
    call = stub.Connect(metadata=(("authorization", f"Bearer {key}"),))
    hello = runners_pb2.Hello(type="idle", name=f"agent {number}", instance_id=f"instance_{number}", protocol_version=1)
    hello.task_types.add(name="noop")
    async with at_once:
        await call.write(runners_pb2.ConnectRequest(hello=hello))
        assert await call.read() is not grpc.aio.EOF
    return call


async def _live(call: Any, pause: float) -> None:
    await asyncio.sleep(pause)
    status = 0
    while True:
        status += 1
        await call.write(runners_pb2.ConnectRequest(status=runners_pb2.Status(number=status, capacity=10)))
        assert await call.read() is not grpc.aio.EOF
        await asyncio.sleep(HEARTBEAT_SECONDS)


class _Bare(runners_pb2_grpc.RunnerServiceServicer):
    async def Connect(
        self, request_iterator: AsyncIterator[runners_pb2.ConnectRequest], context: Any
    ) -> AsyncIterator[runners_pb2.ConnectResponse]:
        async for _ in request_iterator:
            yield runners_pb2.ConnectResponse(renewed=runners_pb2.Renewed(number=1))


async def _serve() -> None:
    server = grpc.aio.server()
    runners_pb2_grpc.add_RunnerServiceServicer_to_server(_Bare(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"port {port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if sys.argv[1] == "bare":
            runner.run(_serve())
        else:
            runner.run(_agents(sys.argv[2], sys.argv[3], int(sys.argv[4])))
