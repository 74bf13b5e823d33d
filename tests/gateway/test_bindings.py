import pytest

from ao_gateway.app import FILES
from ao_gateway.bindings import BadBinding, Paths, read


def paths(*added: str) -> Paths[str]:
    built: Paths[str] = Paths()
    for path in added:
        built.add("GET", path, path)
    return built


def test_the_documented_routes_are_there() -> None:
    assert {f"{each.http_method} {each.path}" for each in read(FILES)} >= {
        "GET /v1/agents",
        "POST /v1/agents",
        "GET /v1/agents/{agent_id}",
        "GET /v1/tasks",
        "POST /v1/tasks",
        "GET /v1/tasks/{task_id}",
        "GET /v1/health",
        "PUT /v1/agents/{agent_id}",
        "DELETE /v1/agents/{agent_id}",
        "POST /v1/tasks/bulk",
        "GET /v1/metrics",
        "GET /v1/events",
        "GET /v1/audit",
    }
    assert [each.path for each in read(FILES) if each.is_stream] == ["/v1/audit/export", "/v1/events"]


def test_a_literal_goes_before_a_parameter_but_does_not_hide_it() -> None:
    built = paths("/v1/tasks/{task_id}", "/v1/tasks/bulk", "/v1/tasks/{task_id}/logs", "/v1/tasks/bulk/x")
    for path, target, values in (
        (b"/v1/tasks/bulk", "/v1/tasks/bulk", []),
        (b"/v1/tasks/t%20%C3%A91", "/v1/tasks/{task_id}", ["t é1"]),
        (b"/v1/tasks/bulk/logs", "/v1/tasks/{task_id}/logs", ["bulk"]),
        (b"/v1/tasks/a%2Fb", "/v1/tasks/{task_id}", ["a/b"]),
    ):
        found = built.find(path)
        assert found is not None
        assert (found.targets["GET"], found.values) == (target, values)


@pytest.mark.parametrize(
    "path", [b"", b"/", b"*", b"/v1/tasks/", b"//v1/tasks", b"/V1/tasks", b"/v1/tasks/%00", b"/v1/tasks/%ff", b"/v1"]
)
def test_no_path(path: bytes) -> None:
    assert paths("/v1/tasks", "/v1/tasks/{task_id}").find(path) is None


def test_two_routes_that_cannot_be_told_apart_are_refused() -> None:
    built = paths("/v1/tasks/{task_id}")
    built.add("POST", "/v1/tasks/{task_id}", "post")
    with pytest.raises(BadBinding, match="more than one"):
        built.add("GET", "/v1/tasks/{id}", "other")
