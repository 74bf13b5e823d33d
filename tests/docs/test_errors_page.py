"""docs/errors.md lists every code that the code has, with its statuses."""

import re
from pathlib import Path
from typing import Final

from google.rpc import code_pb2

from ao_gateway import errors as gateway_errors
from ao_server.api import errors as api_errors
from ao_server.engine import retries
from ao_server.errors import Problem
from tests.docs.tables import ROOT, table

# By HTTP alone: the server has no word for these.
_FROM_SOURCE: Final = re.compile(r'Refusal\(\s*(\d+), "([a-z_]+)"')
_NARROWER: Final = re.compile(r'raise (\w+)\([^)]*code="([a-z_]+)"')
_TASK_ERROR: Final = re.compile(r'Failure\(\s*"([a-z_]+)"')


def test_every_code_is_told_with_its_statuses() -> None:
    told = {(row[0], int(row[1])): row[2] for row in table("errors.md", "code")}
    statuses = {code: code_pb2.Code.Name(number) for code, number in _grpc().items()}
    http = {code: gateway_errors.from_status(_status(number, code)).status for code, number in _grpc().items()}
    expected = {(code, http[code]): name for code, name in statuses.items()}
    for status, code in _found(ROOT / "gateway", _FROM_SOURCE):
        expected.setdefault((code, int(status)), "")
    assert told == expected


def test_the_table_of_the_gateway_is_told() -> None:
    told = {(int(row[1]), row[0]) for row in table("errors.md", "code")}
    for http, code in gateway_errors._TABLE.values():  # pyright: ignore[reportPrivateUsage] - the page is about it
        assert (http, code) in told


def test_every_error_of_a_task_is_told() -> None:
    told = {row[0]: row[3] for row in table("errors.md", "word")}
    # What steps of workflows fail with has a page of its own.
    found = _found(ROOT / "server", _TASK_ERROR, besides="workflows")
    assert set(told) == {match[0] for match in found} | {"task_error"}
    assert {word for word, retried in told.items() if retried == "no"} == retries.FUTILE | {"lost"}


def _grpc() -> dict[str, int]:
    """Each code that the server gives, with the status that it comes with."""
    problems = {each.__name__: each for each in [Problem, *Problem.__subclasses__()]}
    found = {each.code: api_errors.status_of(each("")).code for each in problems.values()}
    for problem, code in _found(ROOT / "server", _NARROWER):
        found[code] = api_errors.status_of(problems[problem]("")).code
    return found


def _status(number: int, code: str) -> api_errors.status_pb2.Status:
    status = api_errors.status_of(Problem("", code=code))
    status.code = number
    return status


def _found(folder: Path, pattern: re.Pattern[str], besides: str = "") -> list[tuple[str, ...]]:
    paths = [path for path in sorted(folder.glob("ao_*/**/*.py")) if path.parent.name != besides]
    sources = [path.read_text(encoding="utf-8") for path in paths]
    found = [match.groups() for source in sources for match in pattern.finditer(source)]
    assert found
    return found
