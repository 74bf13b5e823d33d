"""B2: messages of 300 B to and fro on one bare bidirectional stream of grpc.aio, between two processes."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from benchmarks.figure import Run
from benchmarks.processes import module

ROUND_TRIPS = 2_000
MESSAGE = b"x" * 300
METHOD = "/bare.Stream/Echo"


def measure(run: Run) -> float:
    """Median seconds of a round trip."""
    with module(__name__, folder=run.folder) as server:
        return asyncio.run(_ping(server.line("port "), run.count(ROUND_TRIPS, 300)))


async def _ping(port: str, round_trips: int) -> float:
    took: list[float] = []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        opened: Any = channel
        call = opened.stream_stream(METHOD)()
        for _ in range(round_trips):
            begin = time.perf_counter()
            await call.write(MESSAGE)
            await call.read()
            took.append(time.perf_counter() - begin)
        await call.done_writing()
    return statistics.median(took)


async def _echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def _serve() -> None:
    server = grpc.aio.server()
    library: Any = grpc
    handler = library.stream_stream_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Stream", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"port {port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
