"""What becomes of whatever agent code returns, raises and reports."""

import asyncio
import contextvars
import functools
import json
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from agent_orchestration.v1 import common_pb2, runners_pb2
from agent_runner import Agent, NotRetryable, Task, TaskError
from agent_runner.calls import Handler
from agent_runner.task import MAX_LINE_BYTES
from tests.runner.bench import PATIENCE, Bench, agent_with, asynchronous, bench, outcome_of, plain


def raises(error: BaseException) -> Handler:
    def function(task: Task) -> None:
        raise error.with_traceback(None)

    return function


class OddText(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class OddComparison:
    """Like an array, which compares item by item."""

    def __eq__(self, other: object) -> bool:
        raise ValueError

    def __bool__(self) -> bool:
        raise ValueError


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


RETURNED: list[tuple[Any, str]] = [
    (None, "{}"),
    ({}, "{}"),
    ({"big": 2**70, "text": "ä\0\n", "float": 1.0}, '{"big":1180591620717411303424,"text":"ä\\u0000\\n","float":1.0}'),
    ({"a": "x" * (1024 * 1024 - 8)}, '{"a":"' + "x" * (1024 * 1024 - 8) + '"}'),
]
NOT_TAKEN: list[tuple[Any, str, str]] = [
    ([1], "invalid_result", "must return a dict or None, not list"),
    ("text", "invalid_result", "not str"),
    (OddComparison(), "invalid_result", "not OddComparison"),
    ({"set": {1}}, "invalid_result", "TypeError: Object of type set is not JSON serializable"),
    ({"nan": float("nan")}, "invalid_result", "Out of range float values"),
    ({"text": "\udc80"}, "invalid_result", "lone surrogate"),
    ({(1, 2): 3}, "invalid_result", "keys must be str"),
    ({"digits": 10**5000}, "invalid_result", "ValueError"),
    (nested(sys.getrecursionlimit() * 50), "invalid_result", "RecursionError"),
    ({"a": "x" * (1024 * 1024 - 7)}, "result_too_large", "1,048,577 bytes of JSON"),
]
RAISED: list[tuple[BaseException, str]] = [
    (ValueError("no such file"), "ValueError: no such file"),
    (ValueError(), "ValueError"),
    (SystemExit(1), "SystemExit: 1"),
    (KeyboardInterrupt(), "KeyboardInterrupt"),
    (asyncio.CancelledError("mine"), "CancelledError: mine"),
    (GeneratorExit(), "GeneratorExit"),
    (OddText(), "OddText: <OddText, whose text cannot be made: RuntimeError>"),
    (ValueError("\0\udc80"), "ValueError: \ufffd\\udc80"),
]
BOTH_KINDS = pytest.mark.parametrize("kind", [plain, asynchronous])


@BOTH_KINDS
@pytest.mark.parametrize(("value", "text"), RETURNED, ids=str)
async def test_what_is_returned_is_the_result(kind: Callable[[Handler], Handler], value: Any, text: str) -> None:
    assert (await outcome_of(kind(lambda task: value))).result == text


@BOTH_KINDS
@pytest.mark.parametrize(("value", "code", "message"), NOT_TAKEN, ids=[message for _, _, message in NOT_TAKEN])
async def test_what_json_cannot_hold_fails_with_a_message_that_helps(
    kind: Callable[[Handler], Handler], value: Any, code: str, message: str
) -> None:
    failure = (await outcome_of(kind(lambda task: value))).failure
    assert failure.code == code
    assert message in failure.message


@BOTH_KINDS
@pytest.mark.parametrize(("error", "message"), RAISED, ids=[message for _, message in RAISED])
async def test_what_is_raised_fails_the_task_and_nothing_else(
    kind: Callable[[Handler], Handler], error: BaseException, message: str
) -> None:
    bench = Bench(agent_with(kind(raises(error))))
    failure = (await bench.run("work")).failure
    assert (failure.code, failure.message) == ("task_error", message)
    text = [line.message for line in bench.lines]
    assert text[0] == "Traceback (most recent call last):"
    assert any("in function" in line for line in text)
    assert not any("agent_runner" in line for line in text)
    assert {line.level for line in bench.lines} == {common_pb2.LOG_LEVEL_ERROR}


class Declined(NotRetryable):
    code = "declined"


class OddCode(TaskError):
    code = 5  # pyright: ignore[reportAssignmentType] - agent code may do so


@BOTH_KINDS
@pytest.mark.parametrize(
    ("error", "code", "message", "is_final"),
    [
        (TaskError("no stock", code="no_stock"), "no_stock", "no stock", False),
        (TaskError(), "task_error", "TaskError", False),
        (NotRetryable("bad input"), "task_error", "bad input", True),
        (NotRetryable("bad input", code="bad_input"), "bad_input", "bad input", True),
        (Declined("by the bank"), "declined", "Declined: by the bank", True),
        (OddCode("odd"), "task_error", "OddCode: odd", False),
    ],
    ids=str,
)
async def test_code_may_say_how_it_failed_and_that_trying_again_is_no_use(
    kind: Callable[[Handler], Handler], error: TaskError, code: str, message: str, is_final: bool
) -> None:
    failure = (await outcome_of(kind(raises(error)))).failure
    assert (failure.code, failure.message, failure.not_retryable) == (code, message, is_final)


async def test_a_cause_is_kept_and_speaks_where_the_error_does_not() -> None:
    def work(task: Task) -> None:
        try:
            raise ValueError("the cause")
        except ValueError as error:
            raise NotRetryable from error

    async with bench(agent_with(work)) as made:
        failure = (await made.run("work")).failure
        assert (failure.message, failure.not_retryable) == ("ValueError: the cause", True)
        assert "ValueError: the cause" in made.text


@pytest.mark.parametrize("code", ["", "two words", "x" * 101, "ä", "nul\0", 5])
def test_odd_codes_raise_where_they_are_given(code: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="code must"):
        TaskError("x", code=code)


async def test_the_agent_of_a_task_with_the_settings_that_are_stored_when_it_begins() -> None:
    def work(task: Task) -> dict[str, Any]:
        task.agent.configuration["mine"] = "alone"
        return {"agent": [task.agent.id, task.agent.name, task.agent.type], "stored": task.agent.configuration}

    async with bench(agent_with(work), configuration='{"a": 1}') as made:
        expected = '{"agent":["agent_1","Worker","worker"],"stored":{"a":%d,"mine":"alone"}}'
        for number in (1, 1):
            assert (await made.run("work")).result == expected % number
        made.instance.configure(runners_pb2.Configure(configuration='{"a": 2}', max_concurrent_tasks=10))
        assert (await made.run("work")).result == expected % 2


async def test_hello_says_what_tasks_there_are() -> None:
    agent = Agent("Worker", "worker")

    @agent.task("a", description="does a", schema={"type": "object"})
    @agent.task("b", default=True)
    def took(task: Task) -> dict[str, str]:
        return {"took": task.type}

    async with bench(agent) as made:
        said = [(each.name, each.description, each.schema) for each in made.hello.task_types]
        assert said == [("b", "", ""), ("*", "", ""), ("a", "does a", '{"type": "object"}')]
        assert (await made.run("other")).result == '{"took":"other"}'


async def test_long_errors_are_cut_and_deep_tracebacks_shortened() -> None:
    def recurse(task: Task, depth: int = 0) -> None:
        if depth == 400:
            raise ValueError("x" * 10_000_000)
        return recurse(task, depth + 1) if depth % 2 else also(task, depth + 1)

    def also(task: Task, depth: int) -> None:
        recurse(task, depth)

    bench = Bench(agent_with(recurse))
    message = (await bench.run("work")).failure.message
    assert len(message) <= 4096
    assert message.startswith("ValueError: xxx")
    assert message.endswith("... [cut, 10,000,012 characters in all]")
    assert len(bench.lines) <= 201
    assert all(len(line.message.encode()) <= MAX_LINE_BYTES for line in bench.lines)


async def test_types_without_a_function() -> None:
    agent = agent_with(lambda task: {"type": task.type})
    bench = Bench(agent)
    failure = (await bench.run("other")).failure
    assert (failure.code, failure.message) == ("no_handler", "no function is registered for 'other', only for work")

    def any_type(task: Task) -> dict[str, str]:
        return {"any": task.type}

    agent.task("*")(any_type)
    assert (await Bench(agent).run("other")).result == '{"any":"other"}'


def registered(*types: str, default: bool = False) -> Agent:
    """An agent with a function for each type, which says its name; with `default` the last one takes any other."""
    agent = Agent("Worker", "worker")
    for type_ in types:

        def says(task: Task, name: str = type_) -> dict[str, str]:
            return {name: task.type}

        agent.task(type_, default=default and type_ == types[-1])(says)
    return agent


@pytest.mark.parametrize(
    ("agent", "listed", "result"),
    [
        (registered("work"), ["work", "default"], '{"work":"default"}'),
        (registered("*"), ["*"], '{"*":"default"}'),
        (registered("work", "rest", default=True), ["work", "rest", "*"], '{"rest":"default"}'),
        (registered("default"), ["default"], '{"default":"default"}'),
        (registered("work", "default"), ["work", "default"], '{"default":"default"}'),
        (registered("default", "*"), ["default", "*"], '{"default":"default"}'),
        (registered("work", "other"), ["work", "other"], None),
    ],
)
async def test_tasks_of_steps_without_a_type_go_to_the_default_or_only_function(
    agent: Agent, listed: list[str], result: str | None
) -> None:
    async with bench(agent) as made:
        assert [each.name for each in made.hello.task_types] == listed
        outcome = await made.run("default")
        assert (outcome.result or None) == result
        if result is None:
            assert outcome.failure.code == "no_handler"


async def test_the_task_that_a_function_gets() -> None:
    def work(task: Task) -> dict[str, Any]:
        assert task.payload is task.payload
        return {"all": [task.id, task.type, task.attempt, task.agent_id, task.cancelled], "payload": task.payload}

    big = 10**4000
    outcome = await outcome_of(work, f'{{"big": {big}, "one": 1.0, "twice": 1, "twice": 2}}')
    assert json.loads(outcome.result) == {
        "all": ["task_1", "work", 1, "agent_1", False],
        "payload": {"big": big, "one": 1.0, "twice": 2},
    }


async def test_a_coroutine_behind_a_plain_function_is_explained() -> None:
    async def hidden() -> None: ...

    failure = (await outcome_of(lambda task: hidden())).failure
    assert failure.code == "invalid_result"
    assert "async def" in failure.message


async def test_async_functions_are_seen_through_partials_and_callables() -> None:
    class Callable_:
        async def __call__(self, task: Task) -> dict[str, bool]:
            return {"main": threading.current_thread() is threading.main_thread()}

    async def work(number: int, task: Task) -> dict[str, bool]:
        return await Callable_()(task)

    assert (await outcome_of(Callable_())).result == '{"main":true}'
    assert (await outcome_of(functools.partial(work, 1))).result == '{"main":true}'


@BOTH_KINDS
async def test_context_variables_of_the_caller_are_seen_and_kept_apart(kind: Callable[[Handler], Handler]) -> None:
    variable = contextvars.ContextVar("variable", default=0)

    def work(task: Task) -> dict[str, int]:
        seen = variable.get()
        variable.set(seen + 1)
        return {"seen": seen}

    variable.set(5)
    bench = Bench(agent_with(kind(work)))
    for _ in range(2):
        assert (await bench.run("work")).result == '{"seen":5}'


@pytest.mark.parametrize(
    ("percent", "message", "error"),
    [
        (float("nan"), None, ValueError),
        (-0.1, None, ValueError),
        (100.1, None, ValueError),
        (float("inf"), None, ValueError),
        ("50", None, TypeError),
        (None, None, TypeError),
        (True, None, TypeError),
        (Decimal(5), None, TypeError),
        (5, b"bytes", TypeError),
    ],
)
async def test_odd_progress_raises_in_the_function(percent: Any, message: Any, error: type[Exception]) -> None:
    failure = (await outcome_of(lambda task: task.progress(percent, message))).failure
    assert failure.message.startswith(error.__name__)


async def test_progress_is_queued_at_once_and_keeps_the_last() -> None:
    async def work(task: Task) -> None:
        await task.progress(0, "m" * 5_000_000)
        task.progress(99.5)
        task.progress(100)

    bench = Bench(agent_with(work))
    attempt = bench.assign("work")
    await bench.outcomes()
    percent, message = bench.reports[attempt]
    assert percent == 100
    assert message is not None
    assert message.startswith("mmm")
    assert len(message) <= 1000


async def test_plain_functions_run_as_many_at_a_time_as_the_agent_may_hold() -> None:
    slots = 50
    barrier = threading.Barrier(slots)
    agent = agent_with(lambda task: {"waited": barrier.wait(PATIENCE) >= 0})
    bench = Bench(agent, limit=slots)
    for number in range(slots):
        bench.assign("work", task_id=f"task_{number}")
    outcomes = await bench.outcomes(slots)
    assert {outcome.result for outcome in outcomes.values()} == {'{"waited":true}'}


async def test_a_lease_that_ran_out_takes_everything_with_it() -> None:
    now = 0.0

    def work(task: Task) -> None:
        task.log.info("never heard")

    agent = agent_with(work)
    agent.task("wait")(asynchronous_wait)
    bench = Bench(agent)
    instance = bench.instance
    instance.now = lambda: now
    instance.hello()
    welcome = runners_pb2.Welcome(agent_id="agent_1")
    welcome.lease.FromSeconds(15)
    welcome.configure.max_concurrent_tasks = 10
    instance.welcomed(welcome)
    bench.assign("wait", task_id="runs")
    done = bench.assign("work", task_id="ended, not settled")
    assert list(await bench.outcomes()) == [done]
    assert not instance.give_up_if_expired()
    now = 14.0
    assert instance.give_up_if_expired()
    assert len(instance.held) == 0
    instance.held.new_stream()
    assert bench.take() == {}
    assert instance.hello().hello.held == []


async def asynchronous_wait(task: Task) -> None:
    await asyncio.sleep(60)
