"""What people do to workflows: make them, change them by new versions, archive them.

Steps are checked before (`definition.compiled`): that takes longer than a write should.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from ao_server.engine.ids import Ids
from ao_server.engine.workflows import definition
from ao_server.engine.workflows.definition import Step
from ao_server.errors import Conflict, FieldProblem, Invalid, NotFound
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation, ValueSelection

ACTIVE: Final = "active"
ARCHIVED: Final = "archived"


@dataclass(frozen=True, slots=True)
class NewWorkflow:
    """A request for a workflow, with steps that were checked."""

    project_id: str
    name: str
    steps: Sequence[Step]
    description: str | None = None


@dataclass(frozen=True, slots=True)
class WorkflowUpdate:
    """What is to change, with steps that were checked; None leaves it."""

    name: str | None = None
    description: str | None = None
    steps: Sequence[Step] | None = None


def create(new: NewWorkflow, ids: Ids) -> Operation[rows.Workflow]:
    """Makes a workflow. Invalid when a step names a workflow that does not exist."""
    steps = definition.encode(new.steps)

    def decide(found: Found, now: int) -> Changes[rows.Workflow]:
        _check_found(found, new.project_id, new.steps)
        identifier, created_at = ids.new("workflow", now)
        workflow = rows.Workflow(
            project_id=new.project_id,
            id=identifier,
            name=new.name,
            description=new.description,
            status=ACTIVE,
            version=1,
            created_at=created_at,
            updated_at=created_at,
        )
        return Changes(workflow, rows=[workflow, _version(workflow, steps)])

    return Operation(decide, keys=_named(new.project_id, new.steps))


def update(
    project_id: str, workflow_id: str, update: WorkflowUpdate, newest_steps: ValueSelection
) -> Operation[tuple[rows.Workflow, str]]:
    """Makes a new version of a workflow; answers it and its steps, encoded. NotFound; Conflict when it is archived;
    Invalid when a step names a workflow that does not exist, or this one.

    `newest_steps`: selects the steps that it has now.
    """
    steps = None if update.steps is None else definition.encode(update.steps)
    named = update.steps or ()

    def decide(found: Found, now: int) -> Changes[tuple[rows.Workflow, str]]:
        after = rows.copy_of(_existing(found, project_id, workflow_id))
        if after.status == ARCHIVED:
            raise Conflict("the workflow is archived")
        _check_found(found, project_id, named, own_id=workflow_id)
        after.version += 1
        after.updated_at = max(now, after.updated_at)
        if update.name is not None:
            after.name = update.name
        if update.description is not None:
            after.description = update.description
        kept: str = found.selected[0][0] if steps is None else steps
        return Changes((after, kept), rows=[after, _version(after, kept)])

    keys = [Key(rows.Workflow, (project_id, workflow_id)), *_named(project_id, named)]
    return Operation(decide, keys=keys, selection=newest_steps if steps is None else None)


def archive(project_id: str, workflow_id: str) -> Operation[rows.Workflow]:
    """Archives a workflow, or leaves it archived. NotFound."""

    def decide(found: Found, now: int) -> Changes[rows.Workflow]:
        before = _existing(found, project_id, workflow_id)
        if before.status == ARCHIVED:
            return Changes(before)
        after = rows.copy_of(before)
        after.status = ARCHIVED
        return Changes(after, rows=[after])

    return Operation(decide, keys=[Key(rows.Workflow, (project_id, workflow_id))])


def _existing(found: Found, project_id: str, workflow_id: str) -> rows.Workflow:
    workflow = found.get(rows.Workflow, project_id, workflow_id)
    if workflow is None:
        raise NotFound("there is no such workflow")
    return workflow


def _version(workflow: rows.Workflow, steps: str) -> rows.WorkflowVersion:
    return rows.WorkflowVersion(
        project_id=workflow.project_id,
        workflow_id=workflow.id,
        version=workflow.version,
        steps=steps,
        created_at=workflow.updated_at,
    )


def _named(project_id: str, steps: Sequence[Step]) -> list[Key]:
    ids = {step.workflow_id for step in steps if step.workflow_id is not None}
    return [Key(rows.Workflow, (project_id, each)) for each in sorted(ids)]


def _check_found(found: Found, project_id: str, steps: Sequence[Step], own_id: str | None = None) -> None:
    keys = [key.values for key in _named(project_id, steps)]
    check_named(steps, {str(key[1]) for key in keys if found.get(rows.Workflow, *key) is not None}, own_id)


def check_named(steps: Sequence[Step], known: Collection[str], own_id: str | None = None) -> None:
    """Invalid when a step names a workflow that is not known, or the one that it is part of."""
    problems: list[FieldProblem] = []
    for place, step in enumerate(steps):
        if step.workflow_id is None:
            continue
        field = f"steps[{place}].workflow_id"
        if step.workflow_id == own_id:
            problems.append(FieldProblem(field, f"step '{step.id}': names the workflow itself"))
        elif step.workflow_id not in known:
            problems.append(FieldProblem(field, f"step '{step.id}': there is no such workflow"))
    if problems:
        raise Invalid.fields(problems)
