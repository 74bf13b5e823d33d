"""docs/operations.md names every setting, with the defaults and ranges that hold."""

import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from agent_orchestration.environment import PREFIX
from agent_runner import settings as runner_settings
from ao_gateway import settings as gateway_settings
from ao_server import settings as server_settings
from ao_server.errors import CannotStart
from tests.docs.tables import table

NUMBERS: Final = {
    "LEASE_SECONDS": ("lease", 1),
    "EVENT_RETENTION_HOURS": ("event_retention", 3600),
    "AUDIT_RETENTION_DAYS": ("audit_retention", 86400),
    "DISK_ALERT_PERCENT": ("disk_alert", 1),
}


class _Asked(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self, **values: str) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def test_every_variable_is_told_with_who_reads_it() -> None:
    told = {
        row[0]: {word for word in re.findall(r"server|gateway|runner", row[4])}
        for row in table("operations.md", "variable")
    }
    server, gateway, runner = _Asked(), _Asked(), _Asked(AGENT_ORCHESTRATION_API_KEY="ao_live_key")
    _server(server)
    gateway_settings.read(host="127.0.0.1", port=0, server=None, data_dir=None, insecure=False, environment=gateway)
    runner_settings.read(environment=runner)
    read: dict[str, set[str]] = {}
    for half, asked in (("server", server), ("gateway", gateway), ("runner", runner)):
        for name in asked.names:
            read.setdefault(name, set()).add(half)
    assert told == read


@pytest.mark.parametrize("name", NUMBERS)
def test_defaults_and_ranges_hold(name: str) -> None:
    (row,) = [row for row in table("operations.md", "variable") if row[0] == PREFIX + name]
    field, unit = NUMBERS[name]
    assert getattr(_server(_Asked()), field) == float(row[2]) * unit
    least, most = map(float, row[3].split(" to "))
    for number in (least, most):
        assert getattr(_server(_Asked(**{PREFIX + name: str(number)})), field) == number * unit
    for number in _beyond(least, most):
        with pytest.raises(CannotStart):
            _server(_Asked(**{PREFIX + name: str(number)}))


def _beyond(least: float, most: float) -> Iterator[float]:
    yield least - 0.0005
    yield most + 0.0005


def _server(environment: _Asked) -> server_settings.Settings:
    return server_settings.read(
        host="127.0.0.1", grpc_port=0, data_dir=None, database_url=None, environment=environment
    )
