"""Secrets of credentials."""

import base64

import pytest

from ao_server.engine import secrets


@pytest.mark.parametrize("prefix", [secrets.KEY, secrets.CLIENT, secrets.TOKEN, secrets.GATEWAY])
def test_secrets_are_random_and_long(prefix: str) -> None:
    made = {secrets.new(prefix) for _ in range(100)}
    assert len(made) == 100
    for secret in made:
        assert secret.startswith(prefix) and secret.isascii()
        assert len(base64.urlsafe_b64decode(secret.removeprefix(prefix) + "=")) * 8 >= 256


def test_of_a_secret_only_a_few_characters_are_shown_and_none_of_one_that_is_not_ours() -> None:
    secret = secrets.new(secrets.KEY)
    assert secrets.beginning(secret) == secret[:12] and len(secret) > 40
    assert secrets.beginning("chosen by somebody") == ""
