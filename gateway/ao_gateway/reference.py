"""The reference: the OpenAPI document and a page to read it, made once, served to anybody without a credential."""

from collections.abc import Iterable
from typing import Final

import msgspec

from ao_gateway import openapi, origin, protection, reference_page
from ao_gateway.bindings import Binding
from ao_gateway.errors import Headers
from ao_gateway.rest import Answer, Request

DOCUMENT_PATH: Final = "/v1/openapi.json"
PAGE_PATH: Final = "/docs"

_ORIGIN: Final = reference_page.ORIGIN.encode()
_CACHING: Final[Headers] = [(b"cache-control", b"no-cache")]
_POLICY: Final[Headers] = [(b"content-security-policy", reference_page.SECURITY_POLICY.encode())]


class Reference:
    """Serves both."""

    def __init__(self, bindings: Iterable[Binding]) -> None:
        document = openapi.document(bindings)
        self._document = msgspec.json.encode(document)
        self._page = reference_page.page(document).encode()

    async def document(self, request: Request) -> Answer:
        """The OpenAPI document."""
        return Answer(200, self._document, protection=_CACHING + protection.POLICY)

    async def page(self, request: Request) -> Answer:
        """The page; its curl lines go to where the reader reached the gateway."""
        reached = origin.of(request)
        page = self._page if reached is None else self._page.replace(_ORIGIN, reached.encode())
        return Answer(200, page, content_type=b"text/html; charset=utf-8", protection=_CACHING + _POLICY)
