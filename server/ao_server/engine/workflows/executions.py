"""What people ask of executions: to begin, to stop, to go on, and what they decide of approvals.

Only the wish is written here. What follows from it comes about in the same transaction (see `planning`).
"""

from typing import Final

import msgspec

from ao_server.engine.ids import Ids
from ao_server.engine.workflows import work
from ao_server.errors import Conflict, NotFound
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation

# Characters of a rejection that are kept as the error of its step.
MAX_REASON: Final = 2_000


def execute(project_id: str, workflow_id: str, parameters: str, priority: int, ids: Ids) -> Operation[rows.Execution]:
    """Begins an execution of the newest version; answers it as it is before anything has begun.

    `parameters` is the text of a JSON object. NotFound; Conflict when the workflow is archived.
    """

    def decide(found: Found, now: int) -> Changes[rows.Execution]:
        workflow = found.get(rows.Workflow, project_id, workflow_id)
        if workflow is None:
            raise NotFound("there is no such workflow")
        if workflow.status == "archived":
            raise Conflict("the workflow is archived: it is not executed any more")
        new = work.NewExecution(project_id, workflow_id, workflow.version, priority, parameters)
        return work.execution(new, ids, now)

    return Operation(decide, keys=[Key(rows.Workflow, (project_id, workflow_id))])


def cancel(project_id: str, execution_id: str) -> Operation[rows.Execution]:
    """Asks an execution to stop. NotFound; Conflict when it is completed or failed."""

    def decide(found: Found, now: int) -> Changes[rows.Execution]:
        execution = _existing(found, project_id, execution_id)
        if execution.status == "cancelled" or (execution.phase != "ended" and execution.cancel_requested_at):
            return Changes(execution)
        if execution.phase == "ended":
            raise Conflict(f"the execution is {execution.status} already")
        after = rows.copy_of(execution)
        after.cancel_requested_at = now
        return Changes(after, [after])

    return Operation(decide, keys=[Key(rows.Execution, (project_id, execution_id))])


def retry(project_id: str, execution_id: str) -> Operation[rows.Execution]:
    """Lets a failed or cancelled execution go on. NotFound; Conflict when it is neither, when steps of it were undone,
    and when it is of the step of another.
    """

    def decide(found: Found, now: int) -> Changes[rows.Execution]:
        execution = _existing(found, project_id, execution_id)
        if execution.status not in ("failed", "cancelled"):
            raise Conflict(f"the execution is {execution.status}: only a failed or cancelled one can be retried")
        if execution.parent_id is not None:
            raise Conflict(f"the execution is a step of {execution.parent_id}: retry that one")
        if execution.compensates:
            raise Conflict("steps of the execution were undone: execute the workflow anew")
        after = rows.copy_of(execution)
        # Said at once: of two retries in one transaction the second finds it running.
        after.status, after.phase, after.completed_at, after.cancel_requested_at = "running", "forward", None, None
        after.retries += 1
        return Changes(after, [after])

    return Operation(decide, keys=[Key(rows.Execution, (project_id, execution_id))])


def decide(
    project_id: str, execution_id: str, place: int, decision: str, who: str, comment: str | None
) -> Operation[rows.ExecutionStep]:
    """Approves or rejects the approval step in this place. `decision`: approved or rejected.

    NotFound; Conflict when the step is not waited for. The same again is fine.
    """
    step_key = Key(rows.ExecutionStep, (project_id, execution_id, place))
    output_key = Key(rows.ExecutionValue, (project_id, execution_id, work.OUTPUT, place))

    def decide(found: Found, now: int) -> Changes[rows.ExecutionStep]:
        execution = _existing(found, project_id, execution_id)
        step = found.get(rows.ExecutionStep, *step_key.values)
        if step is None:
            raise NotFound("there is no such step")
        if step.decision == decision:
            return Changes(step)
        if step.decision is not None:
            raise Conflict(f"the step is {step.decision.replace('_', ' ')} already")
        if step.status != "running" or execution.phase == "cancelling":
            raise Conflict(f"the step is {step.status}: nobody waits for a decision")
        after = rows.copy_of(step)
        after.decision = decision
        if decision == "rejected":
            after.error_message = (f"rejected by {who}" + (f": {comment}" if comment else ""))[:MAX_REASON]
            return Changes(after, [after])
        if found.get(rows.ExecutionValue, *output_key.values) is not None:
            # It was approved before, and a fault of ours kept the execution from going on: what was said then stays.
            return Changes(after, [after])
        said = {"approved": True, "who": who, **({} if comment is None else {"comment": comment})}
        output = work.value(execution, work.OUTPUT, place, msgspec.json.encode(said).decode())
        return Changes(after, [after, output])

    return Operation(decide, keys=[Key(rows.Execution, (project_id, execution_id)), step_key, output_key])


def _existing(found: Found, project_id: str, execution_id: str) -> rows.Execution:
    execution = found.get(rows.Execution, project_id, execution_id)
    if execution is None:
        raise NotFound("there is no such execution")
    return execution
