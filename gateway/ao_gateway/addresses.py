"""Where a request comes from. Forwarding headers are believed of proxies that were named, and of nobody else."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from starlette.types import Scope

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Where the application's state holds the proxies.
TRUSTED_PROXIES: Final = "trusted_proxies"
# More proxies in a row than anybody has: a list that claims more is not read to its end.
MAX_HOPS: Final = 32
_SCHEMES: Final = frozenset({"http", "https"})


class TrustedProxies:
    """The addresses and networks of the proxies in front of the gateway."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)

    def __contains__(self, address: object) -> bool:
        return any(address in network for network in self._networks)

    def __bool__(self) -> bool:
        return bool(self._networks)


def networks(text: str) -> list[Network]:
    """Addresses and networks separated by commas; none is fine. ValueError, with the part that is wrong, for another.

    An IPv4 network may be written as IPv6 has it (`::ffff:10.0.0.0/104`).
    """
    found: list[Network] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            network = ip_network(part)
        except ValueError:
            raise ValueError(part) from None
        if network.version == 6 and network.prefixlen >= 96:
            mapped = network.network_address.ipv4_mapped
            network = network if mapped is None else IPv4Network((mapped, network.prefixlen - 96))
        found.append(network)
    return found


def client_address(scope: Scope) -> str:
    """The address of the client of an HTTP request or WebSocket, as text in its one short form.

    It is the peer of the connection; behind a trusted proxy, what X-Forwarded-For says: the last address in it that is
    not a trusted proxy itself. Whatever stands before an entry that is no address counts for nothing: whoever wrote
    that did not know. Empty when the connection has no address.
    """
    peer = _peer(scope)
    if peer is None:
        return ""
    proxies = _proxies(scope)
    if peer not in proxies:
        return str(peer)
    for hop, entry in enumerate(_from_the_right(scope, b"x-forwarded-for")):
        address = _parsed(entry)
        if address is None or hop == MAX_HOPS:
            break
        peer = address
        if peer not in proxies:
            break
    return str(peer)


def client_scheme(scope: Scope) -> str:
    """`https` or `http`: what the client spoke to the first of us. Behind a trusted proxy, what X-Forwarded-Proto says
    last.
    """
    scheme = "https" if scope["scheme"] in ("https", "wss") else "http"
    if _peer(scope) in _proxies(scope):
        said = next(_from_the_right(scope, b"x-forwarded-proto"), "").lower()
        return said if said in _SCHEMES else scheme
    return scheme


def _peer(scope: Scope) -> Address | None:
    client = scope.get("client")
    return _parsed(client[0]) if client else None


def _proxies(scope: Scope) -> TrustedProxies:
    proxies = scope["state"].get(TRUSTED_PROXIES)
    return proxies if isinstance(proxies, TrustedProxies) else TrustedProxies()


def _from_the_right(scope: Scope, header: bytes) -> Iterator[str]:
    """The entries of a list in a header, the last one first; a header that comes twice is one list."""
    for name, value in reversed(scope["headers"]):
        if name == header:
            rest, comma = value.decode("latin-1"), ","
            while comma:
                rest, comma, entry = rest.rpartition(",")
                yield entry.strip(" \t")


def _parsed(text: str) -> Address | None:
    """An address with or without its port and, in IPv6, brackets and zone; IPv4 within IPv6 is IPv4."""
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not _is_port(port.removeprefix(":"))):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not _is_port(port):
            return None
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5
