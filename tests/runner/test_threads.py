"""Threads for plain functions: as many as there are slots, all at work at a time when there is work for them."""

import threading
from collections.abc import Generator
from functools import partial

import pytest

from agent_runner.threads import Threads

PATIENCE = 20.0


@pytest.fixture
def threads() -> Generator[Threads, None, None]:
    made = Threads("of the test")
    yield made
    made.resize(0)


def _meet(barrier: threading.Barrier) -> None:
    barrier.wait(PATIENCE)


def _wait(event: threading.Event) -> None:
    event.wait(PATIENCE)


def _meeting(threads: Threads, count: int) -> threading.Barrier:
    """So many functions, each of which waits for all of the others and for the test."""
    barrier = threading.Barrier(count + 1)
    for _ in range(count):
        threads.submit(partial(_meet, barrier))
    return barrier


def test_work_that_blocks_runs_side_by_side_in_every_thread(threads: Threads) -> None:
    threads.resize(20)
    for _ in range(3):
        _meeting(threads, 20).wait(PATIENCE)


def test_work_beyond_the_limit_waits_for_a_thread(threads: Threads) -> None:
    threads.resize(1)
    go, order = threading.Event(), list[int]()
    done = threading.Event()
    threads.submit(partial(_wait, go))
    for number in range(5):
        threads.submit(partial(order.append, number))
    threads.submit(done.set)
    assert order == []
    go.set()
    assert done.wait(PATIENCE)
    assert order == [0, 1, 2, 3, 4]


def test_a_higher_limit_serves_what_waits(threads: Threads) -> None:
    threads.resize(1)
    barrier = _meeting(threads, 5)
    threads.resize(5)
    barrier.wait(PATIENCE)


def test_a_lower_limit_ends_threads_and_a_higher_one_starts_them_again(threads: Threads) -> None:
    threads.resize(8)
    _meeting(threads, 8).wait(PATIENCE)
    threads.resize(2)
    for _ in range(5):
        _meeting(threads, 2).wait(PATIENCE)
    threads.resize(8)
    _meeting(threads, 8).wait(PATIENCE)


def test_many_short_ones_are_all_run(threads: Threads) -> None:
    threads.resize(50)
    done = threading.Semaphore(0)
    for _ in range(2_000):
        threads.submit(done.release)
    assert all(done.acquire(timeout=PATIENCE) for _ in range(2_000))
