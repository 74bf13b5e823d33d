"""A running control plane answers as its /v1/openapi.json says: to a walk through all of it, and to schemathesis."""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.documented import Documented
from tests.e2e.processes import ControlPlane, wait_until

FOLDER = Path(__file__).parent
RUN_SECONDS = 150.0
# For each operation and phase; the same ones in every run.
EXAMPLES = 16
# A body that the document allows may still name an agent that does not exist: 400 is then right.
NOT_CHECKED = "positive_data_acceptance,object_level_authorization"
AGENTS = """
from agent_runner import Agent

agent = Agent(name="Walker", type="walker")


@agent.task("good")
async def good(task):
    await task.progress(50, "half")
    task.log.info("halfway")
    return {"n": 1}


@agent.task("bad")
async def bad(task):
    task.log.info("soon")
    raise RuntimeError("no")
"""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Generator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane")) as plane:
        plane.start_dev()
        yield plane


class Walk:
    """Calls operations by their name, and holds every answer against the document."""

    def __init__(self, client: httpx2.Client, plane: ControlPlane) -> None:
        self.client = client
        # The document's paths begin at the root.
        self.client.base_url = f"http://127.0.0.1:{plane.port}"
        self.documented = Documented(self.client.get("/v1/openapi.json").json())
        self.called: set[str] = set()

    def __call__(self, name: str, status: int = 200, /, *, body: Any = None, **parameters: Any) -> Any:
        """The body of the answer."""
        return self.answer(name, status, body=body, **parameters).json()

    def answer(
        self, name: str, status: int, /, *, body: Any = None, key: str = "", **parameters: Any
    ) -> httpx2.Response:
        """The answer; parameters that are not in the path stand in the query."""
        method, path, operation = self.documented.operation(name)
        for parameter in [each for each in parameters if f"{{{each}}}" in path]:
            path = path.replace(f"{{{parameter}}}", parameters.pop(parameter))
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.client.request(method.upper(), path, params=parameters, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        assert self.documented.answer_problems(name, status, answer.json()) == []
        if status < 300:
            self.called.add(name)
            if body is not None:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                assert self.documented.problems(schema, body) == []
        return answer

    def example(self, name: str) -> Any:
        """The body that the document shows for an operation."""
        return self.documented.operation(name)[2]["requestBody"]["content"]["application/json"]["example"]


def test_a_walk_through_all_of_it(plane: ControlPlane) -> None:
    with plane.client() as client, client.stream("GET", "/events") as stream:
        walk = Walk(client, plane)
        assert stream.headers["content-type"].startswith("text/event-stream")
        walk_agents(walk)
        walk_tasks(walk)
        walk_finished_tasks(walk, plane)
        walk_workflows(walk)
        walk_oauth(walk)
        walk_keys(walk)
        for name in ("GetHealth", "GetMetrics", "GetLiveness", "GetReadiness"):
            walk(name)
        assert walk("GetMetrics", period="1h", metric="error_rate")["data"]["metrics"]["error_rate"]
        walk("GetMetrics", 400, period="2h")
        heard = list(events(stream, until="agent_deleted"))
    for event in heard:
        assert walk.documented.problems({"$ref": "#/components/schemas/Event"}, event) == []
    assert {event["type"] for event in heard} >= {"agent_created", "task_completed", "task_failed", "task_log"}
    names = {each["operationId"] for methods in walk.documented.document["paths"].values() for each in methods.values()}
    assert walk.called == names - {"WatchEvents", "ExportAuditRecords"}


def walk_agents(walk: Walk) -> None:
    first = walk.answer("CreateAgent", 201, body=walk.example("CreateAgent"), key="one")
    again = walk.answer("CreateAgent", 201, body=walk.example("CreateAgent"), key="one")
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    walk("CreateAgent", 409, body={"name": "other", "type": "t"}, key="one")
    walk("CreateAgent", 400, body={"name": "other"})
    agent_id = first.json()["data"]["id"]
    walk("UpdateAgent", body=walk.example("UpdateAgent"), agent_id=agent_id)
    for name in ("PauseAgent", "DrainAgent", "ResumeAgent", "GetAgent"):
        walk(name, agent_id=agent_id)
    walk("GetAgent", 404, agent_id="agent_none")
    assert walk("ListAgents", limit=1, status="initializing")["data"]


def walk_tasks(walk: Walk) -> None:
    everything = {
        "agent_type": "nobody",
        "type": "t",
        "priority": "high",
        "payload": {"a": [1, None]},
        "schedule": {"type": "delayed", "delay": 3600},
        "labels": {"team": "red"},
        "timeout": 1.5,
        "retry": {"attempts": 2, "backoff": 1, "max_backoff": 10, "jitter": False},
        "idempotency_key": None,
    }
    task_id = walk("CreateTask", 201, body=everything)["data"]["id"]
    assert walk("ExplainTask", task_id=task_id)["data"]["reason"]["code"] == "delayed"
    walk("RetryTask", 409, task_id=task_id)
    walk("CancelTask", task_id=task_id)
    walk("RetryTask", 201, task_id=task_id)
    walk("CreateTask", 201, body=walk.example("CreateTask"))
    walk("CreateTasks", 201, body=walk.example("CreateTasks"))
    walk("CreateTasks", 400, body={"tasks": []})
    assert walk("ListTasks", label=["team", "team=red"], agent_type="nobody", status="cancelled")["data"]


def walk_workflows(walk: Walk) -> None:
    first = walk.answer("CreateWorkflow", 201, body=walk.example("CreateWorkflow"), key="workflow")
    again = walk.answer("CreateWorkflow", 201, body=walk.example("CreateWorkflow"), key="workflow")
    assert again.json() == first.json()
    walk("CreateWorkflow", 400, body={"name": "Empty", "steps": []})
    walk("SimulateSteps", body=walk.example("SimulateSteps"))
    steps = [
        {"id": "ask", "kind": "approval", "timeout": 3600, "input": "{a: parameters.a}"},
        {"id": "many", "agent_type": "nobody", "for_each": "parameters.of", "max_parallel": 2, "condition": "`true`"},
        {"id": "last", "agent_type": "nobody", "depends_on": ["many"], "retry": {"attempts": 1}, "timeout": 1.5},
    ]
    workflow_id = first.json()["data"]["id"]
    assert walk("UpdateWorkflow", body={"steps": steps}, workflow_id=workflow_id)["data"]["version"] == 2
    assert walk("GetWorkflow", workflow_id=workflow_id, version=1)["data"]["steps"] == first.json()["data"]["steps"]
    assert walk("ListWorkflows", limit=1, status="active")["data"] == [
        walk("GetWorkflow", workflow_id=workflow_id)["data"]
    ]
    walk("SimulateWorkflow", workflow_id=workflow_id, body={"outcomes": [{"step_id": "ask", "status": "failed"}]})
    execution_id = walk("ExecuteWorkflow", 201, workflow_id=workflow_id, body={"priority": "low"})["data"]["id"]
    of = {"execution_id": execution_id}
    assert walk("GetExecution", **of, wait=20)["data"]["status"] == "failed"
    assert walk("ExplainExecution", **of)["data"]["steps"][1]["reason"]["code"] == "not_a_list"
    walk("RetryExecution", 201, **of)
    walk("GetExecution", **of, wait=20)
    walk("CancelExecution", 409, **of)
    body = {"parameters": {"of": [1, 2, 3], "a": 2**70}}
    execution_id = walk("ExecuteWorkflow", 201, workflow_id=workflow_id, body=body)["data"]["id"]
    of = {"execution_id": execution_id}
    assert walk("GetExecutionStep", **of, step_id="many")["data"]["items"] == {"total": 3, "completed": 0, "running": 2}
    assert walk("ApproveStep", **of, step_id="ask", body={"comment": "fine"})["data"]["steps"][0]["output"]["comment"]
    walk("RejectStep", 409, **of, step_id="ask")
    walk("CancelExecution", **of)
    assert walk("ListTasks", **of)["data"][0]["step_id"] == "many"
    assert walk("ListExecutions", status="cancelled", workflow_id=workflow_id, created_after="2024-01-01T00:00:00Z")[
        "data"
    ]
    walk("RejectStep", 404, **of, step_id="none")
    asked = walk("CreateWorkflow", 201, body={"name": "Asked", "steps": steps[:1]})["data"]["id"]
    execution_id = walk("ExecuteWorkflow", 201, workflow_id=asked, body={})["data"]["id"]
    rejected = walk("RejectStep", execution_id=execution_id, step_id="ask", body={"who": "Ada", "comment": "no"})
    assert rejected["data"]["error"]["code"] == "rejected"
    walk("ArchiveWorkflow", workflow_id=workflow_id)
    walk("ExecuteWorkflow", 409, workflow_id=workflow_id, body={})


def walk_oauth(walk: Walk) -> None:
    first = walk.answer("CreateOAuthClient", 201, body=walk.example("CreateOAuthClient"), key="client").json()["data"]
    again = walk.answer("CreateOAuthClient", 201, body=walk.example("CreateOAuthClient"), key="client").json()["data"]
    assert again == {name: value for name, value in first.items() if name != "client_secret"}
    client_id = first["client_id"]
    assert walk("ListOAuthClients", limit=1)["data"] == [walk("GetOAuthClient", client_id=client_id)["data"]]
    secret = walk("RotateOAuthClientSecret", client_id=client_id, body={"overlap": 0})["data"]["client_secret"]
    own = {"client_id": client_id, "client_secret": secret}
    token = walk("IssueToken", body=walk.example("IssueToken") | own)["access_token"]
    walk("RevokeToken", body={"token": token} | own)
    walk("IssueToken", 400, body={"grant_type": "password"})
    walk("IssueToken", 401, body=walk.example("IssueToken"))
    walk("RevokeToken", 400, body=own)
    walk("GetOAuthMetadata")
    walk("RevokeOAuthClient", client_id=client_id)
    walk("RotateOAuthClientSecret", 409, client_id=client_id)
    walk("GetOAuthClient", 404, client_id="client_none")


def walk_keys(walk: Walk) -> None:
    made = walk("CreateProject", 201, body=walk.example("CreateProject"))["data"]
    project = {name: value for name, value in made.items() if name != "api_key"}
    assert walk("GetProject", project_id=made["id"])["data"] == project
    assert project in walk("ListProjects")["data"]
    first = walk("CreateKey", 201, body=walk.example("CreateKey"))["data"]
    key_id = first["id"]
    shown = {name: value for name, value in first.items() if name != "key"}
    assert walk("GetKey", key_id=key_id)["data"] == shown
    assert shown in walk("ListKeys", limit=2)["data"]
    changed = walk("UpdateKey", key_id=key_id, body={"name": "Other", "rate_limits": {"per_hour": 5}})["data"]
    assert changed["rate_limits"] == {"per_hour": 5}
    assert walk("RotateKey", key_id=key_id, body={"overlap": 60})["data"]["key"] != first["key"]
    assert walk("RevokeKey", key_id=key_id)["data"]["revoked_at"]
    walk("RotateKey", 409, key_id=key_id)
    walk("CreateKey", 400, body={"name": "k", "scopes": ["all"]})
    walk("GetKey", 404, key_id="key_none")
    record = walk("ListAuditRecords", object_id=key_id, outcome="conflict")["data"][0]
    assert (record["action"], record["address"]) == ("RotateKey", "127.0.0.1")


def walk_finished_tasks(walk: Walk, plane: ControlPlane) -> None:
    agents = plane.folder / "agents.py"
    agents.write_text(AGENTS)
    runner = plane.start_runner(agents)
    wait_until(lambda: bool(walk("ListAgents", type="walker", status="active")["data"]), 30, "the agent is not active")
    agent_id = walk("ListAgents", type="walker")["data"][0]["id"]
    for kind, status in (("good", "completed"), ("bad", "failed")):
        task_id = walk("CreateTask", 201, body={"agent_id": agent_id, "type": kind})["data"]["id"]
        assert walk("GetTask", task_id=task_id, wait=30)["data"]["status"] == status
        assert walk("ListTaskLogs", task_id=task_id)["data"]
        walk("CancelTask", 409, task_id=task_id)
    assert walk("GetAgent", agent_id=agent_id)["data"]["task_types"]
    assert walk("ListTasks", agent_id=agent_id)["pagination"]["total"] == 2
    walk("DeleteAgent", agent_id=agent_id)
    walk("DeleteAgent", 404, agent_id=agent_id)
    runner.stop()


def events(stream: httpx2.Response, until: str) -> Iterator[dict[str, Any]]:
    """The events of a stream, up to the first of a type."""
    for line in stream.iter_lines():
        if line.startswith("data: "):
            event = json.loads(line.removeprefix("data: "))
            yield event
            if event["type"] == until:
                return


@pytest.mark.timeout(240)
def test_whatever_schemathesis_sends(plane: ControlPlane) -> None:
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{plane.rest_url}/openapi.json"),
        *("--header", f"Authorization: Bearer {plane.api_key}"),
        *("--generation-deterministic", "--max-examples", str(EXAMPLES)),
        *("--exclude-checks", NOT_CHECKED, "--request-timeout", "10", "--no-color", "--continue-on-failure"),
        *("--output-sanitize", "false", "--output-truncate", "false"),
        # Its answer has no end.
        *("--exclude-operation-id", "WatchEvents"),
    ]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "PYTHONPATH": str(FOLDER),
        "NO_PROXY": "127.0.0.1",
    }
    done = subprocess.run(
        command,
        cwd=plane.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
