"""Real runner processes and a real server: what is stored of whatever agent code does, and who runs what after whom."""

import json
import os
import sys
import textwrap
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent_orchestration.v1 import tasks_pb2, tasks_pb2_grpc
from tests.e2e.processes import ControlPlane, Process, wait_until

FINAL = (tasks_pb2.TASK_STATUS_COMPLETED, tasks_pb2.TASK_STATUS_FAILED, tasks_pb2.TASK_STATUS_CANCELLED)
PATIENCE = 30.0

AGENTS = """
    import asyncio, multiprocessing, os, subprocess, sys, time
    from agent_runner import Agent
    agent = Agent("Worker", "worker", max_concurrent_tasks=20)

    @agent.task("echo")
    async def echo(task):
        return task.payload

    @agent.task("size")
    async def size(task):
        return {"x": "a" * (task.payload["bytes"] - len('{"x":""}'))}

    @agent.task("nested")
    async def nested(task):
        result = {}
        for _ in range(task.payload["levels"] - 1):
            result = {"a": result}
        return result

    @agent.task("exit")
    def leave(task):
        sys.exit(3)

    @agent.task("raise")
    async def fail(task):
        raise ValueError("\\0\\ud800" * 100_000)

    @agent.task("fork")
    def fork(task):
        for _ in range(20):
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
        subprocess.run([sys.executable, "-c", ""], check=True)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return {"mapped": pool.map(abs, [-1])}

    @agent.task("flood")
    def flood(task):
        for number in range(20_000):
            task.log.info("line %d", number)

    @agent.task("isolated", isolate="process")
    def isolated(task):
        if task.payload.get("die"):
            os._exit(9)
        print("in a child")
        return task.payload

    @agent.task("sleep")
    def sleep(task):
        time.sleep(task.payload["seconds"])
        return {"pid": os.getpid()}

    @agent.task("wait")
    async def wait(task):
        await asyncio.sleep(task.payload["seconds"] if task.attempt == 1 else 0)
        return {"pid": os.getpid()}
"""

EMBEDDED = """
    import asyncio, logging, signal
    from agent_runner import Agent
    agent = Agent("Embedded", "embedded")

    @agent.task("echo")
    async def echo(task):
        print("began", flush=True)
        await asyncio.sleep(0.5)
        return task.payload

    async def main():
        serving = asyncio.create_task(agent.serve())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
        try:
            await serving
        except asyncio.CancelledError:
            print("drained", flush=True)

    logging.basicConfig(level="INFO")
    asyncio.run(main())
"""


@dataclass
class Server:
    """A server of its own process, and the stub for its tasks."""

    plane: ControlPlane
    tasks: Any = field(init=False)

    def __post_init__(self) -> None:
        self.plane.start_server()
        self.channel = grpc.insecure_channel(self.plane.grpc_address)
        self.tasks = tasks_pb2_grpc.TaskServiceStub(self.channel)
        self._metadata = (("authorization", f"Bearer {self.plane.api_key}"),)

    def create(self, agent_id: str, type: str, payload: str = "{}") -> str:
        request = tasks_pb2.CreateTaskRequest(agent_id=agent_id, type=type, payload=payload)
        response: tasks_pb2.CreateTaskResponse = self.tasks.CreateTask(request, metadata=self._metadata)
        return response.data.id

    def get(self, task_id: str) -> tasks_pb2.Task:
        response: tasks_pb2.GetTaskResponse = self.tasks.GetTask(
            tasks_pb2.GetTaskRequest(task_id=task_id), metadata=self._metadata
        )
        return response.data

    def ended(self, task_id: str) -> tasks_pb2.Task:
        wait_until(lambda: self.get(task_id).status in FINAL, PATIENCE, f"{task_id} has not ended")
        return self.get(task_id)

    def run(self, agent_id: str, type: str, payload: str = "{}") -> tasks_pb2.Task:
        return self.ended(self.create(agent_id, type, payload))

    def begun(self, task_id: str) -> None:
        running = tasks_pb2.TASK_STATUS_RUNNING
        wait_until(lambda: self.get(task_id).status == running, PATIENCE, f"{task_id} has not begun")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server, None, None]:
    folder = tmp_path_factory.mktemp("runner")
    (folder / "agents.py").write_text(textwrap.dedent(AGENTS))
    with ControlPlane(folder, environment={"AGENT_ORCHESTRATION_LEASE_SECONDS": "4"}) as plane:
        server = Server(plane)
        yield server
        server.channel.close()


@pytest.fixture(scope="module")
def agent_id(server: Server) -> Generator[str, None, None]:
    runner = server.plane.start_runner(server.plane.folder / "agents.py", name="shared")
    yield connected(runner)
    assert runner.is_running, runner.errors
    assert runner.stop() == 0
    assert "Traceback" not in runner.errors


def connected(runner: Process) -> str:
    """The id of its agent."""
    runner.error("connected as")
    return runner.errors.split("connected as ")[1].split()[0]


@pytest.mark.parametrize(
    ("type_", "payload", "code"),
    [
        ("size", '{"bytes": 1048576}', ""),
        ("size", '{"bytes": 1048577}', "result_too_large"),
        ("size", '{"bytes": 21000000}', "result_too_large"),
        ("nested", '{"levels": 100}', ""),
        ("nested", '{"levels": 101}', "invalid_result"),
        ("nested", '{"levels": 5000}', "invalid_result"),
        ("exit", "{}", "task_error"),
        ("raise", "{}", "task_error"),
        ("fork", "{}", ""),
        ("isolated", '{"die": true}', "process_died"),
    ],
)
def test_each_end_is_stored_once(server: Server, agent_id: str, type_: str, payload: str, code: str) -> None:
    task = server.run(agent_id, type_, payload)
    expected = tasks_pb2.TASK_STATUS_FAILED if code else tasks_pb2.TASK_STATUS_COMPLETED
    assert (task.status, task.error.code, task.attempt) == (expected, code, 1)
    assert len(task.error.message.encode()) <= 4096


