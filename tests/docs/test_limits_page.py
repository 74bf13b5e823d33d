"""docs/limits.md: each number is that of the code, and each limit of the test is on the page."""

from typing import Any, Final

from agent_orchestration import environment, free_json, rate_limits, request_ids
from agent_orchestration.cli import restarts
from agent_orchestration.v1 import agents_pb2, keys_pb2, monitoring_pb2, options_pb2, runners_pb2, tasks_pb2
from agent_runner import held, lease, link, outbox, process
from agent_runner import outcomes as runner_outcomes
from agent_runner import reports as runner_reports
from agent_runner import task as runner_task
from ao_gateway import access as gateway_access
from ao_gateway import (
    body,
    event_stream,
    event_streams,
    exports,
    frame_rate,
    http_protocol,
    in_flight,
    oauth,
    server,
    sockets,
    throttle,
    unary,
    watcher,
)
from ao_gateway import errors as gateway_errors
from ao_server import listening, settings
from ao_server.api import access, agent_messages, calls, pages, runner_messages, runners
from ao_server.api import tasks as api_tasks
from ao_server.engine import access as engine_access
from ao_server.engine import (
    cancellation,
    configuration,
    credentials,
    dispatch,
    feed,
    idempotency,
    logs,
    placement,
    presence,
    pruning,
    retries,
    sessions,
    tokens,
    transitions,
)
from ao_server.store import driver, lists, writer
from ao_server.store import tasks as stored_tasks
from tests.docs.tables import ROOT

_DEFAULTS: Final = settings.read(host="127.0.0.1", grpc_port=0, data_dir=None, database_url=None, environment={})


def _rules(message: Any, field: str) -> Any:
    options: Any = message.DESCRIPTOR.fields_by_name[field].GetOptions()
    return options.Extensions[options_pb2.rules]


def _longest(message: Any, *fields: str) -> int:
    (limit,) = {_rules(message, field).max_length for field in fields}
    return limit


def _size(number: int) -> str:
    unit, name = (1024 * 1024, "MiB") if number >= 1024 * 1024 else (1024, "KiB")
    assert number % unit == 0
    return f"{number // unit} {name}"


def _seconds(number: float) -> str:
    return f"{number:,g} s" if number < 1000 else f"{number:,.0f} s"


def _microseconds(number: int) -> str:
    return _seconds(number / 1e6)


_TASK: Final = tasks_pb2.CreateTaskRequest
_AGENT: Final = agents_pb2.CreateAgentRequest
_HOURS: Final = 3_600

