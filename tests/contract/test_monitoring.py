"""Health, metrics and events beyond the thin path, over REST and gRPC alike."""

import pytest

from agent_orchestration.v1 import runners_pb2
from tests.contract.conftest import Api


async def test_metrics_show_what_finished_in_the_documented_shape(api: Api) -> None:
    agent_id = await api.agent()
    async with api.runner(agent_id) as runner:
        for outcome in ({"result": "{}"}, {"failure": runners_pb2.Failure(message="boo")}):
            task_id = await api.task(agent_id)
            await runner.assigned()
            assert await runner.finish(task_id, 1, **outcome)
    for period in ("1h", "24h", "7d", "30d"):
        data = (await api.get("/metrics", period=period)).data
        assert data["period"] == period
        assert data["metrics"].keys() == {"task_completion_rate", "response_time", "error_rate"}
        completion, error = data["metrics"]["task_completion_rate"], data["metrics"]["error_rate"]
        assert [point.keys() for point in completion] == [{"timestamp", "value"}] * len(completion)
        assert 0 < completion[-1]["value"] < 100
        assert completion[-1]["value"] + error[-1]["value"] == pytest.approx(100, abs=0.02)
        assert [point["timestamp"] for point in completion] == sorted(point["timestamp"] for point in completion)
    only = (await api.get("/metrics", metric="error_rate")).data
    assert (only["period"], list(only["metrics"])) == ("24h", ["error_rate"])
    assert (await api.get("/metrics", period="2h")).fields == ["period"]
    assert (await api.get("/metrics", metric="speed")).fields == ["metric"]


async def test_health_has_every_printed_field_and_counts_delayed_tasks_as_pending(api: Api) -> None:
    before = (await api.get("/health")).json
    agent_id = await api.agent()
    task_id = await api.task(agent_id, schedule={"type": "delayed", "delay": 3600})
    health = (await api.get("/health")).json
    assert health.keys() == {"status", "timestamp", "services", "metrics"}
    assert health["services"].keys() == {"database", "redis", "message_queue"}
    assert health["metrics"].keys() == {
        "active_agents",
        "running_tasks",
        "completed_tasks_today",
        "system_load",
        "memory_usage",
        "disk_usage",
    }
    pending = [each["services"]["message_queue"]["pending_messages"] for each in (before, health)]
    assert pending[1] == pending[0] + 1
    await api.post(f"/tasks/{task_id}/cancel")
