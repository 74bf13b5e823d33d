"""The endpoint in front of a peer: POST /tasks enqueues one no-op and answers 201, under uvicorn, in one process.

`python front.py MODULE`: the module has `enqueue(number)`, plain or a coroutine function, and may have `startup()`, a
coroutine function too.
"""

import asyncio
import inspect
import sys
from importlib import import_module
from itertools import count

import uvicorn
import uvloop
from stamps import FIRST_OF_LOAD
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def serve(module: str) -> None:
    """Serves until SIGTERM; prints `port N` when it answers."""
    peer = import_module(module)
    numbers = count(FIRST_OF_LOAD)
    is_async = inspect.iscoroutinefunction(peer.enqueue)

    async def create(request: Request) -> JSONResponse:
        payload = (await request.json())["payload"]
        number = payload["number"] if "number" in payload else next(numbers)
        # A plain function is called on the loop: a hop to a thread costs more than the send.
        if is_async:
            await peer.enqueue(number)
        else:
            peer.enqueue(number)
        return JSONResponse({"number": number}, status_code=201)

    if hasattr(peer, "startup"):
        await peer.startup()
    application = Starlette(routes=[Route("/tasks", create, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(application, port=0, access_log=False, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
        await asyncio.sleep(0.01)
    print(f"port {server.servers[0].sockets[0].getsockname()[1]}", flush=True)
    await serving


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