LIMITS: Final = {
    "body": _size(body.MAX_BYTES),
    "headers with the request line": _size(http_protocol.MAX_HEAD_BYTES),
    "time for the headers": _seconds(http_protocol.HEAD_SECONDS),
    "pause between parts of the body": _seconds(body.GAP_SECONDS),
    "time to answer, beside a `wait`": _seconds(unary.TIMEOUT_SECONDS),
    "idle connection": _seconds(server.KEEP_ALIVE_SECONDS),
    "credential": f"{engine_access.MAX_CREDENTIAL_LENGTH:,} characters",
    "`X-Request-Id`": f"{request_ids.MAX_LENGTH} characters",
    "faults named in one answer": f"{gateway_errors.MAX_VIOLATIONS}",
    "requests in flight, a gateway": f"{in_flight.MAX_CALLS:,}",
    "a request that finds too many in flight": _seconds(unary.FULL_SECONDS),
    "requests that `wait`, a gateway": f"{in_flight.MAX_WAITING:,}",
    "exports of the audit log, a gateway": f"{exports.MAX_EXPORTS}",
    "bodies being read, a gateway": _size(body.MAX_HELD_BYTES),
    "calls in an hour of the clock, unless set": f"{_DEFAULTS.limits.per_hour:,}",
    "calls in any minute, unless set": f"{_DEFAULTS.limits.per_minute:,}",
    "such a limit, when set": f"{environment.MAX_LIMIT:,}",
    "credentials that are counted, a gateway or server": f"{rate_limits.MAX_CREDENTIALS:,}",
    "message": _size(listening.MESSAGE_BYTES),
    "time to answer, without a deadline of the caller's": _seconds(calls.DEFAULT_TIMEOUT_SECONDS),
    "`payload`": _size(_longest(_TASK, "payload")),
    "`result`": _size(runner_messages.MAX_RESULT_BYTES),
    "`configuration`": _size(configuration.MAX_CONFIGURATION_BYTES),
    "JSON Schema of a task type": _size(_longest(agents_pb2.TaskType, "schema")),
    "nesting, the object itself included": f"{free_json.MAX_DEPTH} levels",
    "digits of an integer": f"{free_json.MAX_INTEGER_DIGITS:,}",
    "agent's `name`": f"{_longest(_AGENT, 'name')} characters",
    "`type` of agents and of tasks": f"{_longest(_TASK, 'type', 'agent_type')} characters",
    "`environment`": f"{_longest(_AGENT, 'environment')} characters",
    "labels": f"{_rules(_TASK, 'labels').max_items}",
    "key or value of a label": f"{_longest(_TASK, 'labels')} characters",
    "idempotency key": f"{_longest(_TASK, 'idempotency_key')} characters",
    "ids": f"{_longest(_TASK, 'agent_id')} characters",
    "tasks in one bulk create": f"{_rules(tasks_pb2.CreateTasksRequest, 'tasks').max_items:,}",
    "items a page": f"{_rules(tasks_pb2.ListTasksRequest, 'limit').maximum:g}",
    "items a page, unless asked for": f"{pages.DEFAULT_LIMIT}",
    "`wait`": _seconds(_rules(tasks_pb2.GetTaskRequest, "wait").maximum),
    "`timeout`": _seconds(_rules(_TASK, "timeout").maximum),
    "timeout, unless given": _seconds(configuration.DEFAULT_TIMEOUT_SECONDS),
    "how much longer the server waits for the process to end it": _microseconds(transitions.TIMEOUT_GRACE),
    "`schedule.delay`": _seconds(_rules(tasks_pb2.Schedule, "delay").maximum),
    "`retry.attempts`, `retry_attempts`": f"{_rules(tasks_pb2.RetryPolicy, 'attempts').maximum:g}",
    "`retry.backoff`, `retry.max_backoff`": _seconds(_rules(tasks_pb2.RetryPolicy, "max_backoff").maximum),
    "retries, unless given": f"{retries.DEFAULT.attempts}",
    "first backoff, unless given": _microseconds(retries.DEFAULT.backoff or 0),
    "longest backoff, unless given": _microseconds(retries.DEFAULT.max_backoff or 0),
    "time to confirm a cancel": _microseconds(cancellation.CONFIRM_MICROSECONDS),
    "processes lost with a task, before it runs alone": f"{transitions.SUSPECT_DELIVERIES}",
    "processes lost with a task": f"{transitions.MAX_DELIVERIES}",
    "claims of an agent, of which one takes the oldest task": f"{placement.OLDEST_EVERY}",
    "`position` in an explanation": f"{api_tasks.MAX_POSITION:,}",
    "`result` in lists and events": _size(lists.INLINE_RESULT_BYTES),
    "log lines shown with a task": f"{stored_tasks.INLINE_LOG_LINES}",
    "log lines of a task": f"{logs.MAX_LINES:,}",
    "log lines of an attempt, from its code": f"{runner_reports.FIRST_LINES:,}",
    "log line": _size(runner_messages.MAX_LINE_BYTES),
    "`progress_message`": f"{runner_messages.MAX_PROGRESS_BYTES:,} bytes",
    "message of an error": _size(runner_messages.MAX_ERROR_BYTES),
    "code word of an error": f"{runner_messages.MAX_CODE_BYTES} bytes",
    "an idempotency key is kept for": f"{idempotency.KEPT_MICROSECONDS / 1e6 / _HOURS:g} h",
    "`max_concurrent_tasks`": f"{configuration.MAX_CONCURRENT_TASKS:,}",
    "`max_concurrent_tasks`, unless given": f"{configuration.DEFAULT_MAX_CONCURRENT_TASKS}",
    "lease, unless set": _seconds(_DEFAULTS.lease),
    "lease, shortest": "3 s",
    "lease, longest": _seconds(settings.MAX_LEASE_SECONDS),
    "how much sooner a process stops its own attempts": _seconds(lease.MARGIN_SECONDS),
    "processes lost in a row, while they worked": f"{presence.MAX_LOST_SESSIONS}",
    "descriptions and schemas shown with an agent": _size(agent_messages.MAX_TYPES_BYTES),
    "task types of a process": f"{_rules(runners_pb2.Hello, 'task_types').max_items:,}",
    "time for a process to say hello": _seconds(runners.HELLO_SECONDS),
    "reports of a process waiting to be written": f"{runners.WAITING_REPORTS:,}",
    "messages waiting for a process": f"{sessions.OUTBOX_LIMIT:,}",
    "assignments in one message": _size(dispatch.ASSIGN_BYTES),
    "results a process keeps until they are acknowledged": _size(held.MAX_UNSETTLED_BYTES),
    "log lines waiting in a process": f"{outbox.MAX_LINES:,}",
    "log text waiting in a process": _size(outbox.MAX_LINE_BYTES),
    "pause before a process connects again": _seconds(link.MAX_BACKOFF_SECONDS),
    "time for tasks after SIGTERM, unless set": _seconds(process.DRAIN_SECONDS),
    "events are kept, unless set": f"{_DEFAULTS.event_retention / _HOURS:g} h",
    "frame from a client": _size(server.MAX_FRAME_BYTES),
    "frames from a client, lasting": f"{frame_rate.FRAMES_A_SECOND} a second",
    "frames from a client, at once": f"{frame_rate.BURST}",
    "frames refused for that, of a client that goes on": f"{frame_rate.MAX_REFUSED:,}",
    "time to authenticate a WebSocket": _seconds(sockets.AUTH_SECONDS),
    "subscriptions of a WebSocket": f"{sockets.MAX_SUBSCRIPTIONS}",
    "messages waiting for a WebSocket": f"{watcher.MAX_BACKLOG_MESSAGES:,}",
    "bytes waiting for a WebSocket": _size(watcher.MAX_BACKLOG_BYTES),
    "ping of a WebSocket, and wait for its pong": _seconds(server.PING_SECONDS),
    "streams of Server-Sent Events, a gateway": f"{event_streams.MAX_STREAMS:,}",
    "silence of a stream of Server-Sent Events": _seconds(event_stream.COMMENT_SECONDS),
    "such a reader takes nothing": _seconds(event_stream.STALLED_SECONDS),
    "bytes waiting for all such readers, a gateway": _size(event_stream.MAX_HELD_BYTES),
    "filters of `WatchEvents`": f"{_rules(monitoring_pb2.WatchEventsRequest, 'filters').max_items}",
    "log text in one event": f"{logs.EVENT_CHARACTERS // 1024} Ki characters",
    "events in memory for watchers, all projects together": f"{feed.KEPT_EVENTS:,}",
    "bytes of such events": _size(feed.KEPT_BYTES),
    "credentials that a gateway asks about at once": f"{gateway_access.MAX_ASKING:,}",
    "connections outlive their credential for at most": _seconds(access.CACHE_SECONDS),
    "body of a request to `/oauth/token` or `/oauth/revoke`": _size(oauth.MAX_BODY_BYTES),
    "such bodies being read, a gateway": _size(oauth.MAX_HELD_BYTES),
    "such requests in flight, a gateway": f"{oauth.MAX_IN_FLIGHT:,}",
    "access token, unless set": _microseconds(tokens.DEFAULT_LIFETIME),
    "failed logins from one address in a minute": f"{throttle.MAX_FAILURES}",
    "wait after failed logins, longest": _seconds(throttle.MAX_WAIT_SECONDS),
    "addresses with failed logins, a gateway": f"{throttle.MAX_ADDRESSES:,}",
    "an access token is kept after its end": f"{credentials.KEPT_MICROSECONDS / 1e6 / _HOURS:g} h",
    "writes waiting": f"{writer.MAX_WAITING:,}",
    "reads of tasks waiting for a connection": f"{driver.MAX_WAITING:,}",
    "such a read waits": _seconds(driver.WAIT_SECONDS),
    "minutes of history for metrics": f"{pruning.ROLLUP_MINUTES / 60 / 24:g} days",
    "disk full, unless set": f"{_DEFAULTS.disk_alert:g} %",
    f"deaths of a half of `ao dev` in {restarts.WINDOW_SECONDS:g} s": f"{restarts.MAX_DEATHS}",
}


