"""TLS through real processes: `ao dev`, both halves apart, runners with certificates, files replaced meanwhile."""

import shutil
import socket
import ssl
import stat
import subprocess
import tempfile
from pathlib import Path

import grpc
import httpx2
import pytest

from agent_orchestration.v1 import tasks_pb2, tasks_pb2_grpc
from tests.authority import Authority, Pair
from tests.conftest import skip_or_fail
from tests.e2e.processes import ControlPlane, wait_until

AGENTS = """
from agent_runner import Agent

agent = Agent(name="Echo", type="echo")


@agent.task("echo")
async def echo(task):
    return task.payload
"""
DEADLINE = 20.0
# New connections get a new certificate within this, and a little for a slow machine.
RELOAD_SECONDS = 10.0
HOST = "127.0.0.1"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def client(plane: ControlPlane, authority: Authority, own: Pair | None = None, host: str = HOST) -> httpx2.Client:
    return httpx2.Client(
        base_url=f"https://{HOST}:{plane.port}/v1",
        headers={"Authorization": f"Bearer {plane.api_key}"},
        timeout=DEADLINE,
        trust_env=False,
        verify=authority.trusting(own),
    )


def shown(port: int, authority: Authority, own: Pair | None = None) -> bytes:
    """The certificate that a new connection is shown."""
    context = authority.trusting(own)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((HOST, port), DEADLINE) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        certificate = connection.getpeercert(binary_form=True)
    assert certificate is not None
    return certificate


def runs_a_task(rest: httpx2.Client) -> None:
    task = rest.post("/tasks", json={"agent_type": "echo", "type": "echo", "payload": {"n": 1}})
    assert task.status_code == 201
    done = rest.get(f"/tasks/{task.json()['data']['id']}", params={"wait": 20})
    assert done.json()["data"]["result"] == {"n": 1}


def test_a_runner_and_a_service_with_certificates_work_and_others_do_not(
    control_plane: ControlPlane, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "clients").mkdir()
    clients = Authority(tmp_path / "clients")
    runner, stranger = clients.sign("runner", "runner"), authority.sign("stranger", "stranger")
    served = authority.sign("server", HOST)
    agents = tmp_path / "agents.py"
    agents.write_text(AGENTS)
    dev = control_plane.start_dev(*served.options, "--tls-client-ca", str(clients.file))
    assert dev.lines[0].startswith("REST https://")
    # The way around all this is for this user alone, and stays when another start fails.
    assert control_plane.ao("dev", "--port", "0", "--grpc-port", "0", *served.options).end(DEADLINE) == 2
    assert stat.S_IMODE((control_plane.data_dir / "grpc.sock").stat().st_mode) == 0o600
    address = f"https://{control_plane.grpc_address}"
    assert dev.lines[1] == f"gRPC {address}"
    trust = {"AGENT_ORCHESTRATION_TLS_CA": str(authority.file), "AGENT_ORCHESTRATION_API_KEY": control_plane.api_key}
    refused = control_plane.ao(
        *("runner", str(agents), "--server", address), name="refused", environment=trust | stranger.variables
    )
    refused.error("not connected, trying again")
    with client(control_plane, authority, runner) as rest:
        assert rest.get("/agents").json()["pagination"]["total"] == 0
        control_plane.ao(
            *("runner", str(agents)), environment=trust | runner.variables | {"AGENT_ORCHESTRATION_SERVER": address}
        )
        runs_a_task(rest)
        assert rest.get("/agents").json()["pagination"]["total"] == 1
    credentials = grpc.ssl_channel_credentials(
        authority.file.read_bytes(), runner.key.read_bytes(), runner.certificate.read_bytes()
    )
    with grpc.secure_channel(control_plane.grpc_address, credentials) as channel:
        listed = tasks_pb2_grpc.TaskServiceStub(channel).ListTasks(
            tasks_pb2.ListTasksRequest(),
            metadata=(("authorization", f"Bearer {control_plane.api_key}"),),
            timeout=DEADLINE,
        )
        assert len(listed.data) == 1
    with client(control_plane, authority) as bare, pytest.raises(httpx2.TransportError):
        bare.get("/agents")
    assert dev.stop() == 0


def test_dev_serves_with_a_certificate_that_fits_no_address_of_its_own(
    control_plane: ControlPlane, authority: Authority
) -> None:
    folder = control_plane.folder / ("long" * 20)
    served = authority.sign("server", "ops.example.com")
    # Its name is too long for a socket in it.
    temporary = Path(tempfile.mkdtemp())
    control_plane.environment = {"TMPDIR": str(temporary)}
    dev = control_plane.start_dev(*served.options, "--data-dir", str(folder))
    (control_plane.folder / ".ao").symlink_to(folder)
    with client(control_plane, authority) as rest:
        answer = rest.get("/agents", extensions={"sni_hostname": "ops.example.com"})
        assert answer.status_code == 200
        with pytest.raises(httpx2.TransportError):
            rest.get(f"https://localhost:{control_plane.port}/v1/agents")
    dev.child("server").kill()
    dev.error("starting it again")

    def answers() -> bool:
        with client(control_plane, authority) as rest:
            return rest.get("/agents", extensions={"sni_hostname": "ops.example.com"}).status_code == 200

    wait_until(answers, DEADLINE, "the restarted server was not found")
    assert dev.stop() == 0
    temporary.rmdir()


