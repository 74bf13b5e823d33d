"""Reads of workflows and their versions."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, case, func, select

from ao_server.errors import Invalid
from ao_server.store import rows, workflow_tables
from ao_server.store.changes import ValueSelection
from ao_server.store.database import Database
from ao_server.store.reader import Page, Reader

# Characters: a list shows a hundred workflows.
LISTED_STEPS_LENGTH: Final = 64 * 1024
_WORKFLOW: Any = workflow_tables.Workflow
_VERSION: Any = workflow_tables.WorkflowVersion


@dataclass(frozen=True, slots=True)
class ListedWorkflow:
    """A workflow and the steps of its newest version, as `definition.encode` wrote them; None where they are too many
    to be listed.
    """

    workflow: rows.Workflow
    steps: str | None


async def get(reader: Reader, project_id: str, workflow_id: str) -> rows.Workflow | None:
    """One workflow."""
    return await reader.one(rows.Workflow, _WORKFLOW.project_id == project_id, _WORKFLOW.id == workflow_id)


async def existing(reader: Reader, project_id: str, ids: Collection[str]) -> set[str]:
    """Those of the ids that there is a workflow of."""
    where = (_WORKFLOW.project_id == project_id, _WORKFLOW.id.in_(ids))
    async with reader.connect() as connection:
        return set((await connection.execute(select(_WORKFLOW.id).where(*where))).scalars())


async def archived(reader: Reader, project_id: str, ids: Collection[str]) -> set[str]:
    """Those of the ids whose workflow is archived."""
    where = (_WORKFLOW.project_id == project_id, _WORKFLOW.id.in_(ids), _WORKFLOW.status == "archived")
    async with reader.connect() as connection:
        return set((await connection.execute(select(_WORKFLOW.id).where(*where))).scalars())


async def active_steps(reader: Reader, project_id: str, ids: Collection[str]) -> list[str]:
    """The steps of the newest versions of those of the workflows that can be executed, encoded."""
    where = (_WORKFLOW.project_id == project_id, _WORKFLOW.id.in_(ids), _WORKFLOW.status == "active")
    statement = select(_VERSION.steps).select_from(workflow_tables.Workflow)
    async with reader.connect() as connection:
        joined = statement.join(workflow_tables.WorkflowVersion, _is_newest()).where(*where)
        return list((await connection.execute(joined)).scalars())


async def version(reader: Reader, project_id: str, workflow_id: str, number: int) -> rows.WorkflowVersion | None:
    """One version of a workflow."""
    return await reader.one(
        rows.WorkflowVersion,
        _VERSION.project_id == project_id,
        _VERSION.workflow_id == workflow_id,
        _VERSION.version == number,
    )


async def page(
    reader: Reader, project_id: str, status: str | None, *, page: int, limit: int, starting_after: str | None = None
) -> Page[ListedWorkflow]:
    """A page of workflows, newest first, by its number or behind a workflow. Invalid when that one does not exist."""
    where: list[ColumnElement[bool]] = [_WORKFLOW.project_id == project_id]
    if status is not None:
        where.append(_WORKFLOW.status == status)
    counted = select(func.count()).select_from(workflow_tables.Workflow).where(*where)
    async with reader.connect() as connection:
        total = (await connection.execute(counted)).scalar_one()
        if starting_after is not None:
            known = (_WORKFLOW.project_id == project_id, _WORKFLOW.id == starting_after)
            if not await reader.rows(connection, rows.Workflow, *known):
                raise Invalid.field("starting_after", "there is no such workflow")
            where.append(_WORKFLOW.id < starting_after)
        found = await connection.execute(
            select(
                *rows.TABLES[rows.Workflow].columns,
                case((func.length(_VERSION.steps) <= LISTED_STEPS_LENGTH, _VERSION.steps)),
            )
            .join(workflow_tables.WorkflowVersion, _is_newest())
            .where(*where)
            .order_by(_WORKFLOW.id.desc())
            .limit(limit)
            .offset((page - 1) * limit)
        )
        listed = [ListedWorkflow(rows.made(rows.Workflow, values), steps) for *values, steps in found]
    return Page(listed, total)


def newest_steps(database: Database, project_id: str, workflow_id: str) -> ValueSelection:
    """The steps of the newest version of a workflow, for a write to decide over."""
    sql = database.text(
        "SELECT v.steps FROM workflows w JOIN workflow_versions v"
        " ON v.project_id = w.project_id AND v.workflow_id = w.id AND v.version = w.version"
        " WHERE w.project_id = ? AND w.id = ?"
    )
    return ValueSelection(sql, (project_id, workflow_id))


def _is_newest() -> ColumnElement[bool]:
    return (
        (_VERSION.project_id == _WORKFLOW.project_id)
        & (_VERSION.workflow_id == _WORKFLOW.id)
        & (_VERSION.version == _WORKFLOW.version)
    )