def test_every_number_is_that_of_the_code() -> None:
    lines = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    told = {row[0]: row[1] for row in rows if row[0] not in ("what", "---")}
    assert len(told) == sum(row[0] not in ("what", "---") for row in rows)
    assert told == LIMITS


def test_a_key_and_a_setting_have_the_same_largest_limit() -> None:
    for field in ("per_hour", "per_minute"):
        assert _rules(keys_pb2.RateLimits, field).maximum == environment.MAX_LIMIT


def test_both_sides_of_the_stream_have_the_same_limits() -> None:
    assert runner_outcomes.MAX_RESULT_BYTES == runner_messages.MAX_RESULT_BYTES
    assert runner_outcomes.MAX_MESSAGE_BYTES == runner_messages.MAX_ERROR_BYTES
    assert runner_task.MAX_LINE_BYTES == runner_messages.MAX_LINE_BYTES
    assert runner_task.MAX_PROGRESS_MESSAGE_BYTES == runner_messages.MAX_PROGRESS_BYTES
    assert _longest(_AGENT, "configuration") == configuration.MAX_CONFIGURATION_BYTES
    assert _longest(_AGENT, "type") == _longest(_TASK, "type")
    assert _rules(_TASK, "timeout").maximum == configuration.MAX_TIMEOUT_SECONDS
    assert _rules(tasks_pb2.RetryPolicy, "attempts").maximum == configuration.MAX_RETRY_ATTEMPTS
