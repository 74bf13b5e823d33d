import pytest

from agent_orchestration.environment import PREFIX, CannotStart
from ao_gateway import settings


def public_url(given: str) -> str | None:
    return settings.read(
        host="127.0.0.1",
        port=0,
        server=None,
        data_dir="folder",
        insecure=False,
        environment={f"{PREFIX}PUBLIC_URL": given},
    ).public_url


@pytest.mark.parametrize("given", ["https://ao.example.com", "http://[::1]:3000", "https://ao.example.com:8443\r\n"])
def test_a_public_url_is_an_origin(given: str) -> None:
    assert public_url(given) == given.strip()


@pytest.mark.parametrize(
    "given",
    ["", "ao.example.com", "ftp://x", "https://x/", "https://x/v1", "https://x?y", "https://u:secret@x", "https://x y"],
)
def test_any_other_public_url_is_refused_in_one_line_that_does_not_repeat_it(given: str) -> None:
    with pytest.raises(CannotStart, match=f"^{PREFIX}PUBLIC_URL must be [^\n]*$") as refused:
        public_url(given)
    assert "secret" not in str(refused.value)
