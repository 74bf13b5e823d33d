"""`ao dev` as its user meets it: what it prints, how it starts, how it stops, what it survives."""

import re
import signal
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.e2e.processes import ControlPlane, Process, wait_until

FREE = ("--port", "0", "--grpc-port", "0")
# What issue and design promise: a start that cannot be says so within this.
REFUSAL_SECONDS = 5.0
# A child that is only starting notices that its parent is gone once its interpreter has come that far.
GONE_SECONDS = 20.0


def test_prints_where_it_serves_and_the_key_once(control_plane: ControlPlane) -> None:
    dev = control_plane.start_dev()
    key = dev.line("API key ")
    assert dev.lines == [
        f"REST http://127.0.0.1:{control_plane.port}/v1",
        f"gRPC 127.0.0.1:{control_plane.grpc_port}",
        f"API key {key}",
    ]
    assert re.fullmatch(r"ao_live_\S{20,}", key)
    assert key == control_plane.api_key
    kept = {each.name: each.stat().st_mode & 0o777 for each in control_plane.data_dir.iterdir()}
    assert {"ao.db", "lock", "admin.key", "gateway.key"} <= kept.keys()
    assert kept["admin.key"] == kept["gateway.key"] == 0o600
    with control_plane.client() as client:
        assert client.get("/health").json()["status"] == "healthy"
        localhost = client.get(f"http://localhost:{control_plane.port}/v1/agents")
        assert localhost.json()["pagination"]["total"] == 0
    assert dev.stop() == 0
    again = control_plane.start_dev()
    assert [line.split()[0] for line in again.lines] == ["REST", "gRPC"]
    assert again.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_it_with_0_and_leaves_nothing(control_plane: ControlPlane, number: signal.Signals) -> None:
    dev = control_plane.start_dev()
    family = psutil.Process(dev.pid).children(recursive=True)
    began = time.monotonic()
    dev.signal(number)
    assert dev.end(10) == 0
    assert time.monotonic() - began < 10
    assert not any(each.is_running() for each in family)
    assert "Traceback" not in dev.errors


def test_a_second_signal_ends_it_at_once(control_plane: ControlPlane) -> None:
    dev = control_plane.start_dev()
    family = psutil.Process(dev.pid).children(recursive=True)
    # A stopped half cannot drain.
    for each in family:
        each.suspend()
    dev.signal(signal.SIGINT)
    dev.signal(signal.SIGINT)
    began = time.monotonic()
    while dev.is_running:
        dev.signal(signal.SIGINT)
        time.sleep(0.05)
    assert time.monotonic() - began < 2
    assert dev.end(1) == 1
    psutil.wait_procs(family, GONE_SECONDS)
    assert not any(each.is_running() for each in family)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_during_the_start_leaves_nothing(control_plane: ControlPlane, number: signal.Signals) -> None:
    for after in (0.05, 0.15, 0.3, 0.6, 1.0, 1.5):
        dev = control_plane.ao("dev", *FREE)
        wait_until(lambda dev=dev, after=after: _age(dev) > after, 5, "not old enough")
        family = psutil.Process(dev.pid).children(recursive=True)
        dev.signal(number)
        dev.end(REFUSAL_SECONDS)
        psutil.wait_procs(family, GONE_SECONDS)
        assert not any(each.is_running() for each in family)
        # Before the first line of the command runs, Ctrl-C is the interpreter's.
        was_ours = "agent_orchestration/cli" in dev.errors
        assert "Traceback" not in dev.errors or "Fatal Python error" in dev.errors or not was_ours, dev.errors
    control_plane.start_dev()


def test_kill_9_of_the_parent_leaves_no_child_and_no_port(control_plane: ControlPlane) -> None:
    dev = control_plane.start_dev()
    family = psutil.Process(dev.pid).children(recursive=True)
    assert len(family) == 2
    dev.kill()
    _, alive = psutil.wait_procs(family, GONE_SECONDS)
    assert not alive
    for port in (control_plane.port, control_plane.grpc_port):
        with socket.create_server(("127.0.0.1", port)):
            pass
    control_plane.start_dev()


