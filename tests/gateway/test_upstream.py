import asyncio
import socket

from ao_gateway.upstream import Upstream


async def test_a_server_that_is_being_started_is_found_once_it_listens() -> None:
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        upstream = Upstream(f"127.0.0.1:{reserved.getsockname()[1]}", lambda: "key")
        waiting = asyncio.create_task(upstream.listening(60))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        reserved.listen()
        await asyncio.wait_for(waiting, 5)
        await upstream.close()


async def test_one_that_does_not_come_is_not_waited_for_without_end_nor_an_address_of_another_kind() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        for address in (f"127.0.0.1:{reserved.getsockname()[1]}", "unix:/nowhere", "dns:///localhost:1"):
            upstream = Upstream(address, lambda: "key")
            await asyncio.wait_for(upstream.listening(0.1), 5)
            await upstream.close()
