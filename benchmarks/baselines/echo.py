"""B1: bare Starlette in front of a bare grpc.aio unary echo, two processes, 32 connections kept alive, 300 B."""

import asyncio
import socket
import sys
from typing import Any

import grpc
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks import load
from benchmarks.figure import Run
from benchmarks.processes import module

CONNECTIONS = 32
SECONDS = 4.0
BODY = b"x" * 300
METHOD = "/bare.Echo/Echo"


def measure(run: Run) -> float:
    """Requests per second."""
    with (
        module(__name__, "server", folder=run.folder) as server,
        module(__name__, "gateway", server.line("port "), folder=run.folder) as gateway,
    ):
        url = f"http://127.0.0.1:{gateway.line('port ')}/"
        load.post(url, BODY, connections=CONNECTIONS, seconds=0.5)
        return load.post(url, BODY, connections=CONNECTIONS, seconds=max(1.0, SECONDS * run.scale)).a_second


async def _echo(request: bytes, context: Any) -> bytes:
    return request


async def _serve_grpc() -> None:
    server = grpc.aio.server()
    library: Any = grpc
    handler = library.unary_unary_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"port {port}", flush=True)
    await server.wait_for_termination()


async def _serve_http(port: str) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        opened: Any = channel
        call = opened.unary_unary(METHOD)

        async def echo(request: Request) -> Response:
            return Response(await call(await request.body()))

        application = Starlette(routes=[Route("/", echo, methods=["POST"])])
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        print(f"port {listening.getsockname()[1]}", flush=True)
        await uvicorn.Server(uvicorn.Config(application, access_log=False, log_config=None)).serve([listening])


def _main() -> None:
    import uvloop

    work = _serve_grpc() if sys.argv[1] == "server" else _serve_http(sys.argv[2])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


if __name__ == "__main__":
    _main()
