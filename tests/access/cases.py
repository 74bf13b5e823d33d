"""How to call each RPC, and what becomes of it when an id in it is another project's. The only list in these tests.

A new RPC without an entry fails `test_matrix`, as does a new field of text that is neither in a case of its RPC nor in
PLAIN. `<agent>` and the like stand for the id of an object that `OBJECTS` makes.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.access.world import Project

# What an id that does not exist leads to, and another project's just so.
NOT_FOUND: Final = "not found"
# With the name of the field behind it.
BAD: Final = "bad field "
EMPTY: Final = "nothing is listed"
SILENT: Final = "nothing is heard"
# Of a runner's stream: see test_runners.
REPORTED: Final = "reported on a stream"


@dataclass(frozen=True)
class Case:
    """A request that succeeds in one's own project, as JSON, and what its id leads to when it is not one's own."""

    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])
    foreign: str | None = None
    # Fields beside those of the case that need no more than that it names them.
    covers: tuple[str, ...] = ()


# Fields that name no object: texts of the caller's own.
PLAIN: Final = frozenset(
    {
        *("name", "type", "agent_type", "environment", "configuration", "payload", "key", "value", "label", "labels"),
        *("scopes", "idempotency_key", "action", "outcome", "message", "code", "reason", "description", "schema"),
        *("input_schema", "result", "instance_id", "method", "metadata"),
        *("input", "condition", "for_each", "parameters", "output", "comment", "who"),
    }
)

_AGENT: Final = {"agent_id": "<agent>"}
_TASK: Final = {"task_id": "<task>"}
_KEY: Final = {"key_id": "<key>"}
_CLIENT: Final = {"client_id": "<client>"}
_NEW_TASK: Final = {"agent_id": "<agent>", "type": "work"}
_WORKFLOW: Final = {"workflow_id": "<workflow>"}
_EXECUTION: Final = {"execution_id": "<execution>"}
_STEP: Final = _EXECUTION | {"step_id": "ask"}
_STEPS: Final = {"steps": [{"agent_type": "t"}]}
_STEPS_WITH_WORKFLOW: Final = {"steps": [{"kind": "workflow"} | _WORKFLOW]}
# Within steps: ids of steps.
_OF_STEPS: Final = ("id", "depends_on", "workflow_id", "step_id")

CASES: Final[Mapping[str, tuple[Case, ...]]] = {
    "CreateAgent": (Case({"name": "n", "type": "t"}),),
    "GetAgent": (Case(_AGENT, NOT_FOUND),),
    "ListAgents": (Case(), Case({"starting_after": "<agent>"}, f"{BAD}starting_after")),
    "UpdateAgent": (Case(_AGENT | {"name": "new"}, NOT_FOUND),),
    "DeleteAgent": (Case(_AGENT, NOT_FOUND),),
    "PauseAgent": (Case(_AGENT, NOT_FOUND),),
    "DrainAgent": (Case(_AGENT, NOT_FOUND),),
    "ResumeAgent": (Case(_AGENT, NOT_FOUND),),
    "CreateTask": (Case(_NEW_TASK, f"{BAD}agent_id"), Case({"agent_type": "t", "type": "work"})),
    "CreateTasks": (Case({"tasks": [_NEW_TASK]}, f"{BAD}tasks[0].agent_id"),),
    "GetTask": (Case(_TASK, NOT_FOUND), Case(_TASK | {"wait": 0.01}, NOT_FOUND)),
    "ListTaskLogs": (Case(_TASK, NOT_FOUND),),
    "ExplainTask": (Case(_TASK, NOT_FOUND),),
    "CancelTask": (Case(_TASK, NOT_FOUND),),
    "RetryTask": (Case({"task_id": "<final task>"}, NOT_FOUND),),
    "ListTasks": (
        Case(),
        Case(_AGENT, EMPTY),
        Case(_EXECUTION, EMPTY),
        Case({"starting_after": "<task>"}, f"{BAD}starting_after"),
    ),
    "CreateWorkflow": (
        Case({"name": "n"} | _STEPS, covers=_OF_STEPS),
        Case({"name": "n"} | _STEPS_WITH_WORKFLOW, f"{BAD}steps[0].workflow_id"),
    ),
    "GetWorkflow": (Case(_WORKFLOW, NOT_FOUND), Case(_WORKFLOW | {"version": 1}, NOT_FOUND)),
    "ListWorkflows": (Case(), Case({"starting_after": "<workflow>"}, f"{BAD}starting_after")),
    "UpdateWorkflow": (Case(_WORKFLOW | _STEPS, NOT_FOUND, covers=_OF_STEPS),),
    "ArchiveWorkflow": (Case(_WORKFLOW, NOT_FOUND),),
    "ExecuteWorkflow": (Case(_WORKFLOW, NOT_FOUND),),
    "SimulateWorkflow": (Case(_WORKFLOW, NOT_FOUND, covers=("step_id",)),),
    "SimulateSteps": (
        Case(_STEPS, covers=_OF_STEPS),
        Case(_STEPS_WITH_WORKFLOW, f"{BAD}steps[0].workflow_id"),
    ),
    "GetExecution": (Case(_EXECUTION, NOT_FOUND), Case(_EXECUTION | {"wait": 0.01}, NOT_FOUND)),
    "ListExecutions": (
        Case(),
        Case(_WORKFLOW, EMPTY),
        Case({"starting_after": "<execution>"}, f"{BAD}starting_after"),
    ),
    "GetExecutionStep": (Case(_STEP, NOT_FOUND),),
    "ExplainExecution": (Case(_EXECUTION, NOT_FOUND),),
    "CancelExecution": (Case(_EXECUTION, NOT_FOUND),),
    "RetryExecution": (Case({"execution_id": "<cancelled execution>"}, NOT_FOUND),),
    "ApproveStep": (Case(_STEP, NOT_FOUND),),
    "RejectStep": (Case(_STEP, NOT_FOUND),),
    "WatchTask": (Case(_TASK, NOT_FOUND),),
    "GetHealth": (Case(),),
    "GetMetrics": (Case(),),
    "WatchEvents": (
        Case(),
        Case({"after": "<cursor>"}, "cursor_invalid"),
        Case({"channel": "agent_events", "agent_id": "<agent>"}, SILENT),
        Case({"channel": "task_events", "task_id": "<task>"}, SILENT),
        Case({"channel": "workflow_events", "workflow_id": "<workflow>"}, SILENT),
        Case({"channel": "workflow_events", "execution_id": "<execution>"}, SILENT),
    ),
    "CreateKey": (
        Case({"name": "n", "scopes": ["tasks:read"]}),
        Case({"name": "n", "scopes": ["runner:connect"], "agent_id": "<agent>"}, f"{BAD}agent_id"),
    ),
    "GetKey": (Case(_KEY, NOT_FOUND),),
    "ListKeys": (Case(),),
    "UpdateKey": (Case(_KEY | {"name": "new"}, NOT_FOUND),),
    "RotateKey": (Case(_KEY, NOT_FOUND),),
    "RevokeKey": (Case(_KEY, NOT_FOUND),),
    "CreateOAuthClient": (Case({"name": "n", "scopes": ["tasks:read"]}),),
    "GetOAuthClient": (Case(_CLIENT, NOT_FOUND),),
    "ListOAuthClients": (Case(),),
    "RotateOAuthClientSecret": (Case(_CLIENT, NOT_FOUND),),
    "RevokeOAuthClient": (Case(_CLIENT, NOT_FOUND),),
    # Of the default project alone, see test_matrix.
    "CreateProject": (Case({"name": "n"}),),
    "GetProject": (Case({"project_id": "<project>"}, NOT_FOUND),),
    "ListProjects": (Case(),),
    "ListAuditRecords": (
        Case(),
        Case({"actor_id": "<key>"}, EMPTY),
        Case({"object_id": "<agent>"}, EMPTY),
        Case({"starting_after": "<audit record>"}, f"{BAD}starting_after"),
    ),
    "ExportAuditRecords": (
        Case(),
        Case({"actor_id": "<key>"}, SILENT),
        Case({"object_id": "<agent>"}, SILENT),
    ),
    "Connect": (
        Case({"hello": _AGENT | {"instance_id": "i"}}, NOT_FOUND),
        Case({"hello": {"instance_id": "i", "type": "t", "name": "n", "held": [_TASK | {"number": 1}]}}, REPORTED),
    ),
    "Authenticate": (Case({"credential": "<credential>"}),),
    "WatchCredentials": (Case(),),
    "IssueToken": (Case(covers=("client_id", "client_secret", "scope")),),
    "RevokeToken": (Case(covers=("client_id", "client_secret", "token")),),
    "Relay": (Case(),),
}


async def _final_task(project: Project) -> str:
    task_id = await project.task()
    await project.post(f"/tasks/{task_id}/cancel")
    return task_id


async def _cursor(project: Project) -> str:
    await project.agent()
    async with project.client.stream("GET", "/events", headers={"Authorization": f"Bearer {project.admin}"}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("id:"):
                return line.removeprefix("id:").strip()
    raise AssertionError("no cursor came")


async def _key(project: Project) -> str:
    return (await project.key("tasks:read"))["id"]


async def _client(project: Project) -> str:
    return (await project.post("/oauth/clients", {"name": "n", "scopes": ["tasks:read"]}))["id"]


async def _audit_record(project: Project) -> str:
    await project.agent()
    return (await project.call("GET", "/audit"))["data"][0]["id"]


async def _agent(project: Project) -> str:
    return await project.agent()


async def _task(project: Project) -> str:
    return await project.task()


async def _workflow(project: Project) -> str:
    return (await project.post("/workflows", {"name": "n", "steps": [{"id": "ask", "kind": "approval"}]}))["id"]


async def _execution(project: Project) -> str:
    return (await project.post(f"/workflows/{await _workflow(project)}/execute"))["id"]


async def _cancelled_execution(project: Project) -> str:
    execution_id = await _execution(project)
    await project.post(f"/executions/{execution_id}/cancel")
    return execution_id


async def _project(project: Project) -> str:
    return project.id


async def _credential(project: Project) -> str:
    return project.admin


OBJECTS: Final[Mapping[str, Callable[[Project], Awaitable[str]]]] = {
    "<agent>": _agent,
    "<task>": _task,
    "<final task>": _final_task,
    "<workflow>": _workflow,
    "<execution>": _execution,
    "<cancelled execution>": _cancelled_execution,
    "<cursor>": _cursor,
    "<key>": _key,
    "<client>": _client,
    "<project>": _project,
    "<audit record>": _audit_record,
    "<credential>": _credential,
}


async def filled(case: Case, project: Project) -> tuple[dict[str, Any], str]:
    """The request with objects of this project, and the id of the one that was made for it, if one was."""
    made: dict[str, str] = {}

    async def fill(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: await fill(each) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, list):
            return [await fill(each) for each in value]  # pyright: ignore[reportUnknownVariableType]
        if value in OBJECTS:
            made[value] = await OBJECTS[value](project)
            return made[value]
        return value

    fields = await fill(case.fields)
    return fields, next(iter(made.values()), "")


def with_id(value: Any, before: str, after: str) -> Any:
    """The request with another id."""
    if isinstance(value, dict):
        return {key: with_id(each, before, after) for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [with_id(each, before, after) for each in value]  # pyright: ignore[reportUnknownVariableType]
    return after if value == before else value
