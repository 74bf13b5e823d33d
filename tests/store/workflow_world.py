"""Executions of workflows in the world of `fleet_world`: one agent whose process runs whatever it is given."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from ao_server.engine import intake
from ao_server.engine.reports import Completed
from ao_server.engine.sessions import InstanceKey
from ao_server.engine.workflows import definition, executions
from ao_server.engine.workflows.definition import Step
from ao_server.store import rows
from ao_server.store.changes import Changes, Found, Key, Operation
from tests.store.fleet_world import PROJECT, Process, World

# What the process makes of a task: its ending, or None to go on running.
Answer = Callable[[rows.Task, Any], Any]


def step(name: str, **more: Any) -> Step:
    if more.get("kind", "task") == "task":
        more.setdefault("agent_type", "t")
    return Step(id=name, name=name, **more)


class Flows:
    """Executes workflows, and plays the process that does their work."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ran: list[rows.Task] = []

    async def connect(self, configuration: str = '{"max_concurrent_tasks": 1000}') -> Process:
        """Brings the process in."""
        new = intake.NewAgent(PROJECT, "name", "t", configuration)
        made = self.world.submit(intake.create_agent(new, self.world.ids))
        await self.world.settle()
        self.process = Process(InstanceKey(PROJECT, made.result().id, "i1"), None, limit=0)
        self.world.processes.append(self.process)
        self.world.connect(self.process)
        await self.world.settle()
        return self.process

    async def keep(self, steps: Sequence[Step], name: str = "w", version: int = 1) -> str:
        """Stores a workflow, or another version of it; returns its id."""
        definition.compiled(steps)
        kept = rows.WorkflowVersion(
            project_id=PROJECT,
            workflow_id=f"workflow_{name}",
            version=version,
            steps=definition.encode(steps),
            created_at=1,
        )
        workflow = rows.Workflow(
            project_id=PROJECT,
            id=kept.workflow_id,
            name=name,
            status="active",
            version=version,
            created_at=1,
            updated_at=1,
        )

        def decide(found: Found, now: int) -> Changes[None]:
            return Changes(None, [workflow, kept])

        await self.submit(Operation(decide, keys=[Key(rows.Workflow, (PROJECT, workflow.id))]))
        return workflow.id

    async def execute(self, workflow_id: str, priority: int = 2, **parameters: Any) -> str:
        """Begins an execution; returns its id."""
        operation = executions.execute(PROJECT, workflow_id, json.dumps(parameters), priority, self.world.ids)
        made = self.world.submit(operation)
        await self.world.settle()
        return made.result().id

    async def submit(self, operation: Operation[Any]) -> Any:
        """A write of a client, and what follows from it; raises the Problem that it is refused with."""
        made = asyncio.ensure_future(self.world.writer.submit(operation))
        await self.world.settle()
        return made.result()

    async def work(self, answer: Answer) -> None:
        """Ends what runs, until nothing that runs is to end."""
        while True:
            ended = False
            for task_id in list(self.process.running):
                task, payload = await self.task(task_id)
                ending = answer(task, payload)
                if ending is not None:
                    ended = True
                    self.ran.append(task)
                    result = Completed(json.dumps(ending)) if isinstance(ending, dict) else ending
                    self.world.end(self.process, task_id, result)
            if not ended:
                return
            await self.world.settle()

    async def task(self, task_id: str) -> tuple[rows.Task, Any]:
        """A task, and its payload."""
        task = await self.world.reader.one(rows.Task, *_where(rows.Task, id=task_id))
        payload = await self.world.reader.one(rows.Payload, *_where(rows.Payload, task_id=task_id))
        assert task is not None and payload is not None
        return task, json.loads(payload.payload)

    async def execution(self, execution_id: str) -> rows.Execution:
        """An execution as it is now."""
        found = await self.world.reader.one(rows.Execution, *_where(rows.Execution, id=execution_id))
        assert found is not None
        return found

    async def steps(self, execution_id: str) -> list[rows.ExecutionStep]:
        """Its steps as they are now, joins among them, by place."""
        where = _where(rows.ExecutionStep, execution_id=execution_id)
        async with self.world.reader.connect() as connection:
            found = await self.world.reader.rows(connection, rows.ExecutionStep, *where)
        return sorted(found, key=lambda row: row.place)

    async def statuses(self, execution_id: str, count: int) -> list[str]:
        """The statuses of the first so many steps."""
        return [row.status for row in (await self.steps(execution_id))[:count]]

    async def output(self, execution_id: str, place: int) -> Any:
        """What a step with items, an approval or a child has for output."""
        where = _where(rows.ExecutionValue, execution_id=execution_id, name="output", place=place)
        found = await self.world.reader.one(rows.ExecutionValue, *where)
        return None if found is None else json.loads(found.value)

    def told(self) -> list[str]:
        """The types of the events of workflows so far."""
        return [event.type for event in self.world.events if event.type.startswith("workflow_")]


def _where(row: Any, **columns: Any) -> list[Any]:
    table = rows.TABLES[row]
    return [table.columns[name] == value for name, value in {"project_id": PROJECT, **columns}.items()]