@pytest.mark.parametrize("part", ["server", "gateway"])
def test_a_half_that_dies_comes_back_where_it_was(control_plane: ControlPlane, part: str) -> None:
    dev = control_plane.start_dev()
    first = dev.child(part)
    with control_plane.client() as client:
        created = client.post("/agents", json={"name": "Kept", "type": "t"})
        assert created.status_code == 201
    first.kill()
    wait_until(lambda: not first.is_running(), 5, "still there")

    dev.error(f"the {part} ended (signal SIGKILL); starting it again")
    wait_until(lambda: control_plane.is_serving, 15, "not back")
    assert dev.child(part).pid != first.pid
    with control_plane.client() as client:
        assert client.get("/agents").json()["pagination"]["total"] == 1
    assert len(dev.lines) == 3
    assert dev.stop() == 0


def test_five_deaths_in_30_seconds_end_it(control_plane: ControlPlane) -> None:
    dev = control_plane.start_dev()
    seen: set[int] = set()
    for _ in range(5):
        wait_until(lambda: any(each.pid not in seen for each in _gateways(dev.pid)), 15, "not started again")
        newest = next(each for each in _gateways(dev.pid) if each.pid not in seen)
        seen.add(newest.pid)
        newest.kill()
    assert dev.end(10) == 1
    assert dev.errors.splitlines()[-1] == "error: the gateway died too often (signal SIGKILL)"


