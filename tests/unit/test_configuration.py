import pytest

from ao_server.engine import configuration
from ao_server.engine.configuration import Settings
from ao_server.errors import Invalid


@pytest.mark.parametrize("key", ["timeout", "max_concurrent_tasks", "retry_attempts"])
def test_of_a_key_that_stands_there_twice_the_last_counts(key: str) -> None:
    good = f'{{"{key}": "x", "{key}": 5}}'
    configuration.check(good)
    assert getattr(configuration.settings_of(good), key) == 5
    with pytest.raises(Invalid):
        configuration.check(f'{{"{key}": 5, "{key}": "x"}}')


def test_what_passes_is_read_and_the_rest_has_defaults() -> None:
    text = '{"timeout": 7, "other": {"timeout": "x"}, "max_concurrent_tasks": 3}'
    configuration.check(text)
    assert configuration.settings_of(text) == Settings(max_concurrent_tasks=3, timeout=7.0)
    assert type(configuration.settings_of(text).timeout) is float
    assert configuration.settings_of("{}") == Settings()
