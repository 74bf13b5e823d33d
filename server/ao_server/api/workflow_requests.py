"""Steps of workflows: as requests say them, and as they are shown, which is the same."""

from collections.abc import Iterable
from typing import Any

from agent_orchestration.v1 import tasks_pb2, workflows_pb2
from ao_server.api import messages, task_requests
from ao_server.engine.workflows.definition import Compensation, Step

_AS_SENT = ("agent_type", "type", "input", "condition", "for_each", "max_parallel", "workflow_id")
_OF_COMPENSATION = ("agent_type", "type", "input")


def steps(given: Iterable[workflows_pb2.WorkflowStep]) -> list[Step]:
    """The steps that are asked for, with what was left out of id, name and order."""
    return [_step(each, position) for position, each in enumerate(given, 1)]


def shown(found: Iterable[Step]) -> list[workflows_pb2.WorkflowStep]:
    """Steps as they were sent. A kind and a policy that they have by default are left out."""
    return [_shown(step) for step in found]


def _step(given: workflows_pb2.WorkflowStep, position: int) -> Step:
    identifier = given.id if given.HasField("id") else f"step_{position}"
    more: dict[str, Any] = _present(given, _AS_SENT)
    if given.kind:
        more["kind"] = messages.enum_name(workflows_pb2.StepKind, given.kind)
    if given.on_failure:
        more["on_failure"] = messages.enum_name(workflows_pb2.OnFailure, given.on_failure)
    if given.HasField("retry"):
        more["retry"] = task_requests.retry_policy(given.retry)
    if given.HasField("timeout"):
        more["timeout"] = task_requests.timeout(given.timeout)
    if given.HasField("compensate"):
        more["compensate"] = Compensation(**_present(given.compensate, _OF_COMPENSATION))
    return Step(
        id=identifier,
        name=given.name if given.HasField("name") else identifier,
        order=given.order if given.HasField("order") else position,
        depends_on=list(given.depends_on) or None,
        **more,
    )


def _present(message: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def _shown(step: Step) -> workflows_pb2.WorkflowStep:
    message = messages.filled(workflows_pb2.WorkflowStep, step, depends_on=step.depends_on)
    if step.kind == "task":
        message.ClearField("kind")
    if step.on_failure == "fail":
        message.ClearField("on_failure")
    if step.retry is not None:
        message.retry.CopyFrom(messages.filled(tasks_pb2.RetryPolicy, step.retry))
    if step.compensate is not None:
        message.compensate.CopyFrom(messages.filled(workflows_pb2.Compensation, step.compensate))
    return message
