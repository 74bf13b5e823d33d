"""A control plane of real processes with OAuth clients, and people who log in from addresses of their own."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx2

from tests.e2e.processes import ControlPlane

DEADLINE: Final = 10.0
# All of 127.0.0.0/8 is this machine. Whoever fails to log in slows down his own address alone.
_addresses: Final[Iterator[int]] = count(2)


class OAuthPlane:
    """A server, a gateway, and one client of theirs with the scopes of tasks."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.origin = f"http://127.0.0.1:{plane.port}"
        self.id, self.secret = self.create()
        self.body = {"grant_type": "client_credentials", "client_id": self.id, "client_secret": self.secret}

    def create(self, *scopes: str, **more: Any) -> tuple[str, str]:
        """The id and the secret of a new client."""
        with self.plane.client() as admin:
            body = {"name": "Billing", "scopes": scopes or ("tasks:read", "tasks:write")} | more
            made = admin.post("/oauth/clients", json=body)
            assert made.status_code == 201, made.text
            return made.json()["data"]["client_id"], made.json()["data"]["client_secret"]

    @contextmanager
    def stranger(self, headers: dict[str, str] | None = None) -> Generator[httpx2.Client]:
        """An HTTP client of paths from the root, at an address that nobody else has."""
        transport = httpx2.HTTPTransport(local_address=f"127.0.9.{next(_addresses)}")
        with httpx2.Client(
            base_url=self.origin, transport=transport, headers=headers, timeout=DEADLINE, trust_env=False
        ) as client:
            yield client

    def token(self, client: httpx2.Client, **more: Any) -> str:
        """An access token."""
        answer = client.post("/oauth/token", json=self.body | more)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]


@contextmanager
def serving(folder: Path, log_level: str = "info") -> Generator[OAuthPlane]:
    """It runs for as long as the context lasts."""
    with ControlPlane(folder) as plane:
        plane.start_server("--log-level", log_level)
        plane.start_gateway("--log-level", log_level)
        yield OAuthPlane(plane)
