"""docs/tasks.md says what the code does."""

import re

from ao_server.engine import explanations, states
from tests.docs.tables import ROOT, table, words


def test_the_life_of_a_task_is_that_of_the_state_table() -> None:
    told = {(row[0], row[2].partition(":")[0]): row[1] for row in table("tasks.md", "from")}
    assert told == states.TASK


def test_every_code_of_an_explanation_is_explained() -> None:
    source = (ROOT / "server/ao_server/engine/explanations.py").read_text(encoding="utf-8")
    codes = set(re.findall(r'Explanation\(\s*"([a-z_]+)"', source)) | explanations.FINAL
    assert len(codes) > len(explanations.FINAL)
    assert {code for row in table("tasks.md", "code") for code in words(row[0])} == codes


def test_every_field_of_a_new_task_is_told() -> None:
    from agent_orchestration.v1 import tasks_pb2

    told = [row[0] for row in table("tasks.md", "field")]
    assert sorted(told) == sorted(field.name for field in tasks_pb2.CreateTaskRequest.DESCRIPTOR.fields)
    told = [name for row in table("tasks.md", "parameter") for name in words(row[0])]
    assert sorted(told) == sorted(field.name for field in tasks_pb2.ListTasksRequest.DESCRIPTOR.fields)
