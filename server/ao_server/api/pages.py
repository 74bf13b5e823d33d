"""Which page of a list a request asks for."""

from dataclasses import dataclass
from typing import Any, Final, Protocol

from agent_orchestration.v1 import common_pb2
from ao_server.errors import Invalid
from ao_server.store.reader import Page

DEFAULT_LIMIT: Final = 20


class _Asked(Protocol):
    page: int
    limit: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A page by its number, or by the object in front of it."""

    page: int
    limit: int
    starting_after: str | None = None

    def pagination(self, page: Page[Any]) -> common_pb2.Pagination:
        """Where the page stands."""
        pages = -(-page.total // self.limit)
        return common_pb2.Pagination(page=self.page, limit=self.limit, total=page.total, pages=pages)


def of(request: _Asked) -> Asked:
    """The page of a list that has numbers alone."""
    return Asked(request.page or 1, request.limit or DEFAULT_LIMIT)


def keyset(request: _Asked, starting_after: str) -> Asked:
    """The page of a list that can also begin behind an object. Invalid when both are given."""
    asked = of(request)
    if not starting_after:
        return asked
    if request.page:
        raise Invalid.field("starting_after", "cannot be given together with page")
    return Asked(asked.page, asked.limit, starting_after)
