"""A program as an agent: what it is told, how its lines are read, how its end counts, and how it is ended."""

import json
import os
import re
import time
from pathlib import Path

import psutil
import pytest

from agent_orchestration.v1 import common_pb2
from agent_runner import Agent
from agent_runner.attempts import Stop
from agent_runner.definition import Definition
from agent_runner.outbox import AttemptId
from agent_runner.program import CannotStart, Program
from tests.runner.bench import bench
from tests.runner.test_isolated import gone

INFO, WARNING = common_pb2.LOG_LEVEL_INFO, common_pb2.LOG_LEVEL_WARNING


def program(folder: Path, code: str, *arguments: str, task_type: str = "*") -> Definition:
    """An agent that runs a shell script."""
    script = folder / "script"
    script.write_text(f"#!/bin/sh\n{code}\n")
    script.chmod(0o755)
    return Agent("Script", "script").running(Program.found(str(script), arguments), [task_type])


async def test_a_program_for_one_type_takes_tasks_of_steps_without_a_type(tmp_path: Path) -> None:
    made_of = program(tmp_path, 'printf \'{"type": "%s"}\' "$AGENT_ORCHESTRATION_TASK_TYPE"', task_type="convert")
    async with bench(made_of) as made:
        assert (await made.run("default")).result == '{"type": "default"}'
        assert (await made.run("other")).failure.code == "no_handler"


async def test_what_a_program_is_told_and_what_it_says(tmp_path: Path) -> None:
    code = """
        read payload
        echo '{"progress": 10, "message": "began"}'
        echo '{"log": "careful", "level": "warning"}'
        echo "plain $1 $2"
        echo "on stderr" >&2
        echo '[1, 2]'
        echo '{"progress": 200}'
        echo '{"progress": 5, "rows": 3}'
        printf '{"payload": %s, "about": "%s %s %s %s"}' "$payload" "$AGENT_ORCHESTRATION_TASK_ID" \\
            "$AGENT_ORCHESTRATION_TASK_TYPE" "$AGENT_ORCHESTRATION_ATTEMPT" "$AGENT_ORCHESTRATION_AGENT_ID"
    """
    payload = '{"z":1.0,"a":-0.0,"b":12345678901234567890123,"twice":1,"twice":2}'
    async with bench(program(tmp_path, code, "one", "two words")) as made:
        outcome = await made.run("any", payload)
        assert outcome.result == f'{{"payload": {payload}, "about": "task_1 any 1 agent_1"}}'
        assert made.reports == {AttemptId("task_1", 1): (10.0, "began")}
        lines = sorted((line.message, line.level) for line in made.lines)
        assert lines == sorted(
            [
                ("careful", WARNING),
                ("plain one two words", INFO),
                ("on stderr", WARNING),
                ("[1, 2]", INFO),
                ("progress must be from 0 to 100, not 200", WARNING),
                ('{"progress": 5, "rows": 3}', INFO),
            ]
        )


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("true", "{}"),
        ("cat > /dev/null; echo '  {\"a\" : 1e2 }\\r'", '{"a" : 1e2 }'),
        ("echo '{\"a\": 1}'; echo '{\"a\": NaN}'", '{"a": 1}'),
        ("echo '{\"a\": 1}'; echo after", '{"a": 1}'),
    ],
)
async def test_the_last_json_object_is_the_result_as_it_was_written(tmp_path: Path, code: str, result: str) -> None:
    async with bench(program(tmp_path, code)) as made:
        assert (await made.run("any", json.dumps({"x": "y" * 1_000_000}))).result == result


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("echo '{\"a\": 1}'; echo first >&2; echo last >&2; exit 3", "exit status 3\nfirst\nlast"),
        ("exit 255", "exit status 255"),
        ("kill -SEGV $$", "SIGSEGV"),
        ("kill -KILL $$", "SIGKILL, out of memory perhaps"),
        ("rm $0; exit 1", "exit status 1"),
    ],
)
async def test_an_exit_status_other_than_zero_fails_with_the_last_words(
    tmp_path: Path, code: str, message: str
) -> None:
    async with bench(program(tmp_path, code)) as made:
        failure = (await made.run("any")).failure
        assert (failure.code, failure.message) == ("exit_status", message)


