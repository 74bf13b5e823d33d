"""`make demo`: the whole system at work, in a minute.

It starts `ao dev` on free ports and a temporary folder, and the agents of `agents.py` and `extractor.py` as processes
of their own. Then it does what a program of yours would do: creates tasks over REST and hears over the WebSocket how
they go; and at last executes a workflow, which creates the tasks itself (`pipeline.py`).
"""

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Coroutine, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

import httpx2
import pipeline
import websockets
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
AO = (sys.executable, "-m", "agent_orchestration.cli")
AGENT_FILES = ("agents.py", "extractor.py")
SOURCE = "sales.csv"
CHUNK, PART = 120, 50
# Real work of this size is over before an eye has seen it.
PAUSE = 0.1 if sys.stdout.isatty() else 0.0
START_SECONDS, DEADLINE_SECONDS, STOP_SECONDS = 60.0, 180.0, 12.0
INTERRUPTED = 130
WIDTH = 110
TAIL_LINES = 15

# Piped, it prints plain lines of one width.
console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


class DemoFailed(Exception):
    """Something did not go as it should; the text says what."""


class Child:
    """A process of the demo, in a session of its own: Ctrl-C reaches the demo alone, which stops it in order."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str, **environment: str) -> None:
        """Starts an `ao` command."""
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *AO,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # Nothing that is set for another installation counts here.
                env={name: value for name, value in os.environ.items() if not name.startswith("AGENT_ORCHESTRATION_")}
                | environment,
                start_new_session=True,
            )

    async def said(self, *starts: str) -> list[str]:
        """Waits for lines that begin like this, in this order; returns the rest of each."""
        assert self._process is not None
        assert self._process.stdout is not None
        rests: list[str] = []
        for start in starts:
            line = (await self._process.stdout.readline()).decode().rstrip("\n")
            if not line.startswith(start):
                raise DemoFailed(f"{self.name} ended" if not line else f"{self.name} said {line!r}")
            rests.append(line.removeprefix(start))
        return rests

    async def ended(self) -> int:
        """Waits for its end; returns the exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def watch(self) -> NoReturn:
        """Waits for its end, which is a failure."""
        raise DemoFailed(f"{self.name} ended with {await self.ended()}")

    async def stop(self) -> None:
        """SIGTERM; SIGKILL when that does not help."""
        try:
            if self._signal(signal.SIGTERM):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.ended(), STOP_SECONDS)
        finally:
            # Also when a second Ctrl-C breaks into the wait.
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> bool:
        if self._process is None or self._process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return True


class Watch:
    """Prints what happens, as the WebSocket tells it, and lets callers wait for it."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self._titles: dict[str, str] = {}
        self._ended: dict[str, asyncio.Future[str]] = {}
        self._active: dict[str, asyncio.Future[str]] = {}
        self.pictures: list[pipeline.Picture] = []

    def active(self, agent_type: str) -> asyncio.Future[str]:
        """The id of an agent of this type, once one is active."""
        if agent_type not in self._active:
            self._active[agent_type] = asyncio.get_running_loop().create_future()
        return self._active[agent_type]

    def ended(self, task_id: str) -> asyncio.Future[str]:
        """The task's final status, once it has one. The event may come before the answer to its creation."""
        if task_id not in self._ended:
            self._ended[task_id] = asyncio.get_running_loop().create_future()
        return self._ended[task_id]

    async def subscribe(self, key: str) -> None:
        """Authenticates and asks for the events of all agents and workflows, as the API's documentation prints it."""
        await self._socket.send(json.dumps({"type": "auth", "token": key}))
        for channel in ("agent_events", "workflow_events"):
            await self._socket.send(json.dumps({"type": "subscribe", "channel": channel}))
        for answer in ("authenticated", "subscribed", "subscribed"):
            message = json.loads(await self._socket.recv())
            if message["type"] != answer:
                raise DemoFailed(f"the WebSocket answered {message}")

    async def run(self) -> NoReturn:
        """Reads until the connection ends, which is a failure."""
        try:
            async for frame in self._socket:
                self._show(json.loads(frame))
        except websockets.ConnectionClosedError as error:
            raise DemoFailed(f"the WebSocket was closed: {error}") from None
        raise DemoFailed("the WebSocket was closed")

    def _show(self, event: Mapping[str, Any]) -> None:
        kind, payload = event["type"], event["payload"]
        if kind == "agent_status_change":
            console.print(f"  agent [bold]{payload['name']}[/]: {payload['previous_status']} -> {payload['status']}")
            active = self.active(payload["type"])
            if payload["status"] == "active" and not active.done():
                active.set_result(payload["agent_id"])
            return
        if kind.startswith("workflow_") or "execution_id" in payload:
            for picture in self.pictures:
                picture.take(event)
            return
        task_id = payload.get("task_id") or payload.get("id")
        if kind == "task_created":
            self._titles[task_id] = payload["labels"]["title"]
        if task_id not in self._titles:
            # A line that a task of the workflow has logged.
            return
        title = f"  {self._titles[task_id]:<18}"
        if kind == "task_progress":
            percent = payload["progress"]
            bar = "#" * round(percent / 5)
            console.print(f"{title}[cyan]{bar:.<20}[/] {percent:3.0f} %  {payload.get('progress_message', '')}")
        elif kind == "task_log":
            for line in payload["lines"]:
                style = "yellow" if line["level"] in ("warning", "error") else "dim"
                console.print(title, f"{line['level']}: {line['message']}", style=style, sep="", markup=False)
        elif kind in ("task_completed", "task_failed", "task_cancelled"):
            style = "green" if kind == "task_completed" else "red"
            console.print(f"{title}[{style}]{payload['status']}[/] in {payload.get('duration', 0) * 1000:.0f} ms")
            ended = self.ended(task_id)
            if not ended.done():
                ended.set_result(payload["status"])


