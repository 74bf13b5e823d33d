"""`ao runner`, `Agent` and the settings as their user meets them: what is wrong is said in one line, at once."""

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from agent_runner import Agent
from agent_runner.settings import Address, BadSettings, read

GOOD = """
from agent_runner import Agent
agent = same = Agent("a", "b")
@agent.task("t")
def work(task): ...
"""


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "agent_orchestration.cli", "runner", *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "agents.py does not exist"),
        ("x = 1\nraise ValueError('no\\nluck')", "agents.py:2 cannot be imported: ValueError: no"),
        ("import sys\n\n\nsys.exit(0)", "agents.py:4 cannot be imported: SystemExit: 0"),
        ("def f(:\n", "agents.py:1 cannot be imported: SyntaxError: invalid syntax"),
        ("import no_such_module", "agents.py:1 cannot be imported: ModuleNotFoundError: No module named"),
        ("x = 1", "agents.py defines no Agent at module level"),
        ("from agent_runner import Agent\na = Agent('a', 'b')", "agent 'a' in agents.py has no task functions"),
        (GOOD, "an API key is needed: set AGENT_ORCHESTRATION_API_KEY"),
        (GOOD + "if __name__ == '__main__': agent.run()\nassert __name__ == 'agents'", "an API key is needed"),
        ("import beside\n" + GOOD, "an API key is needed"),
    ],
)
def test_a_file_that_cannot_be_run(tmp_path: Path, code: str | None, message: str) -> None:
    (tmp_path / "beside.py").touch()
    if code is not None:
        (tmp_path / "agents.py").write_text(code)
    result = run(tmp_path, "agents.py")
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1


def test_a_folder_and_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "agents.txt").write_text(GOOD)
    assert run(tmp_path, ".").stderr == "error: . is not a file\n"
    assert run(tmp_path, str(tmp_path / "agents.txt")).stderr.endswith("its name must end in .py\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a FILE with agents is needed, or --exec PROGRAM"),
        (["agents.py", "--exec", "true"], "FILE and --exec exclude each other; arguments of the program come after --"),
        (["agents.py", "--name", "a"], "--name is for --exec; a file says it itself"),
        (["agents.py", "--task-type", "a"], "--task-type is for --exec; a file says it itself"),
        (["agents.py", "--", "x"], "arguments after -- are for --exec"),
        (["--exec", "true", "--name", "a"], "--exec needs --name and --type"),
        (["--exec", "true", "--name", "a", "--type", "b", "--timeout", "0"], "timeout must be above 0"),
        (
            ["--exec", "true", "--name", "a", "--type", "b", "--task-type", "t", "--task-type", "t"],
            "agent 'a' has a function for 't' already",
        ),
        (["--exec", "./none", "--name", "a", "--type", "b", "--", "x"], "./none does not exist"),
        (["--exec", "true", "--name", "a", "--type", "b", "--", "--x", "y"], "an API key is needed"),
    ],
)
def test_a_file_or_a_program_but_not_both(tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "agents.py").write_text(GOOD)
    result = run(tmp_path, *arguments)
    assert result.returncode == 2
    assert result.stderr.splitlines()[0].startswith(f"error: {message}")
    assert len(result.stderr.splitlines()) <= 2, "a hint at most"


def test_the_file_run_by_itself_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "agents.py").write_text(GOOD + "if __name__ == '__main__': agent.run()")
    environment = {"PATH": "/usr/bin:/bin", "AGENT_ORCHESTRATION_API_KEY": "gef\xe4hrlich"}
    command = [sys.executable, "agents.py"]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert result.returncode == 2
    assert result.stderr == "error: AGENT_ORCHESTRATION_API_KEY must be printable ASCII without spaces\n"


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (None, ("127.0.0.1", 50051, "127.0.0.1:50051")),
        ("", ("127.0.0.1", 50051, "127.0.0.1:50051")),
        (" localhost:1\r\n", ("localhost", 1, "localhost:1")),
        ("[::1]:65535", ("::1", 65535, "[::1]:65535")),
    ],
)
def test_addresses(server: str | None, expected: tuple[str, int, str]) -> None:
    environment = {"AGENT_ORCHESTRATION_API_KEY": " key\r\n"}
    if server is not None:
        environment["AGENT_ORCHESTRATION_SERVER"] = server
    address = read(environment=environment)
    assert (address.host, address.port, address.target) == expected
    assert address.api_key == "key"
    assert read("other:2", "given", environment) == Address("other", 2, "given")


