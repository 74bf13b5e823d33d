"""Tasks that are created together are shown as each of them alone would be, however alike they are."""

from ao_server.api import messages
from ao_server.store import rows

FIRST = rows.Task(
    project_id="default",
    id="task_1",
    agent_id="agent_1",
    type="noop",
    priority=2,
    created_at=1_700_000_000_123_000,
    status="pending",
    agent_type="worker",
    queue="agent_1",
)


def like_the_first(number: int, **other: object) -> rows.Task:
    """A task made with the first, of which something may be different."""
    row = rows.copy_of(FIRST)
    row.id = f"task_{number}"
    for name, value in other.items():
        setattr(row, name, value)
    return row


def test_tasks_created_together_are_shown_as_each_alone() -> None:
    different = (
        {"agent_id": "", "queue": "type:worker"},
        {"type": "other"},
        {"priority": 0},
        {"created_at": FIRST.created_at + 1_000},
        {"labels": '{"a": "b"}'},
        {"timeout": 1_500_000},
        {"retry": '{"attempts": 0}'},
        {"run_at": 1_800_000_000_000_000, "ready_at": 1_800_000_000_000_000},
        {"retry_of": "task_0"},
        {"execution_id": "execution_1", "step_id": "load"},
        {"execution_id": "execution_1", "step_id": "load", "item": 0},
    )
    created = [FIRST, like_the_first(2), like_the_first(3)]
    for other in different:
        created += [like_the_first(len(created) + 1, **other), like_the_first(len(created) + 2, **other)]
    shown = messages.created_tasks(created).data
    assert list(shown) == [messages.task(row) for row in created]
    assert [task.id for task in shown] == [row.id for row in created]
    assert len({task.SerializeToString(deterministic=True) for task in shown}) == len(created)


def test_nothing_is_shown_of_tasks_that_are_not_there() -> None:
    assert not messages.created_tasks([]).data


def test_a_task_of_a_step_says_of_which_execution_step_and_item_it_is() -> None:
    of_item = messages.task(like_the_first(2, execution_id="execution_1", step_id="load", item=0))
    assert (of_item.execution_id, of_item.step_id, of_item.item) == ("execution_1", "load", 0)
    assert of_item.HasField("item"), "the first item is 0, and shown"
    of_step = messages.task(like_the_first(3, execution_id="execution_1", step_id="load"))
    assert (of_step.step_id, of_step.HasField("item")) == ("load", False)
    assert not any(messages.task(FIRST).HasField(name) for name in ("execution_id", "step_id", "item"))
