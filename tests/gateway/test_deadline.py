import asyncio

from ao_gateway.deadline import Deadline

DEADLINE = 10.0


async def test_only_what_was_set_last_is_called_and_not_before_its_time() -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    called = asyncio.Queue[tuple[str, float]]()
    deadline = Deadline()

    def then(name: str) -> None:
        called.put_nowait((name, loop.time() - begin))

    deadline.set(0.01, lambda: then("sooner"))
    deadline.set(0.05, lambda: then("later"))
    async with asyncio.timeout(DEADLINE):
        name, after = await called.get()
        assert name == "later"
        assert after > 0.04
        deadline.set(60, lambda: then("much later"))
        deadline.set(0.01, lambda: then("sooner"))
        assert (await called.get())[0] == "sooner"
    deadline.set(0.01, lambda: then("cleared"))
    deadline.clear()
    await asyncio.sleep(0.03)
    deadline.set(0.01, lambda: then("closed"))
    deadline.close()
    await asyncio.sleep(0.03)
    assert called.empty()
