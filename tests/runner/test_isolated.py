"""Functions with `isolate="process"`: they run in children that can be killed, and that may die alone."""

import asyncio
import json
import re
import time
from collections.abc import Callable

import psutil
import pytest

from agent_orchestration.v1 import runners_pb2
from agent_runner import Agent, Task
from agent_runner.attempts import Stop
from agent_runner.outbox import AttemptId
from tests.runner.agents_for_children import agent, echo, lonely
from tests.runner.bench import bench


def test_the_function_is_returned_and_described() -> None:
    assert callable(echo)
    function = agent.definition().functions["echo"]
    assert (function.description, function.schema) == ("says what it heard", '{"type": "object"}')


async def test_payload_and_result_travel_as_they_are_and_the_child_is_used_again() -> None:
    payload = '{"z":1.0,"a":-0.0,"b":12345678901234567890123,"n":"\\u0000","e":"\N{GRINNING FACE}"}'
    async with bench(agent, configuration='{"model": "big", "n": 1}') as made:
        outcome = await made.run("echo", payload)
        agent_said = '["agent_1","Worker",{"model":"big","n":1}]'
        assert outcome.result == f'{{"payload":{payload},"agent":{agent_said}}}'
        large = json.dumps({"x": "y" * 1_000_000}, separators=(",", ":"))
        assert json.loads((await made.run("echo", large)).result)["payload"] == json.loads(large)
        first, second = [json.loads((await made.run("where")).result) for _ in range(2)]
        assert first == second
        assert first["pid"] != psutil.Process().pid == first["parent"]
        assert first["module"] == agent.definition().functions["where"].run.__module__
        assert made.text == ["in a child"] * 2
        assert made.reports == {AttemptId("task_1", 1): (50.0, "half")}


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("exit", "process_died", "the process of the function ended with exit status 3"),
        ("segfault", "process_died", "the process of the function ended with SIGSEGV"),
        ("kill", "process_died", "the process of the function ended with SIGKILL, out of memory perhaps"),
        ("close", "process_died", "the process of the function ended with "),
        ("raise", "no_way", "no way"),
        ("sys.exit", "task_error", "SystemExit: 4"),
        ("too large", "result_too_large", "the result has 1,048,584 bytes of JSON"),
    ],
)
async def test_a_child_that_dies_fails_its_task_alone(how: str, code: str, message: str) -> None:
    async with bench(agent) as made:
        beside = made.assign("wait", '{"how": "looks"}', task_id="beside")
        await made.until(lambda: any("began" in line for line in made.text))
        failure = (await made.run("die", json.dumps({"how": how}))).failure
        assert failure.code == code
        assert failure.message.startswith(message)
        assert failure.not_retryable == (how in ("raise", "too large"))
        if how == "exit":
            assert made.text[-1] == "the last word"
        assert (await made.run("where")).result
        made.cancel(beside)
        assert (await made.outcomes())[beside].HasField("cancelled")


@pytest.mark.parametrize("stop", [Stop.REQUESTED, Stop.TIMEOUT, Stop.HANDED_BACK, Stop.DROPPED])
@pytest.mark.parametrize(
    ("type_", "how"),
    [
        ("wait", "looks"),
        ("wait", "ignores"),
        ("wait", "ignores SIGTERM"),
        ("wait", "has a child"),
        ("wait async", ""),
    ],
)
async def test_a_child_is_told_then_signalled_then_killed(type_: str, how: str, stop: Stop) -> None:
    async with bench(agent) as made:
        began = time.monotonic()
        attempt = made.assign(type_, json.dumps({"how": how}))
        last = {"ignores SIGTERM": "deaf", "has a child": "grandchild"}.get(how, "began")
        await made.until(lambda: any(last in line for line in made.text))
        processes = [psutil.Process(int(found[0])) for line in made.text if (found := re.findall(r"\d+", line))]
        made.cancel(attempt, stop)
        held = made.instance.held
        outcomes = await made.until(lambda: not held.is_busy and held.stuck == 0)
        expected = {Stop.REQUESTED: "cancelled", Stop.TIMEOUT: "failure", Stop.HANDED_BACK: "handed_back"}.get(stop)
        assert [each.WhichOneof("outcome") for each in outcomes.values()] == ([expected] if expected else [])
        held.settle(outcomes)
        if how in ("looks", ""):
            assert (await made.run("where")).result, "the child is as good as before"
            assert processes[0].is_running()
        else:
            await gone(processes)
        assert time.monotonic() - began < 15


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_what_a_child_prints_is_logged_whatever_it_is() -> None:
    async with bench(agent) as made:
        assert (await made.run("print", '{"lines": 20000}')).result == "{}"
        text = made.text
    assert text[0] == "\ufffd bytes"
    assert "to stderr" in text
    assert any(line.endswith("... [cut, 1,000,000 bytes in all]") for line in text)
    assert text[-2:] == ["line 19999", "no end"], "what was printed right before the end is there"
    assert len(text) < 10_000


async def test_an_only_function_takes_tasks_of_steps_without_a_type() -> None:
    async with bench(lonely) as made:
        assert (await made.run("default")).result == '{"only":"default"}'


@pytest.mark.parametrize("method", ["spawn", "fork"])
async def test_a_child_may_fork(method: str) -> None:
    async with bench(agent) as made:
        assert (await made.run("fork", json.dumps({"method": method}))).result == '{"mapped":[1]}'
        assert not any("never heard" in line for line in made.text)


async def test_a_child_whose_loop_is_stopped_goes_on() -> None:
    async with bench(agent) as made:
        assert (await made.run("stop loop")).result == '{"stopped":false}'


async def test_children_end_with_the_instance_and_surplus_ones_before() -> None:
    async with bench(agent) as made:
        ids = [made.assign("wait", '{"how": "looks"}', task_id=f"task_{number}") for number in range(3)]
        await made.until(lambda: sum("began" in line for line in made.text) == 3)
        for attempt in ids:
            made.cancel(attempt)
        await made.outcomes(3)
        made.instance.held.settle(ids)
        children = psutil.Process().children()
        assert len(children) == 3
        made.instance.configure(runners_pb2.Configure(configuration="{}", max_concurrent_tasks=1))
        await gone(children, but=1)
        assert (await made.run("where")).result
    await gone(children)


async def gone(processes: list[psutil.Process], but: int = 0) -> None:
    async with asyncio.timeout(10):
        while sum(is_alive(process) for process in processes) > but:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)


def test_functions_that_a_child_could_not_find_are_refused() -> None:
    made = Agent("a", "b")

    def nested(task: Task) -> None: ...

    with pytest.raises(ValueError, match="that a module defines by name, not 'test_functions"):
        made.task("t", isolate="process")(nested)
    nameless: Callable[[Task], None] = lambda task: None  # noqa: E731 - it must be one
    with pytest.raises(ValueError, match="<lambda>"):
        made.task("t", isolate="process")(nameless)
    with pytest.raises(ValueError, match="isolate must be 'process' or None"):
        made.task("t", isolate="thread")  # pyright: ignore[reportArgumentType] - what the check is for
    assert made.task_types == ()
