"""`/.well-known/oauth-authorization-server`: what OAuth clients can find out by themselves (RFC 8414)."""

from typing import Any, Final

import msgspec

from agent_orchestration.scopes import SCOPES
from ao_gateway import origin
from ao_gateway.errors import malformed
from ao_gateway.oauth import REVOCATION_PATH, TOKEN_PATH
from ao_gateway.oauth_requests import GRANT_TYPE
from ao_gateway.rest import Answer, Request

METADATA_PATH: Final = "/.well-known/oauth-authorization-server"
AUTH_METHODS: Final = ("client_secret_basic", "client_secret_post")


class OAuthMetadata:
    """Serves the document, to anybody."""

    def __init__(self, public_url: str | None) -> None:
        """`public_url`: where clients reach the gateway, if not where they say that they do."""
        self._public_url = public_url

    async def serve(self, request: Request) -> Answer:
        """The document. It differs by where it is asked for, so that no cache may give it to others. Refusal with 400
        when it is not said where that is.
        """
        issuer = self._public_url or origin.of(request)
        if issuer is None:
            raise malformed("The Host header does not name a host")
        return Answer(200, msgspec.json.encode(document(issuer)))


def document(issuer: str) -> dict[str, Any]:
    """What is said of the endpoints at an issuer's address."""
    return {
        "issuer": issuer,
        "token_endpoint": issuer + TOKEN_PATH,
        "token_endpoint_auth_methods_supported": AUTH_METHODS,
        "revocation_endpoint": issuer + REVOCATION_PATH,
        "revocation_endpoint_auth_methods_supported": AUTH_METHODS,
        "grant_types_supported": [GRANT_TYPE],
        # It may be neither absent nor empty, and there is no endpoint that has response types.
        "response_types_supported": ["none"],
        "scopes_supported": SCOPES,
    }
