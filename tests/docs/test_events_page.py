"""docs/events.md says what the code does, and its Python reader survives what it says that it does."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from agent_orchestration.v1 import events_pb2
from ao_gateway import channels, scalars, sockets, watcher
from tests.docs.tables import ROOT, table, words
from tests.e2e.processes import ControlPlane

PAGE: Final = ROOT / "docs" / "events.md"


def test_every_type_channel_and_alert_is_told() -> None:
    assert {row[0] for row in table("events.md", "type")} == set(scalars.words_of(events_pb2.EventType.DESCRIPTOR))
    told = {row[0]: words(row[2]) if row[2] else [] for row in table("events.md", "channel")}
    assert told == {name: [*channels.NARROWED_BY.get(name, ())] for name in channels.NAMES}
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "server/ao_server/engine").glob("*.py"))
    alerts = re.findall(r'(?:_Condition\(|AlertBody\()\s*"([a-z_]+)"', sources)
    assert {row[0] for row in table("events.md", "alert")} == {*alerts}


def test_every_close_is_told() -> None:
    told = {int(row[0]) for row in table("events.md", "close")}
    ours = {sockets.BAD_CREDENTIAL, sockets.NO_CREDENTIAL, sockets.TOO_MANY_FRAMES, watcher.TOO_SLOW, watcher.RESTART}
    # 1009 is the protocol's own.
    assert told == ours | {1009}


def test_examples_are_json() -> None:
    blocks = re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    shown = [json.loads(example) for block in blocks for example in block.split("\n\n")]
    assert [each["type"] for each in shown] == [
        *("task_progress", "task_log", "agent_status_change", "workflow_step_started", "system_alert")
    ]


def test_the_python_reader_goes_on_through_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    with ControlPlane(tmp_path) as plane:
        dev = plane.start_dev()
        monkeypatch.setenv("AGENT_ORCHESTRATION_API_KEY", plane.api_key)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        names: dict[str, Any] = {}
        exec(code.replace("http://127.0.0.1:3000/v1", plane.rest_url), names)
        start = _head(plane)
        reader = names["events"](start)
        _submit(plane, "first")
        assert next(reader)["payload"]["type"] == "first"
        dev.stop()
        plane.start_dev()
        _submit(plane, "second")
        assert next(reader)["payload"]["type"] == "second"
        reader.close()


def _submit(plane: ControlPlane, type_: str) -> None:
    with plane.client() as client:
        answer = client.post("/tasks", json={"agent_type": "nobody", "type": type_})
        assert answer.status_code == 201, answer.text


def _head(plane: ControlPlane) -> str:
    """The cursor of the newest event."""
    with plane.client() as client, client.stream("GET", "/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("id: "):
                return line.removeprefix("id: ")
    raise AssertionError("the stream has no beginning")