def test_payload_and_result_keep_numbers_and_characters(server: Server, agent_id: str) -> None:
    payload = '{"z":1.0,"a":-0.0,"b":12345678901234567890123,"n":"\\u0000","e":"\N{GRINNING FACE}"}'
    task = server.run(agent_id, "echo", payload)
    assert (task.payload, task.result) == (payload, payload)


def test_isolated_functions_take_and_give_the_same_text(server: Server, agent_id: str) -> None:
    payload = '{"z":1.0,"b":12345678901234567890123,"n":"\\u0000","e":"\N{GRINNING FACE}"}'
    task = server.run(agent_id, "isolated", payload)
    assert (task.payload, task.result) == (payload, payload)
    assert [line.message for line in task.logs] == ["in a child"]


def test_the_last_lines_of_a_flood_are_there_when_the_task_is_completed(server: Server, agent_id: str) -> None:
    task = server.run(agent_id, "flood")
    assert task.logs[-1].message == "line 19999"


def test_an_attempt_that_takes_too_long_fails_and_its_late_result_counts_for_nothing(
    server: Server, tmp_path: Path
) -> None:
    file = tmp_path / "agents.py"
    code = textwrap.dedent(AGENTS).replace("Worker", "Hurried").replace("max_concurrent_tasks=20", "timeout=0.5")
    file.write_text(code)
    runner = server.plane.start_runner(file, name="hurried")
    agent_id = connected(runner)
    task_id = server.create(agent_id, "sleep", '{"seconds": 7}')
    task = server.ended(task_id)
    assert (task.status, task.error.code) == (tasks_pb2.TASK_STATUS_FAILED, "timeout")
    assert "0.5 s" in task.error.message
    runner.error("does not")
    assert server.run(agent_id, "wait", '{"seconds": 0}').status == tasks_pb2.TASK_STATUS_COMPLETED
    assert runner.stop() == 0
    assert server.get(task_id).status == tasks_pb2.TASK_STATUS_FAILED


def test_a_program_is_an_agent(server: Server, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\nread payload\necho "$1 $AGENT_ORCHESTRATION_TASK_TYPE"\necho "$payload"\n')
    script.chmod(0o755)
    plane = server.plane
    options = ("--exec", str(script), "--name", "Script", "--type", "script", "--task-type", "copy")
    process = Process(
        [sys.executable, "-P", "-m", "agent_orchestration.cli", "runner", *options, "--", "word"],
        folder=tmp_path,
        environment={
            **os.environ,
            "AGENT_ORCHESTRATION_SERVER": plane.grpc_address,
            "AGENT_ORCHESTRATION_API_KEY": plane.api_key,
        },
        name="program",
    )
    plane.processes.append(process)
    payload = '{"z":1.0,"b":12345678901234567890123}'
    task = server.run(connected(process), "copy", payload)
    assert (task.status, task.result) == (tasks_pb2.TASK_STATUS_COMPLETED, payload)
    assert [line.message for line in task.logs] == ["word copy"]
    assert process.stop() == 0


def test_plain_functions_run_side_by_side(server: Server, agent_id: str) -> None:
    ids = [server.create(agent_id, "sleep", '{"seconds": 1}') for _ in range(20)]
    tasks = [server.ended(task_id) for task_id in ids]
    started = [task.started_at.ToMilliseconds() for task in tasks]
    completed = [task.completed_at.ToMilliseconds() for task in tasks]
    assert max(started) < min(completed), "some waited for others"


def test_what_is_handed_back_at_the_drain_limit_is_run_by_another(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "agents.py"
    file.write_text(textwrap.dedent(AGENTS).replace("Worker", "Drained"))
    leaving = server.plane.start_runner(file, "--drain-timeout", "1", name="leaving")
    agent_id = connected(leaving)
    task_id = server.create(agent_id, "wait", '{"seconds": 60}')
    server.begun(task_id)
    staying = server.plane.start_runner(file, name="staying")
    assert connected(staying) == agent_id
    assert leaving.stop() == 0
    task = server.ended(task_id)
    assert (task.status, task.attempt) == (tasks_pb2.TASK_STATUS_COMPLETED, 2)
    assert json.loads(task.result) == {"pid": staying.pid}
    assert staying.stop() == 0


def test_serve_in_a_loop_of_ones_own_drains_when_it_is_cancelled(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "embedded.py"
    file.write_text(textwrap.dedent(EMBEDDED))
    plane = server.plane
    process = Process(
        [sys.executable, "-P", str(file)],
        folder=tmp_path,
        environment={
            **os.environ,
            "AGENT_ORCHESTRATION_SERVER": plane.grpc_address,
            "AGENT_ORCHESTRATION_API_KEY": plane.api_key,
        },
        name="embedded",
    )
    plane.processes.append(process)
    task_id = server.create(connected(process), "echo", '{"a":1}')
    process.line("began")
    assert process.stop() == 0
    assert process.lines == ["began", "drained"]
    task = server.get(task_id)
    assert (task.status, task.result) == (tasks_pb2.TASK_STATUS_COMPLETED, '{"a":1}')
