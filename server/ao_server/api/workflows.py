"""WorkflowService."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from agent_orchestration.v1 import common_pb2, workflows_pb2, workflows_pb2_grpc
from ao_server.api import (
    calls,
    execution_messages,
    idempotency,
    messages,
    pages,
    simulations,
    subworkflows,
    workflow_requests,
)
from ao_server.api.execution_details import ExecutionDetails
from ao_server.engine.idempotency import once
from ao_server.engine.ids import Ids
from ao_server.engine.workflows import catalog, definition, executions
from ao_server.engine.workflows.catalog import NewWorkflow, WorkflowUpdate
from ao_server.engine.workflows.definition import Step
from ao_server.errors import NotFound
from ao_server.store import rows, workflows
from ao_server.store.reader import Reader
from ao_server.store.workflows import ListedWorkflow
from ao_server.store.writer import Writer

# To check so many takes tens of milliseconds, in which the event loop would do nothing else.
MANY_STEPS: Final = 50


class WorkflowServicer(workflows_pb2_grpc.WorkflowServiceServicer):
    """Keeps workflows and begins executions of them."""

    def __init__(self, writer: Writer, reader: Reader, details: ExecutionDetails, ids: Ids) -> None:
        self._writer = writer
        self._reader = reader
        self._details = details
        self._ids = ids

    async def CreateWorkflow(
        self, request: workflows_pb2.CreateWorkflowRequest, context: Any
    ) -> workflows_pb2.CreateWorkflowResponse:
        """Makes a workflow."""
        new = NewWorkflow(
            project_id=calls.current().project_id,
            name=request.name,
            description=request.description if request.HasField("description") else None,
            steps=await _checked(request),
        )
        operation = once(catalog.create(new, self._ids), idempotency.of(request), rows.Workflow)
        created = await self._writer.write(operation)
        data = _message(created.answer, new.steps)
        return workflows_pb2.CreateWorkflowResponse(data=data, idempotent_replayed=created.is_replayed)

    async def GetWorkflow(
        self, request: workflows_pb2.GetWorkflowRequest, context: Any
    ) -> workflows_pb2.GetWorkflowResponse:
        """Shows one workflow, as it is or with the steps of an earlier version."""
        workflow = await self._existing(request.workflow_id)
        if request.HasField("version"):
            workflow = rows.copy_of(workflow)
            workflow.version = request.version
        return workflows_pb2.GetWorkflowResponse(data=await self._shown(workflow))

    async def ListWorkflows(
        self, request: workflows_pb2.ListWorkflowsRequest, context: Any
    ) -> workflows_pb2.ListWorkflowsResponse:
        """Lists workflows."""
        asked = pages.keyset(request, request.starting_after)
        status = (
            messages.enum_name(workflows_pb2.WorkflowStatus, request.status) if request.HasField("status") else None
        )
        found = await workflows.page(
            self._reader,
            calls.current().project_id,
            status,
            page=asked.page,
            limit=asked.limit,
            starting_after=asked.starting_after,
        )
        data = [_listed(each) for each in found.rows]
        return workflows_pb2.ListWorkflowsResponse(data=data, pagination=asked.pagination(found))

    async def UpdateWorkflow(
        self, request: workflows_pb2.UpdateWorkflowRequest, context: Any
    ) -> workflows_pb2.UpdateWorkflowResponse:
        """Makes a new version of a workflow."""
        project_id = calls.current().project_id
        update = WorkflowUpdate(
            name=request.name if request.HasField("name") else None,
            description=request.description if request.HasField("description") else None,
            steps=await _checked(request) if request.steps else None,
        )
        newest = workflows.newest_steps(self._reader.database, project_id, request.workflow_id)
        workflow, steps = await self._writer.write(catalog.update(project_id, request.workflow_id, update, newest))
        return workflows_pb2.UpdateWorkflowResponse(data=_message(workflow, definition.decode(steps)))

    async def ArchiveWorkflow(
        self, request: workflows_pb2.ArchiveWorkflowRequest, context: Any
    ) -> workflows_pb2.ArchiveWorkflowResponse:
        """Archives a workflow."""
        archived = await self._writer.write(catalog.archive(calls.current().project_id, request.workflow_id))
        return workflows_pb2.ArchiveWorkflowResponse(data=await self._shown(archived))

    async def ExecuteWorkflow(
        self, request: workflows_pb2.ExecuteWorkflowRequest, context: Any
    ) -> workflows_pb2.ExecuteWorkflowResponse:
        """Begins an execution."""
        parameters = _parameters(request)
        priority = messages.PRIORITIES[request.priority or common_pb2.PRIORITY_MEDIUM]
        project_id = calls.current().project_id
        operation = executions.execute(project_id, request.workflow_id, parameters, priority, self._ids)
        begun = await self._writer.write(once(operation, idempotency.of(request), rows.Execution))
        data = execution_messages.created(begun.answer, await self._details.graph(begun.answer), parameters)
        return workflows_pb2.ExecuteWorkflowResponse(data=data, idempotent_replayed=begun.is_replayed)

    async def SimulateWorkflow(
        self, request: workflows_pb2.SimulateWorkflowRequest, context: Any
    ) -> workflows_pb2.SimulateWorkflowResponse:
        """Plays a workflow through."""
        graph = await self._details.newest_graph(await self._existing(request.workflow_id))
        parameters = _parameters(request)
        data = await simulations.simulate(self._reader, graph, parameters, request.outcomes)
        return workflows_pb2.SimulateWorkflowResponse(data=data)

    async def SimulateSteps(
        self, request: workflows_pb2.SimulateStepsRequest, context: Any
    ) -> workflows_pb2.SimulateStepsResponse:
        """Plays steps through that are not kept."""
        steps = workflow_requests.steps(request.steps)
        graph = await asyncio.to_thread(definition.compiled, steps)
        known = await workflows.existing(self._reader, calls.current().project_id, subworkflows.named(steps))
        catalog.check_named(steps, known)
        parameters = _parameters(request)
        data = await simulations.simulate(self._reader, graph, parameters, request.outcomes)
        return workflows_pb2.SimulateStepsResponse(data=data)

    async def _existing(self, workflow_id: str) -> rows.Workflow:
        workflow = await workflows.get(self._reader, calls.current().project_id, workflow_id)
        if workflow is None:
            raise NotFound("there is no such workflow")
        return workflow

    async def _shown(self, workflow: rows.Workflow) -> workflows_pb2.Workflow:
        version = await workflows.version(self._reader, workflow.project_id, workflow.id, workflow.version)
        if version is None:
            raise NotFound("the workflow has no such version")
        message = _message(workflow, definition.decode(version.steps))
        message.updated_at.FromMicroseconds(version.created_at)
        return message


async def _checked(request: workflows_pb2.CreateWorkflowRequest | workflows_pb2.UpdateWorkflowRequest) -> list[Step]:
    """The steps of a request. Invalid with all that is wrong with them."""
    steps = workflow_requests.steps(request.steps)
    if len(steps) < MANY_STEPS:
        definition.compiled(steps)
    else:
        await asyncio.to_thread(definition.compiled, steps)
    return steps


def _parameters(
    request: workflows_pb2.ExecuteWorkflowRequest
    | workflows_pb2.SimulateWorkflowRequest
    | workflows_pb2.SimulateStepsRequest,
) -> str:
    return request.parameters if request.HasField("parameters") else "{}"


def _message(workflow: rows.Workflow, steps: Sequence[Step]) -> workflows_pb2.Workflow:
    return messages.filled(workflows_pb2.Workflow, workflow, steps=workflow_requests.shown(steps))


def _listed(listed: ListedWorkflow) -> workflows_pb2.Workflow:
    if listed.steps is None:
        return messages.filled(workflows_pb2.Workflow, listed.workflow, steps_omitted=True)
    return _message(listed.workflow, definition.decode(listed.steps))