def test_one_environment_serves_dev_and_its_runners(control_plane: ControlPlane, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        skip_or_fail("openssl is not installed")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "365"]
    made += ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(made, cwd=tmp_path, check=True, capture_output=True, timeout=DEADLINE)
    agents = tmp_path / "agents.py"
    agents.write_text(AGENTS)
    control_plane.environment = {
        "AGENT_ORCHESTRATION_TLS_CERT": "cert.pem",
        "AGENT_ORCHESTRATION_TLS_KEY": "key.pem",
        "AGENT_ORCHESTRATION_TLS_CA": "cert.pem",
    }
    control_plane.start_dev()
    control_plane.start_runner(agents)
    trust = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    url = f"https://localhost:{control_plane.port}/v1"
    headers = {"Authorization": f"Bearer {control_plane.api_key}"}
    with httpx2.Client(base_url=url, headers=headers, timeout=DEADLINE, trust_env=False, verify=trust) as rest:
        runs_a_task(rest)


def test_an_authority_to_trust_does_not_make_dev_verify_itself(control_plane: ControlPlane) -> None:
    control_plane.environment = {"AGENT_ORCHESTRATION_TLS_CA": "of-another-server.pem"}
    control_plane.start_dev()
    assert control_plane.is_serving


def test_both_halves_apart_verify_each_other(control_plane: ControlPlane, authority: Authority, tmp_path: Path) -> None:
    pair = authority.sign("server", HOST)
    (tmp_path / "clients").mkdir()
    clients = Authority(tmp_path / "clients")
    own = clients.sign("gateway", "gateway")
    certified = {
        "AGENT_ORCHESTRATION_TLS_CLIENT_CERT": str(own.certificate),
        "AGENT_ORCHESTRATION_TLS_CLIENT_KEY": str(own.key),
    }
    asking = [*pair.options, "--tls-client-ca", str(clients.file)]
    server = control_plane.start_server(*asking)
    address = f"https://{control_plane.grpc_address}"
    gateway = ("gateway", "--port", "0", "--server", address)
    # It trusts another authority than the one that signed the server's certificate.
    deceived = control_plane.ao(
        *gateway, name="deceived", environment={"AGENT_ORCHESTRATION_TLS_CA": str(clients.file)} | certified
    )
    deceived.error("CERTIFICATE_VERIFY_FAILED")
    assert deceived.lines == []
    trusting = control_plane.ao(
        *gateway, *pair.options, environment={"AGENT_ORCHESTRATION_TLS_CA": str(authority.file)} | certified
    )
    control_plane.port = int(trusting.line("REST ").removesuffix("/v1").rsplit(":", 1)[1])
    with client(control_plane, authority) as rest:
        assert rest.get("/agents").status_code == 200
        # The old authorities are gone, and with them all certificates: each side finds the new ones by itself.
        server.kill()
        fresh = Authority(tmp_path)
        fresh.sign("server", HOST)
        Authority(tmp_path / "clients").sign("gateway", "gateway")
        control_plane.start_server(*asking)

    def answers() -> bool:
        try:
            with client(control_plane, fresh) as rest:
                return rest.get("/agents").status_code == 200
        except httpx2.TransportError:
            return False

    wait_until(answers, DEADLINE, "the gateway did not come back")
    assert trusting.stop() == 0


def test_replaced_files_are_taken_up_by_both_halves_while_they_run(
    control_plane: ControlPlane, authority: Authority
) -> None:
    served = authority.sign("server", HOST)
    dev = control_plane.start_dev(*served.options)
    first = ssl.PEM_cert_to_DER_cert(served.certificate.read_text())
    ports = (control_plane.port, control_plane.grpc_port)
    assert [shown(port, authority) for port in ports] == [first, first]
    with client(control_plane, authority) as rest:
        assert rest.get("/agents").status_code == 200
        whole = served.key.read_bytes()
        served.key.write_bytes(whole[: len(whole) // 2])
        wait_until(
            lambda: dev.errors.count("certificate_not_usable") == 2, RELOAD_SECONDS, "the broken key was not told of"
        )
        assert [shown(port, authority) for port in ports] == [first, first]
        authority.sign("server", HOST)
        second = ssl.PEM_cert_to_DER_cert(served.certificate.read_text())
        wait_until(
            lambda: [shown(port, authority) for port in ports] == [second, second],
            RELOAD_SECONDS,
            "the new certificate was not shown",
        )
        assert rest.get("/agents").status_code == 200
    # Still once by each half.
    assert dev.errors.count("certificate_not_usable") == 2
    assert dev.stop() == 0


def test_a_stop_does_not_wait_for_clients_that_say_no_goodbye(
    control_plane: ControlPlane, authority: Authority
) -> None:
    dev = control_plane.start_dev(*authority.sign("server", HOST).options)
    with (
        socket.create_connection((HOST, control_plane.port), DEADLINE) as plain,
        authority.trusting().wrap_socket(plain, server_hostname=HOST),
        socket.create_connection((HOST, control_plane.port), DEADLINE),
        socket.create_connection((HOST, control_plane.grpc_port), DEADLINE) as stranger,
    ):
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stranger.recv(1000) == b""
        assert dev.stop() == 0
    # Nothing was cut short, and nobody's noise is in the log.
    assert "timeout" not in dev.errors
    assert "Handshake" not in dev.errors
    assert "relay_lost" not in dev.errors
