"""The stream of a process in messages, both ways: what the engine says, what the process reports.

Text for people is cut to its limit rather than refused, and a result that cannot be kept fails its task rather than the
stream: whatever agent code does ends in a documented state.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from google.protobuf.duration_pb2 import Duration

from agent_orchestration import free_json
from agent_orchestration.v1 import agents_pb2, common_pb2, runners_pb2
from ao_server.api import messages
from ao_server.engine import attach, logs, reports
from ao_server.engine.outbox import Outbox
from ao_server.engine.sessions import (
    Assign,
    Attempt,
    Configure,
    Renewed,
    Session,
    Settled,
    Stop,
    Stopping,
    TaskType,
    ToRunner,
)
from ao_server.engine.transitions import Failure

PROTOCOL_VERSION: Final = 1
MAX_RESULT_BYTES: Final = 1024 * 1024
MAX_CODE_BYTES: Final = 100
MAX_ERROR_BYTES: Final = 4 * 1024
MAX_PROGRESS_BYTES: Final = 1_000
MAX_LINE_BYTES: Final = 8 * 1024
CUT: Final = " [cut]"
# A hundred years; a thousand cores.
MAX_UPTIME_SECONDS: Final = 100 * 365 * 86_400.0
MAX_USAGE_PERCENT: Final = 100_000.0


_REASONS: Final = {
    "superseded": runners_pb2.CANCEL_REASON_SUPERSEDED,
    "requested": runners_pb2.CANCEL_REASON_REQUESTED,
}


def welcome(session: Session, attached: attach.Attached, lease: float) -> runners_pb2.ConnectResponse:
    """The answer to hello. `lease` in seconds."""
    response = runners_pb2.ConnectResponse()
    welcome = response.welcome
    welcome.session_id = session.id
    welcome.agent_id = attached.agent.id
    welcome.lease.FromMicroseconds(round(lease * 1e6))
    welcome.protocol_version = PROTOCOL_VERSION
    welcome.configure.CopyFrom(_configure(Configure(attached.agent.configuration, session.limit)))
    return response


def responses(outbox: Outbox[ToRunner | Exception]) -> Iterator[runners_pb2.ConnectResponse]:
    """What waits to be said, as messages of the stream; raises an exception that waits among it.

    A message costs as much as several tasks: what was settled goes with the work that took its place.
    """
    settled: list[tuple[Attempt, bool]] = []
    while outbox:
        message = outbox.take()
        match message:
            case Settled():
                settled += message.settlements
                if not isinstance(outbox.peek(), Settled | Assign):
                    yield _settled(settled)
                    settled = []
            case Assign():
                yield _assign(message, settled)
                settled = []
            case Stop():
                reason = _REASONS[message.reason]
                for attempt in message.attempts:
                    cancel = runners_pb2.Cancel(attempt=_attempt(attempt), reason=reason)
                    yield runners_pb2.ConnectResponse(cancel=cancel)
            case Configure():
                yield runners_pb2.ConnectResponse(configure=_configure(message))
            case Renewed():
                yield runners_pb2.ConnectResponse(renewed=runners_pb2.Renewed(number=message.number))
            case Stopping():
                yield runners_pb2.ConnectResponse(stopping=runners_pb2.Stopping())
            case _:
                raise message


def _settled(settled: Iterable[tuple[Attempt, bool]]) -> runners_pb2.ConnectResponse:
    response = runners_pb2.ConnectResponse(settled=runners_pb2.Settled())
    _add_settlements(response.settled, settled)
    return response


def _assign(message: Assign, settled: Iterable[tuple[Attempt, bool]]) -> runners_pb2.ConnectResponse:
    response = runners_pb2.ConnectResponse()
    assign = response.assign
    assign.number = message.number
    _add_settlements(assign, settled)
    add = assign.assignments.add
    for each in message.assignments:
        assignment = add()
        assignment.type = each.type
        assignment.payload = each.payload
        assignment.timeout.CopyFrom(_timeout(each.timeout))
        attempt = assignment.attempt
        attempt.task_id, attempt.number = each.attempt
    return response


def _add_settlements(
    message: runners_pb2.Settled | runners_pb2.Assign, settled: Iterable[tuple[Attempt, bool]]
) -> None:
    """In place: one that is made by itself and then put into another message takes twice as long."""
    add = message.settlements.add
    for each, accepted in settled:
        settlement = add()
        settlement.accepted = accepted
        attempt = settlement.attempt
        attempt.task_id, attempt.number = each


@lru_cache(maxsize=64)
def _timeout(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1e6))
    return duration


def _attempt(attempt: Attempt) -> runners_pb2.Attempt:
    return runners_pb2.Attempt(task_id=attempt.task_id, number=attempt.number)


def held(attempts: Iterable[runners_pb2.Attempt]) -> dict[str, int]:
    """Attempt numbers by task id."""
    return {attempt.task_id: attempt.number for attempt in attempts}


def progress(report: runners_pb2.ProgressReport) -> reports.ProgressReport:
    """A report of progress."""
    message = _storable(report.message, MAX_PROGRESS_BYTES) if report.HasField("message") else None
    return reports.ProgressReport(_of(report.attempt), report.progress, message)


def log(report: runners_pb2.LogReport) -> reports.LogReport:
    """A log line."""
    level = report.level or common_pb2.LOG_LEVEL_INFO
    age = max(0, report.age.ToMicroseconds())
    name = messages.enum_name(common_pb2.LogLevel, level)
    return reports.LogReport(_of(report.attempt), logs.Line(name, _storable(report.message, MAX_LINE_BYTES), age))


def task_type(stated: agents_pb2.TaskType) -> TaskType:
    """A type of tasks that a process runs."""
    description = stated.description if stated.HasField("description") else None
    return TaskType(stated.name, description, stated.schema if stated.HasField("schema") else None)


def outcome(reported: runners_pb2.Outcome) -> reports.Outcome:
    """An outcome; one that cannot be kept is a failure that says why."""
    attempt = _of(reported.attempt)
    match reported.WhichOneof("outcome"):
        case "result":
            return reports.Outcome(attempt, _result(reported.result))
        case "failure":
            code = _storable(reported.failure.code, MAX_CODE_BYTES) or "task_error"
            message = _storable(reported.failure.message, MAX_ERROR_BYTES)
            return reports.Outcome(attempt, Failure(code, message, reported.failure.not_retryable))
        case "cancelled":
            return reports.Outcome(attempt, reports.CancelledByAgent())
        case "handed_back":
            return reports.Outcome(attempt, reports.HandedBack())
        case _:
            return reports.Outcome(attempt, Failure("invalid_result", "the agent reported an empty outcome"))


def _result(text: str) -> reports.Completed | Failure:
    if len(text.encode()) > MAX_RESULT_BYTES:
        return Failure("result_too_large", f"the result is longer than {MAX_RESULT_BYTES} bytes of JSON")
    wrong = free_json.check(text)
    return reports.Completed(text) if wrong is None else Failure("invalid_result", f"the result {wrong}")


def _configure(message: Configure) -> runners_pb2.Configure:
    return runners_pb2.Configure(configuration=message.configuration, max_concurrent_tasks=message.max_concurrent_tasks)


def _of(attempt: runners_pb2.Attempt) -> Attempt:
    return Attempt(attempt.task_id, attempt.number)


def _storable(text: str, limit: int) -> str:
    """Text for people, in at most `limit` bytes; U+0000, which PostgreSQL cannot hold, becomes U+FFFD."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    return encoded[: limit - len(CUT)].decode(errors="ignore") + CUT


def uptime(stated: Duration) -> float:
    """Seconds that a process has been alive; whatever it states, they can be shown."""
    return min(max(0.0, stated.ToMicroseconds() / 1e6), MAX_UPTIME_SECONDS)


def usage(stated: float) -> float:
    """Percent that a process measured; 0 for what is none, such as NaN, which would spoil the mean of all."""
    return stated if 0 <= stated <= MAX_USAGE_PERCENT else 0.0
