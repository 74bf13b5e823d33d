"""Who speaks TLS, and what is refused in one line that names the variable."""

from pathlib import Path

import pytest

from agent_orchestration.environment import CannotStart
from agent_orchestration.tls import connecting, serving
from agent_runner import settings as runner_settings
from ao_gateway import settings as gateway_settings
from ao_server import errors
from ao_server import settings as server_settings
from tests.authority import Authority

PREFIX = "AGENT_ORCHESTRATION_"


@pytest.mark.parametrize(
    ("server", "ca", "target", "speaks"),
    [
        ("h:1", False, "h:1", False),
        ("h:1", True, "h:1", True),
        ("https://h:1", False, "h:1", True),
        ("https://[::1]:1", True, "[::1]:1", True),
        ("http://h:1", False, "h:1", False),
        ("unix:/run/ao.sock", True, "unix:/run/ao.sock", False),
    ],
)
def test_the_address_says_whether_tls_is_spoken_else_the_authority(
    server: str, ca: bool, target: str, speaks: bool
) -> None:
    environment = {PREFIX + "TLS_CA": "ca.pem"} if ca else {}
    found, files = connecting(environment, server, "--server")
    assert (found, files is not None) == (target, speaks)
    assert files is None or (files.ca is not None) == ca


@pytest.mark.parametrize(
    ("names", "server", "problem"),
    [
        (["TLS_CA"], "http://h:1", "--server is without TLS .* AGENT_ORCHESTRATION_TLS_CA is set"),
        (["TLS_CERT"], "https://h:1", "AGENT_ORCHESTRATION_TLS_CERT needs AGENT_ORCHESTRATION_TLS_KEY"),
        (["TLS_CLIENT_KEY", "TLS_CERT"], "https://h:1", "_TLS_CLIENT_KEY needs AGENT_ORCHESTRATION_TLS_CLIENT_CERT"),
        (["TLS_KEY"], "https://h:1", "AGENT_ORCHESTRATION_TLS_KEY needs AGENT_ORCHESTRATION_TLS_CERT"),
    ],
)
def test_what_contradicts_itself_is_refused(names: list[str], server: str, problem: str) -> None:
    with pytest.raises(CannotStart, match=problem):
        connecting({PREFIX + name: "x.pem" for name in names}, server, "--server")


def test_half_of_what_serving_needs_is_refused() -> None:
    for given, problem in (
        ({"certificate": "c", "key": None, "client_ca": None}, "TLS_CERT needs .*TLS_KEY"),
        ({"certificate": None, "key": "k", "client_ca": None}, "TLS_KEY needs .*TLS_CERT"),
        ({"certificate": None, "key": None, "client_ca": "a"}, "TLS_CLIENT_CA needs .*TLS_CERT"),
    ):
        with pytest.raises(CannotStart, match=problem):
            serving({}, **given)
    both = serving({PREFIX + "TLS_CERT": "c", PREFIX + "TLS_KEY": "other"}, certificate=None, key="k", client_ca=None)
    assert both is not None
    assert both.key == Path("k").absolute()


def test_a_runner_with_a_certificate_of_no_use_does_not_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("runner", "runner")
    key = {PREFIX + "API_KEY": "ao_live_key"}
    with pytest.raises(runner_settings.BadSettings, match="AGENT_ORCHESTRATION_TLS_CERT is of use with TLS alone"):
        runner_settings.read("127.0.0.1:1", environment=key | pair.variables)
    address = runner_settings.read("https://127.0.0.1:1", environment=key | pair.variables)
    assert address.target == "127.0.0.1:1"
    assert address.tls is not None
    with pytest.raises(runner_settings.BadSettings, match=r"none\.pem cannot be read"):
        runner_settings.read(environment=key | {PREFIX + "TLS_CA": str(tmp_path / "none.pem")})


def test_listening_beyond_this_machine_takes_tls_or_a_word_that_a_proxy_brings_it() -> None:
    pair = {PREFIX + "TLS_CERT": "c", PREFIX + "TLS_KEY": "k"}
    for host in ("0.0.0.0", "::", "192.0.2.1", "ops.example.com", ""):
        for environment, insecure, starts in (({}, False, False), ({}, True, True), (pair, False, True)):
            if starts:
                _server(host, insecure, environment)
                _gateway(host, insecure, environment)
            else:
                with pytest.raises(errors.CannotStart, match="needs --tls-cert and --tls-key, or --insecure"):
                    _server(host, insecure, environment)
                with pytest.raises(CannotStart, match="needs --tls-cert and --tls-key, or --insecure"):
                    _gateway(host, insecure, environment)


def _server(host: str, insecure: bool, environment: dict[str, str]) -> None:
    server_settings.read(
        host=host, grpc_port=0, data_dir=None, database_url=None, insecure=insecure, environment=environment
    )


def _gateway(host: str, insecure: bool, environment: dict[str, str]) -> None:
    gateway_settings.read(host=host, port=0, server=None, data_dir=None, insecure=insecure, environment=environment)
