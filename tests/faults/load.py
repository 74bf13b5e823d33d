"""Load for fault tests, and what must hold afterwards: the promises of the design, checked from outside."""

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

import httpx2
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.e2e.processes import ControlPlane, wait_until

FINAL: Final = ("completed", "failed", "cancelled")
RETRY_SECONDS: Final = 0.05
END_SECONDS: Final = 90.0


class Submitter:
    """Creates tasks one after the other in a thread of its own; remembers those that were answered with 201."""

    def __init__(self, plane: ControlPlane, agent_id: str, count: int, seconds: float) -> None:
        """`seconds`: how long each task takes."""
        self.created: list[str] = []
        self.unanswered = 0
        self._plane = plane
        self._agent_id = agent_id
        self._count = count
        self._seconds = seconds
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.join(END_SECONDS)
        assert not self._thread.is_alive(), "the load has not ended"

    def wait(self, count: int) -> None:
        """Until so many tasks are created."""
        wait_until(lambda: len(self.created) >= count, END_SECONDS, f"fewer than {count} tasks created")

    def _run(self) -> None:
        with self._plane.client(timeout=5.0) as client:
            number = 0
            while len(self.created) < self._count:
                number += 1
                payload = {"number": number, "seconds": self._seconds}
                try:
                    body = {"agent_id": self._agent_id, "type": "work", "payload": payload}
                    response = client.post("/tasks", json=body)
                except httpx2.TransportError:
                    self.unanswered += 1
                    time.sleep(RETRY_SECONDS)
                    continue
                if response.status_code == 201:
                    self.created.append(response.json()["data"]["id"])
                else:
                    assert response.status_code in (408, 503), response.text
                    time.sleep(RETRY_SECONDS)


class Watcher:
    """Hears every event of an agent, or of a channel, over a WebSocket; after a break it resumes behind the last one it
    saw.
    """

    def __init__(self, plane: ControlPlane, agent_id: str | None = None, channel: str = "agent_events") -> None:
        self.events: list[dict[str, Any]] = []
        self.cursor: str | None = None
        self.problems: list[str] = []
        self._plane = plane
        self._subscription = {"channel": channel} | ({} if agent_id is None else {"agent_id": agent_id})
        self._stop = threading.Event()
        self._subscribed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._subscribed.wait(END_SECONDS)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(END_SECONDS)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._watch()
            except (OSError, WebSocketException, TimeoutError, EOFError):
                time.sleep(RETRY_SECONDS)

    def _watch(self) -> None:
        url = self._plane.rest_url.replace("http", "ws", 1) + "/ws"
        with connect(url, open_timeout=5, close_timeout=1, compression=None, max_size=None, proxy=None) as socket:
            socket.send(json.dumps({"type": "auth", "token": self._plane.api_key}))
            subscribe = {"type": "subscribe", **self._subscription}
            if self.cursor is not None:
                subscribe["after"] = self.cursor
            socket.send(json.dumps(subscribe))
            while not self._stop.is_set():
                try:
                    message = json.loads(socket.recv(timeout=0.2))
                except TimeoutError:
                    continue
                if message["type"] == "subscribed":
                    self.cursor = self.cursor or message["cursor"]
                    self._subscribed.set()
                elif message["type"] == "error":
                    # The gateway may be up before it has reached the server again; anything else is a fault.
                    if message["error"]["code"] != "unavailable":
                        self.problems.append(str(message))
                elif message["type"] != "authenticated":
                    self.events.append(message)
                    self.cursor = message["cursor"]


@dataclass
class Journal:
    """What really ran: intervals of monotonic time by task and attempt, an open end for what was killed."""

    runs: dict[str, dict[int, tuple[float, float | None]]] = field(
        default_factory=lambda: defaultdict[str, dict[int, tuple[float, float | None]]](dict)
    )

    @classmethod
    def read(cls, path: Path) -> Self:
        """The journal that the workers wrote."""
        journal = cls()
        for line in path.read_text().splitlines() if path.exists() else []:
            what, task_id, attempt, _, at = line.split()
            runs = journal.runs[task_id]
            if what == "start":
                assert int(attempt) not in runs, f"{task_id} attempt {attempt} started twice"
                runs[int(attempt)] = (float(at), None)
            else:
                runs[int(attempt)] = (runs[int(attempt)][0], float(at))
        return journal

    def assert_never_two_at_once(self, kills: Sequence[float] = ()) -> None:
        """No attempt of a task began before the one before it ended, or was killed at one of these times."""
        for task_id, runs in self.runs.items():
            ordered = [runs[number] for number in sorted(runs)]
            for (began, ended), (next_began, _) in pairwise(ordered):
                end = ended if ended is not None else min((kill for kill in kills if kill >= began), default=None)
                assert end is not None and next_began >= end, f"two attempts of {task_id} at once"


def create_agent(plane: ControlPlane) -> str:
    """The agent that the workers become."""
    with plane.client() as client:
        response = client.post("/agents", json={"name": "Worker", "type": "worker"})
        assert response.status_code == 201, response.text
        return response.json()["data"]["id"]


def wait_for_end(plane: ControlPlane, submitter: Submitter) -> dict[str, dict[str, Any]]:
    """Every task of the agent once all have ended, by id."""
    with plane.client() as client:

        def unfinished() -> int:
            pages = [client.get("/tasks", params={"status": status, "limit": 1}) for status in ("pending", "running")]
            return sum(page.json()["pagination"]["total"] for page in pages)

        wait_until(lambda: unfinished() == 0, END_SECONDS, "not every task has ended")
        tasks: dict[str, dict[str, Any]] = {}
        page = 1
        while found := client.get("/tasks", params={"page": page, "limit": 100}).json()["data"]:
            tasks |= {task["id"]: task for task in found}
            page += 1
    missing = set(submitter.created) - tasks.keys()
    assert not missing, f"{len(missing)} tasks that were answered with 201 are not there"
    # A create without an answer may or may not have happened, never twice.
    assert len(tasks) <= len(submitter.created) + submitter.unanswered + 50
    assert {task["status"] for task in tasks.values()} == {"completed"}
    return tasks


def assert_events_tell_it_all(watcher: Watcher, tasks: dict[str, dict[str, Any]]) -> None:
    """The watcher heard of every task's one outcome, every event in order and none twice."""
    wait_until(
        lambda: (
            {event["payload"].get("id") for event in watcher.events if event["type"] == "task_completed"}
            >= tasks.keys()
        ),
        END_SECONDS,
        "not every outcome was heard of",
    )
    assert not watcher.problems, watcher.problems
    cursors = [event["cursor"] for event in watcher.events]
    assert cursors == sorted(set(cursors)), "events out of order, or twice"
    # Every event of the project is this agent's, so the positions within the cursors leave no gap.
    positions = [int(cursor[-12:], 16) for cursor in cursors]
    assert positions == list(range(positions[0], positions[0] + len(positions))), "a gap in the events"
    outcomes = Counter(
        event["payload"]["id"] for event in watcher.events if event["type"].removeprefix("task_") in FINAL
    )
    assert outcomes == dict.fromkeys(tasks, 1)
