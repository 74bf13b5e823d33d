"""The pipeline of the demo: three steps over two types of agents, and their picture in the terminal.

What the picture shows comes from events alone: those of the workflow, and those of the tasks of its steps.
"""

import asyncio
import contextlib
import sys
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

WORKFLOW: dict[str, Any] = {
    "name": "Sales Pipeline",
    "steps": [
        {
            "id": "extract",
            "agent_type": "data_extractor",
            "type": "extract_parts",
            "order": 1,
            "input": "{source: parameters.source, size: parameters.part_size}",
        },
        {
            "id": "process",
            "agent_type": "data_processor",
            "type": "clean_part",
            "order": 2,
            "for_each": "steps.extract.output.parts",
            "input": "{records: item.records, first: item.first, pause: parameters.pause}",
        },
        {
            "id": "load",
            "agent_type": "data_processor",
            "type": "load_records",
            "order": 3,
            "input": "{records: steps.process.output[].records[], target: parameters.target}",
        },
    ],
}

# Three of them and the arrows between fit into 80 columns.
BOX_WIDTH = 24
MARKS = {
    "pending": ("·", "dim"),
    "running": ("▶", "cyan"),
    "completed": ("✔", "green"),
    "failed": ("✘", "red"),
    "cancelled": ("✘", "red"),
    "skipped": ("-", "dim"),
}


@dataclass(slots=True)
class Box:
    """A step. `total` and `done` count the items of a step that runs once for each item of a list."""

    agent_type: str
    status: str = "pending"
    total: int | None = None
    done: int = 0
    seconds: float | None = None

    @property
    def state(self) -> str:
        """One short line."""
        words = [MARKS[self.status][0]]
        if self.total is not None:
            words.append(f"{self.done}/{self.total}")
        if self.total is None or self.status not in ("running", "completed"):
            words.append(self.status)
        if self.seconds is not None:
            words.append(f"{self.seconds * 1000:.0f} ms")
        return " ".join(words)


class Picture:
    """The steps of a workflow, drawn as boxes; redrawn in a terminal, else a line for each change."""

    def __init__(self, workflow: Mapping[str, Any], console: Console) -> None:
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._workflow_id: str = workflow["id"]
        self._boxes = {step["id"]: Box(step["agent_type"]) for step in workflow["steps"]}
        self._executions: set[str] = set()
        self._console = console
        self._live: Live | None = None

    @contextlib.contextmanager
    def shown(self) -> Generator[None]:
        """Keeps the picture in the terminal meanwhile; elsewhere prints it before and after."""
        if sys.stdout.isatty() and not self._console.is_dumb_terminal:
            with Live(self, console=self._console, auto_refresh=False) as self._live:
                yield
        else:
            self._console.print(self)
            yield
            self._console.print(self)

    def take(self, event: Mapping[str, Any]) -> None:
        """Shows what an event has changed. Events of other workflows change nothing."""
        kind, payload = event["type"], event["payload"]
        if kind.startswith("workflow_"):
            execution = payload["execution"]
            if execution["workflow_id"] != self._workflow_id:
                return
            self._executions.add(execution["id"])
            if "step" in payload:
                self._take_step(payload["step"])
            elif execution["status"] != "running" and not self.ended.done():
                self.ended.set_result(execution["status"])
        elif kind == "task_completed" and payload["execution_id"] in self._executions:
            box = self._boxes[payload["step_id"]]
            # The step may have been told to be completed already, with all that it has done.
            if box.total is not None and box.status == "running":
                box.done += 1
                self._show(payload["step_id"])

    def _take_step(self, step: Mapping[str, Any]) -> None:
        box = self._boxes[step["id"]]
        box.status, box.seconds = step["status"], step.get("duration")
        if "items" in step:
            box.total, box.done = step["items"]["total"], step["items"]["completed"]
        self._show(step["id"])

    def _show(self, step_id: str) -> None:
        if self._live is not None:
            self._live.update(self, refresh=True)
            return
        box = self._boxes[step_id]
        self._console.print(f"  {step_id:<18}", Text(box.state, MARKS[box.status][1]), sep="")

    def __rich__(self) -> Table:
        """Boxes in a row, with arrows between them."""
        table = Table.grid(padding=(0, 1))
        cells: list[Panel | Text] = []
        for step_id, box in self._boxes.items():
            style = MARKS[box.status][1]
            if cells:
                cells.append(Text("─▶", style))
            inside = Text.assemble((f"{box.agent_type}\n", "dim"), (box.state, style))
            cells.append(Panel(inside, title=step_id, title_align="left", width=BOX_WIDTH, border_style=style))
        for _ in cells:
            table.add_column(vertical="middle", no_wrap=True)
        table.add_row(*cells)
        return table
