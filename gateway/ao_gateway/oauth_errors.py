"""What the OAuth endpoints refuse with: the shape of RFC 6749 section 5.2, which clients know, not that of REST."""

from dataclasses import dataclass, field
from typing import Final

import msgspec

from ao_gateway.errors import RETRY_AFTER_SECONDS, Headers, Refusal
from ao_gateway.rest import Answer, Request, Serve

# Tokens are for nobody's cache.
# Beside `Cache-Control: no-store`, which all data has (RFC 6749, 5.1).
NOT_STORED: Final[Headers] = [(b"pragma", b"no-cache")]
_CHALLENGE: Final = (b"www-authenticate", b'Basic realm="oauth", charset="UTF-8"')


@dataclass(eq=False)
class OAuthError(Exception):
    """A refusal: `code` is one of the RFC's words, or one that is common beside them; `description` is for people."""

    code: str
    description: str
    status: int = 400
    headers: Headers = field(default_factory=lambda: [])

    def __str__(self) -> str:
        return f"{self.code}: {self.description}"

    def answer(self) -> Answer:
        """As it is printed."""
        body = msgspec.json.encode({"error": self.code, "error_description": self.description})
        return Answer(self.status, body, [*NOT_STORED, *self.headers])


def invalid_request(description: str) -> OAuthError:
    """400: something is missing, doubled or malformed."""
    return OAuthError("invalid_request", description)


def invalid_client() -> OAuthError:
    """401: the same whether the client is unknown or its secret is wrong."""
    return unauthenticated("The client or its secret is not valid")


def unauthenticated(description: str) -> OAuthError:
    """401 with the challenge that HTTP asks for."""
    return OAuthError("invalid_client", description, 401, [_CHALLENGE])


def invalid_scope() -> OAuthError:
    """400: nothing of what was asked for is echoed."""
    return OAuthError("invalid_scope", "The client does not have all of the scopes that are asked for")


def too_many_failures(seconds: int) -> OAuthError:
    """429: the address has to wait."""
    description = "Too many logins from this address have failed"
    return OAuthError("too_many_requests", description, 429, [_retry_after(seconds)])


def too_many_tokens(refusal: Refusal) -> OAuthError:
    """429: the client has had as many as it may."""
    return OAuthError("too_many_requests", refusal.message, 429, refusal.headers)


def unavailable(description: str) -> OAuthError:
    """503: not now."""
    return OAuthError("temporarily_unavailable", description, 503, [_retry_after(RETRY_AFTER_SECONDS)])


def answering(serve: Serve) -> Serve:
    """The same endpoint, with all refusals in this shape."""

    async def answer(request: Request) -> Answer | None:
        try:
            return await serve(request)
        except OAuthError as error:
            return error.answer()
        except Refusal as refusal:
            return from_refusal(refusal).answer()

    return answer


def from_refusal(refusal: Refusal) -> OAuthError:
    """What is said elsewhere of a body, in the words of this shape; its status and headers stay."""
    code = {500: "server_error", 503: "temporarily_unavailable"}.get(refusal.status, "invalid_request")
    return OAuthError(code, refusal.message, refusal.status, refusal.headers)


def _retry_after(seconds: int) -> tuple[bytes, bytes]:
    return (b"retry-after", str(seconds).encode())
