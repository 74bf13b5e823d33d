"""Fields of a request that come as HTTP headers, such as `Idempotency-Key`; the body may hold them as well."""

from collections.abc import Mapping
from typing import Any

from ao_gateway.errors import MAX_VIOLATIONS, Headers, Violation


class HeaderReader:
    """Fills the fields of one request type. `fields` names each field's header."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._names = dict(fields)
        self._by_header = {header.lower().encode(): name for name, header in fields.items()}

    def fill(self, fields: dict[str, Any], headers: Headers, violations: list[Violation]) -> None:
        """Adds what the headers hold to the fields of the request.

        A violation names the field whose header is given twice, is empty, or holds what is not printable ASCII, and the
        one that the body holds with another value.
        """
        given: dict[str, str] = {}
        for header, value in headers:
            if len(violations) >= MAX_VIOLATIONS:
                break
            name = self._by_header.get(header)
            if name is None:
                continue
            wrong = "must be given once" if name in given else _wrong(value)
            if wrong is not None:
                violations.append(Violation(name, f"the header {self._names[name]} {wrong}"))
            given[name] = value.decode("latin-1").strip(" \t")
        for name, text in given.items():
            if fields.setdefault(name, text) != text:
                violations.append(Violation(name, f"is not the same as the header {self._names[name]}"))


def _wrong(value: bytes) -> str | None:
    value = value.strip(b" \t")
    if not value:
        return "must not be empty"
    if not all(32 <= byte <= 126 for byte in value):
        return "must be printable ASCII"
    return None