@pytest.mark.parametrize(
    "server", ["localhost", "localhost:", ":1", "a:0", "a:65536", "a:x", "::1:5", "http://a", "https://a:1/"]
)
def test_odd_addresses_are_named(server: str) -> None:
    with pytest.raises(BadSettings, match="AGENT_ORCHESTRATION_SERVER must be HOST:PORT or https://HOST:PORT, not "):
        read(environment={"AGENT_ORCHESTRATION_SERVER": server, "AGENT_ORCHESTRATION_API_KEY": "key"})


@pytest.mark.parametrize("key", ["", " \n", "two words", "tab\tbed", "ümlaut", "nul\0"])
def test_odd_keys_are_refused_without_being_shown(key: str) -> None:
    with pytest.raises(BadSettings) as refused:
        read(environment={"AGENT_ORCHESTRATION_API_KEY": key})
    assert "AGENT_ORCHESTRATION_API_KEY" in str(refused.value)
    assert not key.strip() or key not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": ""}, ValueError),
        ({"name": "x" * 201}, ValueError),
        ({"name": 5}, TypeError),
        ({"name": "nul\0"}, ValueError),
        ({"name": "\udc80"}, ValueError),
        ({"type": " "}, ValueError),
        ({"type": "x" * 101}, ValueError),
        ({"max_concurrent_tasks": 0}, ValueError),
        ({"max_concurrent_tasks": 10_001}, ValueError),
        ({"max_concurrent_tasks": 1.5}, TypeError),
        ({"max_concurrent_tasks": True}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "5"}, TypeError),
        ({"retry_attempts": -1}, ValueError),
        ({"environment": "x" * 65}, ValueError),
        ({"agent_id": ""}, ValueError),
        ({"configuration": {"timeout": 5}}, ValueError),
        ({"configuration": {"set": {1}}}, ValueError),
        ({"configuration": {"nan": float("nan")}}, ValueError),
    ],
)
def test_odd_arguments_of_an_agent(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        cast(Any, Agent)(**{"name": "a", "type": "b", **arguments})


def test_what_an_agent_says_of_itself() -> None:
    agent = Agent("a", "b", timeout=1.5, retry_attempts=2, configuration={"model": "ä"})
    expected = '{"max_concurrent_tasks": 10, "timeout": 1.5, "retry_attempts": 2, "model": "ä"}'
    assert agent.definition().configuration == expected


def test_registering_functions() -> None:
    agent = Agent("a", "b")

    def work(task: object) -> None: ...

    def generator(task: object) -> Any:
        yield

    assert agent.task("t")(work) is work
    assert agent.task_types == ("t",)
    with pytest.raises(ValueError, match="has a function for 't' already"):
        agent.task("t")(work)
    with pytest.raises(TypeError, match="the type of the tasks is missing"):
        agent.task(work)  # pyright: ignore[reportArgumentType] - what the check is for
    with pytest.raises(TypeError, match="is a generator"):
        agent.task("g")(generator)
    with pytest.raises(ValueError, match="task type must have 1 to 100 characters"):
        agent.task("")
    assert agent.task("d", default=True, description="all else", schema={"type": "object"})(work) is work
    assert agent.task_types == ("t", "d", "*")
    with pytest.raises(ValueError, match=r"has a function for '\*' already"):
        agent.task("*")(work)
    with pytest.raises(ValueError, match="schema is not JSON"):
        agent.task("s", schema={"set": {1}})
    with pytest.raises(TypeError, match="schema must be a dict"):
        agent.task("s", schema=[1])  # pyright: ignore[reportArgumentType] - what the check is for
    with pytest.raises(ValueError, match="description must have 1 to 2000 characters"):
        agent.task("s", description="x" * 2001)
    assert Agent("a", "b").task(default=True)(work) is work
