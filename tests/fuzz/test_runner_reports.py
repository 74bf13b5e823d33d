"""What instances may report, and anything else, through validation, decoding and decision: fence and store hold."""

from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from agent_orchestration.v1 import runners_pb2
from ao_server.api import messages as api_messages
from ao_server.api import runner_messages
from ao_server.api.validation import validate
from ao_server.engine import reports, transitions
from ao_server.engine.sessions import InstanceKey
from ao_server.errors import Invalid
from ao_server.store import rows
from ao_server.store.changes import Changes, Operation
from tests.fuzz.effort import fuzzed
from tests.fuzz.messages import MINE, NOBODYS, THEIRS, bent, messages

PROJECT, AGENT = "project_default", "agent_1"
KEY: Final = InstanceKey(PROJECT, AGENT, "mine")
NOW: Final = 1_700_000_000_000_000
HOUR: Final = 3_600_000_000
# Of what one message of the feed may hold.
EVENT_BYTES: Final = 1024 * 1024
REPORTS: Final = st.one_of(
    [messages(runners_pb2.ConnectRequest.DESCRIPTOR, only) for only in ("progress", "log", "outcomes")]
)


@dataclass
class Memory:
    """A store that is a dictionary, with one task that the instance holds, and others that it does not."""

    rows: dict[tuple[Any, ...], Any] = field(default_factory=dict[tuple[Any, ...], Any])
    selected: tuple[Any, ...] = ()

    def get(self, row: type[Any], *key: str | int) -> Any:
        return self.rows.get((row, *key))

    def put(self, *changed: Any) -> None:
        for row in changed:
            self.rows[(type(row), row.project_id, row.id)] = row

    def run(self, operation: Operation[Any]) -> Changes[Any]:
        changes = operation.decide(self, NOW)
        self.put(*(row for row in changes.rows if isinstance(row, rows.Task | rows.Agent)))
        return changes


def _memory() -> Memory:
    memory = Memory()
    times: dict[str, Any] = {"created_at": 1, "updated_at": 1}
    memory.put(
        rows.Agent(project_id=PROJECT, id=AGENT, name="a", type="t", status="active", configuration="{}", **times)
    )
    for task_id, instance in ((MINE, "mine"), (THEIRS, "theirs"), ("task_pending", None), (NOBODYS, "mine")):
        agent = AGENT if task_id != NOBODYS else "agent_2"
        task = rows.Task(
            project_id=PROJECT, id=task_id, agent_id=agent, type="t", priority=2, created_at=1, status="pending"
        )
        if instance is not None:
            task = transitions.claim(task, agent, instance, HOUR, 2).answer
        memory.put(task)
    return memory


START: Final = _memory()


@fuzzed(0.13)
@given(st.lists(REPORTS.map(lambda report: report.SerializeToString()) | bent(REPORTS), min_size=1, max_size=3))
def test_any_reports_are_refused_or_leave_rows_that_can_be_stored(sent: list[bytes]) -> None:
    memory = Memory(dict(START.rows))
    for each in sent:
        try:
            request = runners_pb2.ConnectRequest.FromString(each)
            validate(request)
        except (DecodeError, Invalid):
            continue
        operation = _operation(request)
        if operation is not None:
            _can_be_stored(memory.run(operation))
    untouched = {key: row for key, row in memory.rows.items() if key[-1] not in (MINE, AGENT)}
    assert untouched == {key: row for key, row in START.rows.items() if key[-1] not in (MINE, AGENT)}


def test_long_lines_reported_at_once_make_events_that_every_watcher_can_take() -> None:
    attempt = runners_pb2.Attempt(task_id=MINE, number=1)
    lines = [runners_pb2.LogReport(attempt=attempt, message="\x01" * 8192) for _ in range(1_000)]
    operation = _operation(runners_pb2.ConnectRequest(log=runners_pb2.Log(reports=lines)))
    assert operation is not None
    events = Memory(dict(START.rows)).run(operation).events
    assert sum(len(api_messages.event(event, "").task_log.lines) for event in events) == len(lines)
    assert max(len(event.body) for event in events) <= EVENT_BYTES


def _operation(request: runners_pb2.ConnectRequest) -> Operation[Any] | None:
    match request.WhichOneof("message"):
        case "progress":
            return reports.progress(KEY, [runner_messages.progress(each) for each in request.progress.reports])
        case "log":
            return reports.log(KEY, [runner_messages.log(each) for each in request.log.reports])
        case "outcomes":
            outcomes = [runner_messages.outcome(each) for each in request.outcomes.outcomes]
            return reports.settle(KEY, outcomes, lambda: 0.5, lambda settled: None)
        case _:
            return None


def _can_be_stored(changes: Changes[Any]) -> None:
    for row in (*changes.rows, *changes.events):
        for value in rows.values_of(row):
            if isinstance(value, str):
                assert "\0" not in value
                value.encode()
            elif isinstance(value, int):
                assert -(2**63) <= value < 2**63
    for event in changes.events:
        api_messages.event(event, "cursor").SerializeToString()
    for row in changes.rows:
        if isinstance(row, rows.Task):
            api_messages.task(row).SerializeToString()
        elif isinstance(row, rows.LogLine):
            api_messages.log_line(row).SerializeToString()
