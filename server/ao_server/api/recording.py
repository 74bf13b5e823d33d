"""What the audit log has of a call: whether it is in it at all, what it was about, how it came to its end.

A record is written when the outcome is known, and before the caller is told. Which calls are recorded, and where the
object's id stands, is read from the descriptors.
"""

import asyncio
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import structlog
from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from agent_orchestration.rate_limits import Windows
from agent_orchestration.v1 import options_pb2
from ao_server.api import calls
from ao_server.engine import audit
from ao_server.engine.ids import Ids
from ao_server.errors import DeadlineExceeded, Problem, RateLimited, Unavailable
from ao_server.store.audit import SUCCESS
from ao_server.store.writer import Writer

log = structlog.get_logger("ao_server.audit")

WRITE_SECONDS: Final = 30.0
# Of one credential: calls that it is not good for count against no limit of its own.
REFUSALS_PER_MINUTE: Final = 600
_UNRECORDED: Final = "the call could not be put into the audit log; it may have had its effect"
# Where the answer of a create has the id of what it made.
_IDS: Final = ("id", "client_id")


@dataclass(frozen=True, slots=True)
class _Rule:
    """Which calls of a method are recorded. `parameter`: the field that holds the object's id, from the path; else
    `answered` is the field of the answer's `data` that does.
    """

    audit: int
    name: str
    parameter: str | None
    answered: str | None


class Recorder:
    """Puts calls into the audit log."""

    def __init__(self, writer: Writer, ids: Ids, *, audits_tasks: bool) -> None:
        """`audits_tasks`: also the successes of methods that are called very often."""
        self._writer = writer
        self._ids = ids
        self._audits_tasks = audits_tasks
        self._refusals = Windows()

    async def succeeded(self, method: str, request: Message | None, response: Message) -> None:
        """Records the current call, which has had its effect. Unavailable when that cannot be done."""
        wanted = _rule(method).audit
        if wanted == options_pb2.AUDIT_NONE or (wanted == options_pb2.AUDIT_REFUSED and not self._audits_tasks):
            return
        try:
            await self._write(_entry(method, SUCCESS, request, response))
        except Exception as error:
            _log_lost(calls.current(), method, SUCCESS, error)
            raise Unavailable(_UNRECORDED) from error

    async def refused(self, method: str, request: Message | None, problem: Problem) -> None:
        """Records the current call, which is answered with a problem, whether or not it can be recorded."""
        if isinstance(problem, Unavailable | DeadlineExceeded):
            self._unfinished(method, problem.code, request)
        elif _rule(method).audit != options_pb2.AUDIT_NONE and self._may_record(problem):
            try:
                await self._write(_entry(method, problem.code, request, None))
            except Exception as error:
                _log_lost(calls.current(), method, problem.code, error)

    def _may_record(self, problem: Problem) -> bool:
        """Calls over a limit, and too many refused ones of a credential, are left out: each would cost a write."""
        if isinstance(problem, RateLimited):
            return False
        return not self._refusals.take(calls.current().principal.credential_id, 0, REFUSALS_PER_MINUTE).is_refused

    def interrupted(self, method: str, request: Message | None) -> None:
        """Records the current call, which is being cancelled."""
        self._unfinished(method, audit.INTERRUPTED, request)

    def _unfinished(self, method: str, outcome: str, request: Message | None) -> None:
        """The server could not do it, or not in time. Nobody waits for the record: the store may be what is missing. Of
        methods that are called very often there is none, as it would come on top of what was too much already.
        """
        if _rule(method).audit != options_pb2.AUDIT_ALL:
            return
        call = calls.current()
        try:
            written = self._writer.write(audit.record(_entry(method, outcome, request, None), self._ids))
        except Unavailable as error:
            _log_lost(call, method, outcome, error)
            return

        def look(written: asyncio.Future[None]) -> None:
            error = None if written.cancelled() else written.exception()
            if error is not None:
                _log_lost(call, method, outcome, error)

        written.add_done_callback(look)

    async def _write(self, entry: audit.Entry) -> None:
        written = self._writer.write(audit.record(entry, self._ids))
        async with asyncio.timeout(WRITE_SECONDS):
            # Who stops waiting for the answer does not take back what was done.
            await asyncio.shield(written)


def _entry(method: str, outcome: str, request: Message | None, response: Message | None) -> audit.Entry:
    call = calls.current()
    principal = call.principal
    return audit.Entry(
        project_id=principal.project_id,
        actor_id=principal.credential_id,
        actor_name=principal.name,
        action=_rule(method).name,
        outcome=outcome,
        object_id=call.object_id or _object_id(_rule(method), request, response),
        address=call.address,
        request_id=call.request_id,
    )


def _object_id(rule: _Rule, request: Any, response: Any) -> str:
    if rule.parameter is not None:
        return "" if request is None else getattr(request, rule.parameter)
    return "" if response is None or rule.answered is None else getattr(response.data, rule.answered)


def _log_lost(call: calls.Call, method: str, outcome: str, error: BaseException) -> None:
    log.error(
        "audit_record_lost",
        method=method,
        outcome=outcome,
        actor=call.principal.credential_id,
        request_id=call.request_id,
        reason=type(error).__name__,
    )


@cache
def _rule(method: str) -> _Rule:
    service, name = method.removeprefix("/").split("/")
    descriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    http = _http_rule(descriptor)
    pattern = http.WhichOneof("pattern")
    options = descriptor.GetOptions()
    wanted = options.Extensions[options_pb2.audit]
    if wanted == options_pb2.AUDIT_UNSPECIFIED:
        is_read = pattern == "get"
        is_internal = options.Extensions[options_pb2.audience] == options_pb2.AUDIENCE_GATEWAYS
        wanted = options_pb2.AUDIT_NONE if is_read or is_internal else options_pb2.AUDIT_ALL
    parameters = re.findall(r"{(\w+)}", getattr(http, pattern)) if pattern else []
    return _Rule(wanted, name, next(iter(parameters), None), _answered(descriptor))


def _http_rule(method: MethodDescriptor) -> http_pb2.HttpRule:
    # googleapis-common-protos has no types for its extensions.
    extension: Any = annotations_pb2.http
    return method.GetOptions().Extensions[extension]


def _answered(method: MethodDescriptor) -> str | None:
    assert method.output_type is not None
    data = method.output_type.fields_by_name.get("data")
    if data is None or data.is_repeated or data.message_type is None:
        return None
    return next((name for name in _IDS if name in data.message_type.fields_by_name), None)
