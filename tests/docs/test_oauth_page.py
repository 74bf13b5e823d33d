"""docs/oauth.md lists every error of the OAuth endpoints with its statuses."""

from collections.abc import Iterator

from ao_gateway import oauth_errors, oauth_requests
from ao_gateway.errors import Refusal
from ao_gateway.oauth_errors import OAuthError
from tests.docs.tables import table, words

STATUSES_OF_BODIES = (408, 413, 415)


def test_every_error_is_told_with_its_statuses() -> None:
    told = {(row[0], int(status)) for row in table("oauth.md", "error") for status in words(row[1])}
    assert told == {(each.code, each.status) for each in errors()}


def errors() -> Iterator[OAuthError]:
    yield oauth_errors.invalid_request("")
    yield oauth_errors.invalid_client()
    yield oauth_errors.invalid_scope()
    yield oauth_errors.too_many_failures(1)
    yield oauth_errors.unavailable("")
    for status in (*STATUSES_OF_BODIES, 500, 503):
        yield oauth_errors.from_refusal(Refusal(status, "", ""))
    try:
        oauth_requests.check_grant({"grant_type": "password"})
    except OAuthError as error:
        yield error