def test_a_second_one_on_the_folder_is_refused(control_plane: ControlPlane) -> None:
    control_plane.start_dev()
    began = time.monotonic()
    second = control_plane.ao("dev", *FREE)
    assert second.end(2 * REFUSAL_SECONDS) == 2
    assert time.monotonic() - began < REFUSAL_SECONDS
    assert _complaints(second.errors) == [f"error: another server uses the data folder {control_plane.data_dir}"]
    assert second.lines == []


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_a_taken_port_is_refused_before_anything_is_made(control_plane: ControlPlane, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        began = time.monotonic()
        dev = control_plane.ao("dev", *FREE, option, str(port))
        assert dev.end(REFUSAL_SECONDS) == 2
        assert time.monotonic() - began < REFUSAL_SECONDS
        assert dev.errors == f"error: port {port} on 127.0.0.1 is taken by another program\n"
    assert not control_plane.data_dir.exists()


def test_unusable_folders_and_files_are_refused(control_plane: ControlPlane, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "ao.db").write_bytes(bytes(range(64)))
    (tmp_path / "folder" / "ao.db").mkdir(parents=True)
    for data_dir, complaint, seconds in (
        ("file", "cannot be used", REFUSAL_SECONDS),
        ("file/below", "cannot be used", REFUSAL_SECONDS),
        ("/proc/ao", "cannot be used", REFUSAL_SECONDS),
        # Known only once all libraries are loaded, which takes its time on a busy machine.
        ("odd", "cannot be opened", 4 * REFUSAL_SECONDS),
        ("folder", "cannot be opened", 4 * REFUSAL_SECONDS),
    ):
        began = time.monotonic()
        dev = control_plane.ao("dev", *FREE, "--data-dir", data_dir)
        assert dev.end(4 * REFUSAL_SECONDS) == 2
        assert time.monotonic() - began < seconds
        complaints = _complaints(dev.errors)
        assert len(complaints) == 1
        assert complaint in complaints[0]
        assert "Traceback" not in dev.errors


def test_a_newer_schema_is_refused(control_plane: ControlPlane) -> None:
    assert control_plane.start_dev().stop() == 0
    with closing(sqlite3.connect(control_plane.data_dir / "ao.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    dev = control_plane.ao("dev", *FREE)
    assert dev.end(4 * REFUSAL_SECONDS) == 2
    complaints = _complaints(dev.errors)
    assert len(complaints) == 1
    assert "schema is newer" in complaints[0]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--port", "49000", "--grpc-port", "49000"), "error: --port and --grpc-port must differ"),
        (("--host", "0.0.0.0"), "error: --host 0.0.0.0 is reachable from other machines: it needs --tls-cert"),
        (("--host", "192.0.2.1", "--insecure"), "error: cannot listen on 192.0.2.1 port 0: "),
        (("--host", "no-such-host.invalid", "--insecure"), "error: --host no-such-host.invalid is not an address"),
    ],
)
def test_a_host_or_port_that_will_not_do(control_plane: ControlPlane, options: tuple[str, ...], complaint: str) -> None:
    dev = control_plane.ao("dev", *FREE, *options)
    assert dev.end(REFUSAL_SECONDS) == 2
    assert dev.errors.startswith(complaint)
    assert len(dev.errors.splitlines()) == 1


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("localhost", "127.0.0.1"), ("0.0.0.0", "0.0.0.0")])
def test_other_hosts(control_plane: ControlPlane, host: str, shown: str) -> None:
    insecure = ["--insecure"] if host in ("0.0.0.0", "::") else []
    dev = control_plane.start_dev("--host", host, *insecure)
    assert dev.lines[0] == f"REST http://{shown}:{control_plane.port}/v1"
    reachable = "[::1]" if ":" in host else "127.0.0.1"
    with control_plane.client() as client:
        answer = client.get(f"http://{reachable}:{control_plane.port}/v1/health")
    assert answer.status_code == 200
    assert dev.stop() == 0


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("API_KEY", "short"),
        ("API_KEY", ""),
        ("API_KEY", "sécret-sécret"),
        ("RATE_LIMIT_PER_HOUR", "10o"),
        ("RATE_LIMIT_PER_MINUTE", "-1"),
        ("RATE_LIMIT_PER_HOUR", "1e3"),
        ("LEASE_SECONDS", "soon"),
    ],
)
def test_a_bad_setting_is_named_without_its_value(control_plane: ControlPlane, variable: str, value: str) -> None:
    control_plane.environment = {f"AGENT_ORCHESTRATION_{variable}": value}
    dev = control_plane.ao("dev", *FREE)
    assert dev.end(4 * REFUSAL_SECONDS) == 2
    complaints = set(_complaints(dev.errors))
    assert len(complaints) == 1
    complaint = complaints.pop()
    assert f"AGENT_ORCHESTRATION_{variable}" in complaint
    assert not value or value not in complaint


def test_a_key_from_a_file_made_elsewhere(control_plane: ControlPlane) -> None:
    control_plane.environment = {"AGENT_ORCHESTRATION_API_KEY": " a-key-of-my-own-choice-with-32-chars\r\n"}
    dev = control_plane.start_dev()
    assert dev.line("API key ") == control_plane.api_key == "a-key-of-my-own-choice-with-32-chars"
    with control_plane.client() as client:
        assert client.get("/agents").status_code == 200


def test_the_halves_run_apart(control_plane: ControlPlane) -> None:
    server = control_plane.start_server()
    assert server.line("API key ") == control_plane.api_key
    gateway = control_plane.start_gateway()
    with control_plane.client() as client:
        assert client.get("/health").json()["status"] == "healthy"
        assert server.stop() == 0
        away = client.get("/agents")
        assert away.status_code == 503
        assert "retry-after" in away.headers
        control_plane.start_server()
        wait_until(lambda: client.get("/agents").status_code == 200, 10, "not back")
    assert gateway.stop() == 0


def _age(process: Process) -> float:
    return time.time() - psutil.Process(process.pid).create_time()


def _gateways(parent: int) -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for each in psutil.Process(parent).children():
        try:
            if "gateway" in each.cmdline():
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


def _complaints(errors: str) -> list[str]:
    return [line for line in errors.splitlines() if line.startswith("error: ")]