async def test_a_program_that_disappears_fails_its_task(tmp_path: Path) -> None:
    definition = program(tmp_path, "true")
    async with bench(definition) as made:
        (tmp_path / "script").unlink()
        failure = (await made.run("any")).failure
        assert failure.code == "exit_status"
        assert failure.message.endswith("script cannot be started: No such file or directory")


async def test_whatever_it_prints_is_taken_in_bounded_memory(tmp_path: Path) -> None:
    code = """
        head -c 1048576 /dev/zero | tr '\\0' e >&2; echo >&2
        yes 'a line of about fifty characters, and a lot of them' | head -c 50000000
        echo
        head -c 1048576 /dev/zero | tr '\\0' o
        echo
        printf '{"x": "'; head -c 300000 /dev/zero | tr '\\0' x; printf '"}'
    """
    async with bench(program(tmp_path, code)) as made:
        before = psutil.Process().memory_info().rss
        outcome = await made.run("any")
        assert len(outcome.result) == 300_009
        assert psutil.Process().memory_info().rss - before < 64 * 1024 * 1024
        text = made.text
    assert sum(line.endswith("... [cut, 1,048,576 bytes in all]") for line in text) == 2
    dropped = sum(int(line.split()[0].replace(",", "")) for line in text if "log lines dropped" in line)
    assert dropped > 900_000
    assert len(text) < 10_000


@pytest.mark.parametrize(("size", "code"), [(1024 * 1024, ""), (1024 * 1024 + 1, "result_too_large")])
async def test_results_have_a_limit(tmp_path: Path, size: int, code: str) -> None:
    async with bench(program(tmp_path, f'printf \'{{"x":"%0{size - 8}d"}}\' 0')) as made:
        outcome = await made.run("any")
        assert outcome.failure.code == code
        assert len(outcome.result) == (0 if code else size)


@pytest.mark.parametrize("stop", [Stop.REQUESTED, Stop.TIMEOUT, Stop.HANDED_BACK, Stop.DROPPED])
@pytest.mark.parametrize("deaf", [False, True])
async def test_the_whole_process_group_is_ended(tmp_path: Path, stop: Stop, deaf: bool) -> None:
    code = "sleep 60 & echo $$ $!\nwait"
    if deaf:
        code = f"trap : TERM\n(trap '' TERM; {code}) & wait; while :; do sleep 0.05; done"
    async with bench(program(tmp_path, code)) as made:
        attempt = made.assign("any")
        await made.until(lambda: len(made.lines) == 1)
        processes = [psutil.Process(int(found)) for found in re.findall(r"\d+", made.text[0])]
        assert len(processes) == 2
        assert len({os.getpgid(process.pid) for process in processes} - {os.getpgid(0)}) == 1
        made.cancel(attempt, stop)
        held = made.instance.held
        outcomes = await made.until(lambda: not held.is_busy and held.stuck == 0)
        expected = {Stop.REQUESTED: "cancelled", Stop.TIMEOUT: "failure", Stop.HANDED_BACK: "handed_back"}.get(stop)
        assert [each.WhichOneof("outcome") for each in outcomes.values()] == ([expected] if expected else [])
        await gone(processes)


async def test_what_it_leaves_running_holds_nothing_up_and_ends_with_it(tmp_path: Path) -> None:
    async with bench(program(tmp_path, "sleep 60 & echo $!; echo '{\"a\": 1}'")) as made:
        began = time.monotonic()
        assert (await made.run("any")).result == '{"a": 1}'
        assert time.monotonic() - began < 10
        await gone([psutil.Process(int(made.text[0]))] if psutil.pid_exists(int(made.text[0])) else [])


async def test_programs_end_with_the_instance(tmp_path: Path) -> None:
    async with bench(program(tmp_path, "trap : TERM; echo $$; while :; do sleep 1; done")) as made:
        made.assign("any")
        await made.until(lambda: len(made.lines) == 1)
        process = psutil.Process(int(made.text[0]))
    await gone([process])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./missing", "./missing does not exist"),
        ("./", "./ is not a file"),
        ("./data", "./data is not executable: chmod +x ./data"),
        ("no-such-program", "no-such-program is not on the PATH"),
    ],
)
def test_a_program_that_cannot_be_started_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").touch()
    with pytest.raises(CannotStart, match=re.escape(message)):
        Program.found(name, [])
