import pytest

from agent_orchestration.environment import PREFIX
from ao_server import settings
from ao_server.errors import CannotStart


def read(**environment: str) -> settings.Settings:
    return settings.read(
        host="127.0.0.1",
        grpc_port=0,
        data_dir="folder",
        database_url=None,
        environment={PREFIX + name: value for name, value in environment.items()},
    )


@pytest.mark.parametrize("ending", ["", "\r", "\n", "\r\n", "  "])
def test_a_key_read_from_a_file_made_elsewhere_is_trimmed(ending: str) -> None:
    assert read(API_KEY="12345678" + ending).admin_key == "12345678"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", ""),
        ("API_KEY", "12345"),
        ("API_KEY", "k" * 4097),
        ("API_KEY", "schlüssel-schlüssel"),
        ("API_KEY", "two words in it"),
        ("GATEWAY_KEY", "\r\n"),
        ("RATE_LIMIT_PER_HOUR", "10o"),
        ("RATE_LIMIT_PER_HOUR", "-1"),
        ("RATE_LIMIT_PER_MINUTE", "1e3"),
        ("LEASE_SECONDS", "nan"),
        ("LEASE_SECONDS", "0"),
        ("LEASE_SECONDS", "soon"),
    ],
)
def test_a_bad_setting_is_refused_in_one_line_that_names_it_and_not_its_value(name: str, value: str) -> None:
    with pytest.raises(CannotStart) as refusal:
        read(**{name: value})
    text = str(refusal.value)
    assert PREFIX + name in text
    assert "\n" not in text
    assert len(value) < 3 or value not in text


def test_one_key_cannot_be_the_admins_and_the_gateways() -> None:
    with pytest.raises(CannotStart, match="GATEWAY_KEY must differ"):
        read(API_KEY="12345678", GATEWAY_KEY="12345678")


def test_limits_that_come_later_are_accepted_already() -> None:
    assert read().limits == (1000, 100)
    assert read(RATE_LIMIT_PER_HOUR="0", RATE_LIMIT_PER_MINUTE=" 50\n").limits == (0, 50)
