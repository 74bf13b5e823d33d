"""Which agents may take tasks."""

from typing import Any, cast

import pytest

from ao_server.api import takers
from ao_server.store import agents, rows


class _Registry:
    def taker(self, agent: str) -> str:
        return agent


def _task(name: str, agent_type: str, agent_id: str = "") -> rows.Task:
    return rows.Task(
        project_id="p",
        id=name,
        agent_id=agent_id,
        agent_type=agent_type,
        queue=agent_type,
        type="work",
        priority=2,
        created_at=1,
        status="pending",
    )


async def test_the_agents_of_a_type_are_read_once_for_all_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    async def of_type(reader: Any, project_id: str, agent_type: str) -> list[str]:
        read.append(agent_type)
        return [f"agent of {agent_type}"]

    async def get(reader: Any, project_id: str, agent_id: str) -> str:
        read.append(agent_id)
        return agent_id

    monkeypatch.setattr(agents, "of_type", of_type)
    monkeypatch.setattr(agents, "get", get)
    tasks = [_task("1", "a"), _task("2", "b"), _task("3", "a"), _task("4", "a", agent_id="its own")]
    found = await takers.of_each(tasks, cast(Any, None), cast(Any, _Registry()))
    assert found == {"1": ["agent of a"], "2": ["agent of b"], "3": ["agent of a"], "4": ["its own"]}
    assert read == ["a", "b", "its own"]
