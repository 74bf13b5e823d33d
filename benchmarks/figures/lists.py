"""A list of 20 with its total over 1,000,000 tasks: milliseconds of the slowest of all filters, pairs and pages, p50.

Measured is the servicer's own `ListTasks` in this process, on a store of its own: from the request message to the
answer as bytes, with every read of the store, without the gRPC transport, which is the same for every call. The value
is the worst median over all combinations of at most two filters with pages 1, 2, 10, 50, 100 and the last. Each is
asked once before it is timed: totals are counted when a combination is first asked for.
`python -m benchmarks.figures.lists` prints every combination.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, Final

from agent_orchestration.v1 import common_pb2, tasks_pb2
from ao_server.api import calls
from ao_server.api.tasks import TaskServicer
from ao_server.engine.access import Principal
from ao_server.store.database import Database
from ao_server.store.reader import Reader
from ao_server.store.totals import Totals
from benchmarks import filling, stack
from benchmarks.figure import Figure, Run, constant

WHOLE: Final = 1_000_000
QUICK: Final = 100_000
TIMES: Final = 15
PAGES: Final = (1, 2, 10, 50, 100)
LIMIT: Final = 20

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A combination of filters and a page: milliseconds to the first answer, medians of later ones in time and in
    processor time.
    """

    filters: str
    page: int
    total: int
    first: float
    milliseconds: float
    processor: float


def measure(run: Run, postgres: bool) -> float:
    """Milliseconds of the slowest combination."""
    with _store(run, postgres) as (url, now):
        asked = asyncio.run(_ask_all(url, now))
    slowest = max(asked, key=lambda each: each.milliseconds)
    run.notes["slowest list"] = f"{slowest.filters or 'no filter'}, page {slowest.page}"
    run.notes["median list"] = f"{median(each.milliseconds for each in asked):.2f} ms"
    return slowest.milliseconds


@contextmanager
def _store(run: Run, postgres: bool) -> Generator[tuple[str, int]]:
    count = WHOLE if run.scale >= 1.0 else QUICK
    if not postgres:
        path, now = filling.filled(count)
        yield f"sqlite:///{path}", now
        return
    now = time.time_ns() // 1000
    with stack.postgres_url() as url:
        filling.fill(Database(url), count, now)
        yield url, now


async def _ask_all(url: str, now: int) -> list[Asked]:
    database = Database(url)
    totals = Totals(Reader(database))
    nothing: Any = None
    servicer = TaskServicer(nothing, totals, nothing, nothing, nothing, nothing, nothing)
    calls.enter(calls.Call(Principal("bench", filling.PROJECT), "req_bench", None))
    try:
        return [each for fields in _filters(now) for each in await _ask(servicer, fields)]
    finally:
        await totals.stop()
        await database.close()


def _filters(now: int) -> Iterator[Fields]:
    """None, each, and every pair of them."""
    begin = now - filling.DAYS * filling.DAY
    singles: list[Fields] = [
        {"agent_id": filling.AGENT_IDS[7]},
        {"status": tasks_pb2.TASK_STATUS_FAILED},
        {"priority": common_pb2.PRIORITY_HIGH},
        {"type": "type_3"},
        {"agent_type": filling.agent_type(7)},
        {"label": ["env=prod"]},
        {"label": ["team=red"]},
        {"label": ["order"]},
        {"created_after": _time(begin + 3 * filling.DAY + 1_234_567)},
        {"created_before": _time(now - 3 * filling.DAY - 7_654_321)},
        {"agent_id": "agent_that_does_not_exist"},
    ]
    yield {}
    yield from singles
    for one, other in combinations(singles, 2):
        if not one.keys() & other.keys():
            yield {**one, **other}
    yield {"label": ["env=prod", "team=red"]}


async def _ask(servicer: TaskServicer, fields: Fields) -> list[Asked]:
    first_of_all = tasks_pb2.ListTasksRequest(**fields, page=1)
    _, begun = await _timed(servicer, first_of_all)
    # Whatever is counted behind the first question is done with.
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))
    answer, _ = await _timed(servicer, first_of_all)
    pages = answer.pagination.pages
    asked: list[Asked] = []
    for page in sorted({page for page in PAGES if page <= max(1, pages)} | {max(1, pages)}):
        request = tasks_pb2.ListTasksRequest(**fields, page=page)
        answer, first = await _timed(servicer, request)
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))
        expected = min(LIMIT, max(0, answer.pagination.total - (page - 1) * LIMIT))
        assert len(answer.data) == expected, (fields, page, len(answer.data), expected)
        if page == PAGES[1]:
            behind = tasks_pb2.ListTasksRequest(**fields, starting_after=answer.data[0].id)
            told = f"{_told(fields)} starting_after"
            asked.append(Asked(told, 1, answer.pagination.total, 0.0, *await _medians(servicer, behind)))
        first = max(first, begun) if page == 1 else first
        asked.append(Asked(_told(fields), page, answer.pagination.total, first, *await _medians(servicer, request)))
    return asked


async def _medians(servicer: TaskServicer, request: tasks_pb2.ListTasksRequest) -> tuple[float, float]:
    """Milliseconds of time and of processor time."""
    times: list[float] = []
    processor: list[float] = []
    for _ in range(TIMES):
        begun = time.process_time()
        times.append((await _timed(servicer, request))[1])
        processor.append(1e3 * (time.process_time() - begun))
    return median(times), median(processor)


async def _timed(
    servicer: TaskServicer, request: tasks_pb2.ListTasksRequest
) -> tuple[tasks_pb2.ListTasksResponse, float]:
    """The answer, and milliseconds to its bytes."""
    begun = time.perf_counter()
    answer = await servicer.ListTasks(request, None)
    answer.SerializeToString()
    return answer, 1e3 * (time.perf_counter() - begun)


def _told(fields: Fields) -> str:
    return " ".join(f"{name}={value if isinstance(value, str | int | list) else '…'}" for name, value in fields.items())


def _time(microseconds: int) -> dict[str, int]:
    return {"seconds": microseconds // 1_000_000, "nanos": microseconds % 1_000_000 * 1_000}


def _figure(name: str, postgres: bool, must: float, aim: float) -> Figure:
    measured: Callable[[Run], float] = partial(measure, postgres=postgres)
    return Figure(
        name=name,
        unit="ms",
        measure=measured,
        baseline=constant(must),
        must=constant(must),
        aim=constant(aim),
        told=f"must {must} ms, aim {aim} ms",
        is_higher_better=False,
        is_long=True,
    )


FIGURES: Final = [
    _figure("slowest list over 1,000,000 tasks, p50", False, 3.0, 0.5),
    _figure("the same on PostgreSQL", True, 6.0, 1.0),
]


def _detail(postgres: bool, url: str | None) -> None:
    now = time.time_ns() // 1000
    with tempfile.TemporaryDirectory(prefix="ao-bench-") as folder:
        if url is not None:
            asked = asyncio.run(_ask_all(url, now))
        else:
            with _store(Run(Path(folder)), postgres) as (made, now):
                asked = asyncio.run(_ask_all(made, now))
    for each in sorted(asked, key=lambda each: each.milliseconds):
        numbers = f"{each.milliseconds:8.3f} ms {each.processor:8.3f} CPU {each.first:8.1f} first"
        print(f"{numbers}  page {each.page:<6} of {each.total:<8} {each.filters}")


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if "://" in argument]
    _detail("--postgres" in sys.argv, given[0] if given else None)
