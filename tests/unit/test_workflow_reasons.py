"""Why steps do not run."""

import pytest

from ao_server.engine.workflows import reasons
from ao_server.engine.workflows.definition import Step, compiled
from ao_server.store import rows


@pytest.mark.parametrize(
    ("phase", "status", "told"),
    [
        ("cancelling", "running", "was cancelled"),
        ("ended", "cancelled", "was cancelled"),
        ("failing", "running", "failed"),
        ("ended", "failed", "failed"),
    ],
)
def test_a_cancelled_step_says_what_became_of_its_execution(phase: str, status: str, told: str) -> None:
    execution = rows.Execution(
        project_id="p", id="e", workflow_id="w", version=1, priority=2, created_at=1, phase=phase, status=status
    )
    steps = {0: rows.ExecutionStep(project_id="p", execution_id="e", place=0, status="cancelled")}
    reason = reasons.explain(compiled([Step("a", "a", agent_type="t")]), execution, steps, 0, None)
    assert (reason.code, reason.message) == ("cancelled", f"the execution {told} before it had ended")
