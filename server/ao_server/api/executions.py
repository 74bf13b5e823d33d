"""ExecutionService."""

from typing import Any

from agent_orchestration.v1 import executions_pb2, executions_pb2_grpc, tasks_pb2
from ao_server.api import calls, execution_details, execution_messages, idempotency, messages, pages, takers, waiting
from ao_server.api.execution_details import ExecutionDetails
from ao_server.engine.explanations import explain
from ao_server.engine.idempotency import once
from ao_server.engine.registry import Registry
from ao_server.engine.states import FINAL
from ao_server.engine.waits import Waits
from ao_server.engine.workflows import executions as wishes
from ao_server.engine.workflows import reasons
from ao_server.errors import Conflict, NotFound
from ao_server.store import executions, rows
from ao_server.store.executions import ExecutionFilter
from ao_server.store.id_times import first_at
from ao_server.store.reader import Reader
from ao_server.store.writer import Writer


class ExecutionServicer(executions_pb2_grpc.ExecutionServiceServicer):
    """Shows executions, stops them, begins them again, and decides approvals."""

    def __init__(
        self, writer: Writer, reader: Reader, waits: Waits, registry: Registry, details: ExecutionDetails
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._waits = waits
        self._registry = registry
        self._details = details

    async def GetExecution(
        self, request: executions_pb2.GetExecutionRequest, context: Any
    ) -> executions_pb2.GetExecutionResponse:
        """Shows one execution, at once or when it has ended."""
        execution_id = request.execution_id
        await waiting.until_final(self._waits, execution_id, request.wait, lambda: self._has_ended(execution_id))
        return executions_pb2.GetExecutionResponse(data=await self._shown(execution_id))

    async def ListExecutions(
        self, request: executions_pb2.ListExecutionsRequest, context: Any
    ) -> executions_pb2.ListExecutionsResponse:
        """Lists executions."""
        asked = pages.keyset(request, request.starting_after)
        found = await executions.page(
            self._reader,
            calls.current().project_id,
            _filter(request),
            page=asked.page,
            limit=asked.limit,
            starting_after=asked.starting_after,
        )
        data = [messages.listed_execution(row) for row in found.rows]
        return executions_pb2.ListExecutionsResponse(data=data, pagination=asked.pagination(found))

    async def GetExecutionStep(
        self, request: executions_pb2.GetExecutionStepRequest, context: Any
    ) -> executions_pb2.GetExecutionStepResponse:
        """Shows one step."""
        execution = await self._existing(request.execution_id)
        return executions_pb2.GetExecutionStepResponse(data=await self._details.step(execution, request.step_id))

    async def ExplainExecution(
        self, request: executions_pb2.ExplainExecutionRequest, context: Any
    ) -> executions_pb2.ExplainExecutionResponse:
        """Says why steps are not running."""
        execution = await self._existing(request.execution_id)
        graph = await self._details.graph(execution)
        steps = {row.place: row for row in await self._details.steps(execution, graph)}
        waiting = await executions.first_waiting(self._reader, execution.project_id, execution.id)
        explained: list[executions_pb2.StepExplanation] = []
        for place, step in execution_messages.definitions(graph):
            if steps[place].status == "completed" and steps[place].compensation is None:
                continue
            task = waiting.get(step.id)
            why = None if task is None else explain(task, await takers.of(task, self._reader, self._registry))
            reason = reasons.explain(graph, execution, steps, place, why)
            said = tasks_pb2.ExplanationReason(code=reason.code, message=reason.message)
            shown = {"step_id": step.id, "reason": said, "waits_for": reason.waits_for, "remedies": reason.remedies}
            explained.append(messages.filled(executions_pb2.StepExplanation, steps[place], **shown))
        data = messages.filled(
            executions_pb2.ExecutionExplanation, execution, execution_id=execution.id, steps=explained
        )
        return executions_pb2.ExplainExecutionResponse(data=data)

    async def CancelExecution(
        self, request: executions_pb2.CancelExecutionRequest, context: Any
    ) -> executions_pb2.CancelExecutionResponse:
        """Cancels an execution."""
        await self._writer.write(wishes.cancel(calls.current().project_id, request.execution_id))
        return executions_pb2.CancelExecutionResponse(data=await self._shown(request.execution_id))

    async def RetryExecution(
        self, request: executions_pb2.RetryExecutionRequest, context: Any
    ) -> executions_pb2.RetryExecutionResponse:
        """Goes on with an execution."""
        operation = wishes.retry(calls.current().project_id, request.execution_id)
        retried = await self._writer.write(once(operation, idempotency.of(request), rows.Execution))
        data = await self._shown(request.execution_id)
        return executions_pb2.RetryExecutionResponse(data=data, idempotent_replayed=retried.is_replayed)

    async def ApproveStep(
        self, request: executions_pb2.ApproveStepRequest, context: Any
    ) -> executions_pb2.ApproveStepResponse:
        """Approves a step."""
        return executions_pb2.ApproveStepResponse(data=await self._decide(request, "approved"))

    async def RejectStep(
        self, request: executions_pb2.RejectStepRequest, context: Any
    ) -> executions_pb2.RejectStepResponse:
        """Rejects a step."""
        return executions_pb2.RejectStepResponse(data=await self._decide(request, "rejected"))

    async def _decide(
        self, request: executions_pb2.ApproveStepRequest | executions_pb2.RejectStepRequest, decision: str
    ) -> executions_pb2.Execution:
        execution = await self._existing(request.execution_id)
        place, step = execution_details.place_of(await self._details.graph(execution), request.step_id)
        if step.kind != "approval":
            raise Conflict("the step is not an approval")
        call = calls.current()
        who = request.who if request.HasField("who") else call.principal.name
        comment = request.comment if request.HasField("comment") else None
        await self._writer.write(wishes.decide(call.project_id, execution.id, place, decision, who, comment))
        return await self._shown(execution.id)

    async def _has_ended(self, execution_id: str) -> bool:
        return (await self._existing(execution_id)).status in FINAL

    async def _existing(self, execution_id: str) -> rows.Execution:
        execution = await executions.get(self._reader, calls.current().project_id, execution_id)
        if execution is None:
            raise NotFound("there is no such execution")
        return execution

    async def _shown(self, execution_id: str) -> executions_pb2.Execution:
        return await self._details.whole(await self._existing(execution_id))


def _filter(request: executions_pb2.ListExecutionsRequest) -> ExecutionFilter:
    """What the list is narrowed by. The creation time is the millisecond that an id begins with."""
    after, before = request.created_after, request.created_before
    has_after, has_before = request.HasField("created_after"), request.HasField("created_before")
    return ExecutionFilter(
        workflow_id=request.workflow_id if request.HasField("workflow_id") else None,
        status=(
            messages.enum_name(executions_pb2.ExecutionStatus, request.status) if request.HasField("status") else None
        ),
        id_from=first_at("execution", after.ToMicroseconds() + 1) if has_after else None,
        id_before=first_at("execution", before.ToMicroseconds()) if has_before else None,
    )
