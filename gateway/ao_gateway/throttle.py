"""Failed logins slow down who fails, by address: pure but for the clock, which is given."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final

# So many failures within so many seconds, and an address has to wait.
MAX_FAILURES: Final = 5
WINDOW_SECONDS: Final = 60.0
# The first wait is one second, each further one twice the last, up to this.
MAX_WAIT_SECONDS: Final = 60
# Beyond it the address that has not failed for the longest time is forgotten.
MAX_ADDRESSES: Final = 10_000
# Whoever has an IPv6 address has as many as there are in this part of it.
_NETWORK_BYTES: Final = 8


@dataclass(slots=True)
class _Failing:
    """An address that has failed. `wait` in seconds, 0 while it may go on; `until` is when the wait is over."""

    failures: deque[float] = field(default_factory=lambda: deque[float](maxlen=MAX_FAILURES))
    wait: int = 0
    until: float = 0.0
    # After a wait one try is let through, and the others wait for what becomes of it.
    is_trying: bool = False


class Throttle:
    """Knows the addresses from which logins failed a short while ago."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failing: dict[bytes, _Failing] = {}

    def wait(self, address: str) -> int:
        """How long a login from the address has to wait, in whole seconds; 0: it may be tried now.

        Whoever is told 0 says what became of it, unless nobody can know.
        """
        failing = self._current(network(address))
        if failing is None or not failing.wait:
            return 0
        now = self._monotonic()
        if now < failing.until:
            return ceil(failing.until - now)
        failing.until = now + failing.wait
        failing.is_trying = True
        return 0

    def failed(self, address: str) -> int:
        """A login failed. When the address has to wait for it: how many seconds; otherwise 0."""
        key = network(address)
        failing = self._current(key) or _Failing()
        self._failing.pop(key, None)
        self._failing[key] = failing
        if len(self._failing) > MAX_ADDRESSES:
            del self._failing[next(iter(self._failing))]
        now = self._monotonic()
        if failing.is_trying:
            failing.is_trying = False
            failing.wait = min(MAX_WAIT_SECONDS, 2 * failing.wait)
        elif failing.wait:
            # It was let in together with those that failed before.
            return 0
        else:
            failing.failures.append(now)
            if len(failing.failures) < MAX_FAILURES or now - failing.failures[0] > WINDOW_SECONDS:
                return 0
            failing.wait = 1
        failing.until = now + failing.wait
        return failing.wait

    def succeeded(self, address: str) -> None:
        """A login succeeded: what was before is forgiven."""
        self._failing.pop(network(address), None)

    def _current(self, key: bytes) -> _Failing | None:
        """What is known of an address, unless it was quiet for long after its last wait."""
        failing = self._failing.get(key)
        if failing is not None and failing.wait and self._monotonic() > failing.until + WINDOW_SECONDS:
            del self._failing[key]
            return None
        return failing


def network(address: str) -> bytes:
    """What counts as one address: an IPv4 address, the first half of an IPv6 address, or whatever it is instead."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address.encode()
    if not isinstance(parsed, IPv6Address):
        return parsed.packed
    return parsed.packed[:_NETWORK_BYTES] if parsed.ipv4_mapped is None else parsed.ipv4_mapped.packed
