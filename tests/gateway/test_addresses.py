"""Whose request it is: nobody can pretend to be somebody else but through a proxy that was named."""

from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ao_gateway import settings
from ao_gateway.addresses import TRUSTED_PROXIES, TrustedProxies, client_address, client_scheme, networks
from tests.gateway.conftest import DEADLINE, serving
from tests.gateway.scripted import ScriptedServer

PROXIES = "10.0.0.0/8, 192.0.2.7, 2001:db8:1::/48"


def scope(peer: str, *headers: tuple[str, str], trusted: str = PROXIES, scheme: str = "http") -> dict[str, Any]:
    return {
        "scheme": scheme,
        "client": (peer, 1234),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "state": {TRUSTED_PROXIES: TrustedProxies(networks(trusted))},
    }


def forwarded(peer: str, *values: str, trusted: str = PROXIES) -> str:
    return client_address(scope(peer, *(("X-Forwarded-For", value) for value in values), trusted=trusted))


@pytest.mark.parametrize(
    ("peer", "values", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.1.1.1", [], "10.1.1.1"),
        ("10.1.1.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.1.1.1", ["1.2.3.4, 198.51.100.1"], "198.51.100.1"),
        ("10.1.1.1", ["198.51.100.1, 10.2.2.2,192.0.2.7"], "198.51.100.1"),
        # One list, though it came as two headers.
        ("10.1.1.1", ["1.2.3.4", "198.51.100.1", "10.3.3.3"], "198.51.100.1"),
        # What is no address ends the reading.
        ("10.1.1.1", ["198.51.100.1, unknown, 10.3.3.3"], "10.3.3.3"),
        ("10.1.1.1", ["198.51.100.1,"], "10.1.1.1"),
        ("10.1.1.1", ["198.51.100.1 198.51.100.2"], "10.1.1.1"),
        ("10.1.1.1", ["_hidden"], "10.1.1.1"),
        ("10.1.1.1", ["010.1.1.1"], "10.1.1.1"),
        ("10.1.1.1", ["2130706433"], "10.1.1.1"),
        # All of them are proxies: the first.
        ("10.1.1.1", ["10.9.9.9, 10.8.8.8"], "10.9.9.9"),
        # Forms of one address.
        ("10.1.1.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.1.1.1", ["[2001:db8::5]:4711"], "2001:db8::5"),
        ("10.1.1.1", ["[2001:DB8:0:0::5]"], "2001:db8::5"),
        ("10.1.1.1", ["2001:db8::5"], "2001:db8::5"),
        ("10.1.1.1", ["[2001:db8::5"], "10.1.1.1"),
        ("10.1.1.1", ["[2001:db8::5]x"], "10.1.1.1"),
        ("10.1.1.1", ["198.51.100.1:x"], "10.1.1.1"),
        ("10.1.1.1", ["fe80::1%eth0"], "fe80::1"),
        ("10.1.1.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.1.1.1", ["198.51.100.1"], "198.51.100.1"),
        ("2001:db8:1::1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("127.0.0.1", ["198.51.100.1"], "127.0.0.1"),
    ],
)
def test_the_last_address_that_is_no_proxy_counts(peer: str, values: Sequence[str], client: str) -> None:
    assert forwarded(peer, *values) == client


def test_without_the_setting_nobody_is_believed() -> None:
    for peer in ("127.0.0.1", "::1", "10.1.1.1"):
        assert forwarded(peer, "198.51.100.1", trusted="") == peer
    for header in ("Forwarded", "X-Real-IP", "True-Client-IP", "X-Client-IP"):
        assert client_address(scope("10.1.1.1", (header, "198.51.100.1"))) == "10.1.1.1"
    assert forwarded("198.51.100.1", trusted="::ffff:10.0.0.0/104") == "198.51.100.1"
    assert forwarded("10.1.1.1", "198.51.100.1", trusted="::ffff:10.0.0.0/104") == "198.51.100.1"


@given(st.lists(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=30), max_size=5))
def test_what_a_client_writes_changes_nothing(written: list[str]) -> None:
    # The proxy adds the client that it sees behind whatever came.
    assert forwarded("10.1.1.1", *written, "198.51.100.1") == "198.51.100.1"
    assert forwarded("10.1.1.1", f"{','.join(written)}, 198.51.100.1, 10.4.4.4") == "198.51.100.1"
    assert forwarded("203.0.113.9", *written) == "203.0.113.9"


@given(st.ip_addresses(), st.sampled_from([None, 1, 65535]))
def test_every_address_is_read_in_every_form(address: Any, port: int | None) -> None:
    if address in TrustedProxies(networks(PROXIES)):
        return
    mapped = address.ipv4_mapped if address.version == 6 else None
    text = f"[{address}]" if address.version == 6 and port else str(address)
    assert forwarded("10.1.1.1", text if port is None else f"{text}:{port}") == str(mapped or address)


def test_a_long_list_of_proxies_is_not_read_to_its_end() -> None:
    assert forwarded("10.1.1.1", "198.51.100.1, " + ", ".join(["10.2.2.2"] * 10_000)) == "10.2.2.2"


@pytest.mark.parametrize(
    ("peer", "headers", "scheme", "client"),
    [
        ("10.1.1.1", ["https"], "http", "https"),
        ("10.1.1.1", ["https, http"], "http", "http"),
        ("10.1.1.1", ["http", "HTTPS"], "http", "https"),
        ("10.1.1.1", ["gopher"], "http", "http"),
        ("10.1.1.1", [], "wss", "https"),
        ("203.0.113.9", ["https"], "http", "http"),
        ("203.0.113.9", ["http"], "https", "https"),
    ],
)
def test_the_scheme_is_the_proxys_word_too(peer: str, headers: Sequence[str], scheme: str, client: str) -> None:
    said = [("X-Forwarded-Proto", value) for value in headers]
    assert client_scheme(scope(peer, *said, scheme=scheme)) == client


async def test_a_gateway_believes_the_proxies_of_its_setting(upstream: ScriptedServer) -> None:
    for trusted, scheme in (((), "http"), ([ip_network("127.0.0.0/8")], "https")):
        async with (
            serving(upstream, trusted_proxies=trusted) as running,
            httpx2.AsyncClient(timeout=DEADLINE, trust_env=False) as client,
        ):
            url = running.url.removesuffix("/v1") + "/docs"
            page = await client.get(url, headers={"X-Forwarded-Proto": "https", "Host": "ops.example.com"})
            assert f"curl {scheme}://ops.example.com/v1/agents" in page.text


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "proxy.example.com", "10.0.0.0/33", "*", "10.0.0.1;10.0.0.2", "[::1]"])
def test_a_proxy_that_is_no_address_ends_the_start(wrong: str) -> None:
    with pytest.raises(settings.CannotStart, match="AGENT_ORCHESTRATION_TRUSTED_PROXIES"):
        settings.read(
            host="127.0.0.1",
            port=0,
            server=None,
            data_dir=None,
            insecure=False,
            environment={"AGENT_ORCHESTRATION_TRUSTED_PROXIES": f"192.0.2.1, {wrong}"},
        )
