"""`make demo`: the whole system at work, in a minute.

It starts `ao dev` on free ports and a temporary folder, and the agent of `agents.py` as a process of its own. Then it
does what a program of yours would do: creates tasks over REST and hears over the WebSocket how they go.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Coroutine, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

import httpx2
import websockets
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
AO = (sys.executable, "-m", "agent_orchestration.cli")
SOURCE = "sales.csv"
CHUNK = 120
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
        self.agent_id: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def ended(self, task_id: str) -> asyncio.Future[str]:
        """The task's final status, once it has one. The event may come before the answer to its creation."""
        if task_id not in self._ended:
            self._ended[task_id] = asyncio.get_running_loop().create_future()
        return self._ended[task_id]

    async def subscribe(self, key: str) -> None:
        """Authenticates and asks for the events of all agents, as the API's documentation prints it."""
        await self._socket.send(json.dumps({"type": "auth", "token": key}))
        await self._socket.send(json.dumps({"type": "subscribe", "channel": "agent_events"}))
        for answer in ("authenticated", "subscribed"):
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
            if payload["status"] == "active" and not self.agent_id.done():
                self.agent_id.set_result(payload["agent_id"])
            return
        task_id = payload.get("task_id") or payload.get("id")
        if kind == "task_created":
            self._titles[task_id] = payload["labels"]["title"]
        title = f"  {self._titles.get(task_id, ''):<18}"
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


class Work:
    """Creates tasks over REST."""

    def __init__(self, client: httpx2.AsyncClient, watch: Watch, agent_id: str) -> None:
        self._client = client
        self._watch = watch
        self._agent_id = agent_id

    async def do(self, title: str, type: str, **payload: Any) -> dict[str, Any]:
        """Creates a task, waits until the WebSocket says that it has ended, returns its result."""
        created = await self._client.post(
            "/tasks",
            json={
                "agent_id": self._agent_id,
                "type": type,
                "priority": "high",
                "payload": payload,
                "labels": {"title": title},
            },
        )
        if created.status_code != 201:
            raise DemoFailed(f"POST /v1/tasks answered {created.status_code}: {created.text}")
        task_id = created.json()["data"]["id"]
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
    control_plane, runner = Child("ao dev", folder), Child("ao runner", folder)
    async with running(control_plane, runner):
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
            console.print("[bold]ao runner examples/agents.py[/] starts as another process")
            await runner.start(
                *("runner", str(HERE / "agents.py"), "--server", server), AGENT_ORCHESTRATION_API_KEY=key
            )

            async def job() -> None:
                async with asyncio.timeout(START_SECONDS):
                    agent_id = await watch.agent_id
                await process(Work(client, watch, agent_id))

            await first_end(job(), watch.run(), control_plane.watch(), runner.watch())


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
