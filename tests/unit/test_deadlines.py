import asyncio

from ao_server.api.deadlines import Deadlines

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