async def create(client: httpx2.AsyncClient, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Creates something; returns it as it was answered."""
    created = await client.post(path, json=body)
    if created.status_code != 201:
        raise DemoFailed(f"POST /v1{path} answered {created.status_code}: {created.text}")
    return created.json()["data"]


class Work:
    """Creates tasks over REST."""

    def __init__(self, client: httpx2.AsyncClient, watch: Watch, agent_id: str) -> None:
        self._client = client
        self._watch = watch
        self._agent_id = agent_id

    async def do(self, title: str, type: str, **payload: Any) -> dict[str, Any]:
        """Creates a task, waits until the WebSocket says that it has ended, returns its result."""
        created = await create(
            self._client,
            "/tasks",
            {
                "agent_id": self._agent_id,
                "type": type,
                "priority": "high",
                "payload": payload,
                "labels": {"title": title},
            },
        )
        task_id = created["id"]
        status = await self._watch.ended(task_id)
        task = (await self._client.get(f"/tasks/{task_id}")).raise_for_status().json()["data"]
        if status != "completed":
            raise DemoFailed(f"{title} {status}: {task.get('error', {}).get('message', 'no reason given')}")
        return task["result"]


async def process(work: Work) -> None:
    """The job: clean in chunks, side by side; then group; then sum up."""
    counted = await work.do("count", "count_records", source=SOURCE)
    total = counted["records"]
    async with asyncio.TaskGroup() as group:
        cleaning = [
            group.create_task(
                work.do(
                    f"clean {first + 1}-{min(first + CHUNK, total)}",
                    *("clean_records",),
                    source=SOURCE,
                    first=first,
                    count=CHUNK,
                    pause=PAUSE,
                )
            )
            for first in range(0, total, CHUNK)
        ]
    chunks = [each.result() for each in cleaning]
    records = [record for chunk in chunks for record in chunk["records"]]
    grouped = await work.do("group", "group_records", records=records, by="region", pause=PAUSE)
    summary = await work.do("summarise", "summarise_groups", groups=grouped["groups"])

    table = Table(title=f"{total} records of {SOURCE}, by region", title_justify="left")
    for heading in ("Region", "Orders", "Units", "Revenue", "Best product"):
        table.add_column(heading, justify="left" if heading in ("Region", "Best product") else "right")
    for line in summary["lines"]:
        table.add_row(
            line["group"],
            f"{line['orders']:,}",
            f"{line['units']:,}",
            f"{line['revenue_cents'] / 100:,.2f}",
            line["best_product"],
        )
    orders = sum(line["orders"] for line in summary["lines"])
    units = sum(line["units"] for line in summary["lines"])
    table.add_section()
    table.add_row("Total", f"{orders:,}", f"{units:,}", f"{summary['total_cents'] / 100:,.2f}", "")
    console.print()
    console.print(table)
    left_out = total - len(records)
    console.print(f"{left_out} records made no sense and were left out, {grouped['repeats']} were there twice.")


async def execute(client: httpx2.AsyncClient, watch: Watch, target: Path) -> None:
    """The job as a workflow: extract, process in parallel, load."""
    workflow = await create(client, "/workflows", pipeline.WORKFLOW)
    console.print()
    console.print(f"[bold]{workflow['name']}[/]: a workflow of three steps over two types of agents")
    picture = pipeline.Picture(workflow, console)
    watch.pictures.append(picture)
    parameters = {"source": SOURCE, "part_size": PART, "pause": 3 * PAUSE, "target": str(target)}
    with picture.shown():
        execution = await create(client, f"/workflows/{workflow['id']}/execute", {"parameters": parameters})
        await picture.ended
    execution = (await client.get(f"/executions/{execution['id']}")).raise_for_status().json()["data"]
    if execution["status"] != "completed":
        reason = execution.get("error", {}).get("message", "no reason given")
        raise DemoFailed(f"{workflow['name']} {execution['status']}: {reason}")
    console.print(f"[green]{execution['status']}[/] in {execution['duration'] * 1000:.0f} ms, its output:")
    console.print_json(data=execution["output"])


@contextlib.asynccontextmanager
async def running(*children: Child) -> AsyncGenerator[None]:
    """Stops the children at the end, the last one first, whatever has happened."""
    try:
        yield
    finally:
        for child in reversed(children):
            await child.stop()


async def first_end(main: Coroutine[Any, Any, None], *watched: Coroutine[Any, Any, NoReturn]) -> None:
    """Runs `main`; what is watched meanwhile can only end it with an error."""
    tasks = [asyncio.create_task(each) for each in (main, *watched)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def demo(folder: Path) -> None:
    """Starts everything, does the job, stops everything."""
    control_plane = Child("ao dev", folder)
    runners = {file: Child(f"ao runner {file}", folder) for file in AGENT_FILES}
    async with running(control_plane, *runners.values()):
        console.print("[bold]ao dev[/] starts on free ports and a temporary folder")
        await control_plane.start("dev", "--port", "0", "--grpc-port", "0", "--data-dir", str(folder / "data"))
        async with asyncio.timeout(START_SECONDS):
            url, server, key = await control_plane.said("REST ", "gRPC ", "API key ")
        console.print(f"  REST and WebSocket at {url}, gRPC at {server}")
        async with (
            httpx2.AsyncClient(
                base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=30, trust_env=False
            ) as client,
            websockets.connect(url.replace("http", "ws", 1) + "/ws", proxy=None) as socket,
        ):
            watch = Watch(socket)
            await watch.subscribe(key)
            for file, runner in runners.items():
                console.print(f"[bold]ao runner examples/{file}[/] starts as another process")
                await runner.start("runner", str(HERE / file), "--server", server, AGENT_ORCHESTRATION_API_KEY=key)

            async def job() -> None:
                async with asyncio.timeout(START_SECONDS):
                    agent_id = await watch.active("data_processor")
                    await watch.active("data_extractor")
                await process(Work(client, watch, agent_id))
                await execute(client, watch, folder / "sales.db")

            await first_end(job(), watch.run(), control_plane.watch(), *(each.watch() for each in runners.values()))


async def bounded(folder: Path) -> None:
    """The demo, within its deadline; SIGTERM and SIGHUP end it as Ctrl-C does."""
    this = asyncio.current_task()
    assert this is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    async with asyncio.timeout(DEADLINE_SECONDS):
        await demo(folder)


def main() -> int:
    """Runs the demo; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that is not of UTF-8 shows other marks, and no error.
        sys.stdout.reconfigure(errors="replace")  # pyright: ignore[reportUnknownMemberType]
    with tempfile.TemporaryDirectory(prefix="ao-demo-") as name:
        try:
            asyncio.run(bounded(Path(name)))
        except (KeyboardInterrupt, asyncio.CancelledError):
            print("interrupted; everything is stopped", file=sys.stderr)
            return INTERRUPTED
        except Exception as error:
            print(f"error: {_reason(error)}", file=sys.stderr)
            for log in sorted(Path(name).glob("*.log")):
                tail = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
                print(f"--- the last that {log.stem} wrote:", *tail, sep="\n", file=sys.stderr)
            return 1
    return 0


def _reason(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        # Tasks side by side: the first to fail is the reason.
        return _reason(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    if isinstance(error, DemoFailed):
        return str(error)
    if isinstance(error, TimeoutError):
        return "it took too long"
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(main())
