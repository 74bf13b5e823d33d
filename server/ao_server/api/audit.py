"""AuditService."""

from collections.abc import AsyncIterator
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from agent_orchestration.v1 import audit_pb2, audit_pb2_grpc
from ao_server.api import calls, messages, pages
from ao_server.engine.audit import PREFIX
from ao_server.store import audit, rows
from ao_server.store.audit import AuditFilter
from ao_server.store.id_times import first_at, time_of
from ao_server.store.reader import Reader

EXPORTED_AT_ONCE: Final = 500


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Shows the audit log."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def ListAuditRecords(
        self, request: audit_pb2.ListAuditRecordsRequest, context: Any
    ) -> audit_pb2.ListAuditRecordsResponse:
        """Lists records."""
        asked = pages.keyset(request, request.starting_after)
        found = await audit.page(
            self._reader,
            calls.current().project_id,
            _chosen(request),
            page=asked.page,
            limit=asked.limit,
            starting_after=asked.starting_after,
        )
        data = [_record(each) for each in found.rows]
        return audit_pb2.ListAuditRecordsResponse(data=data, pagination=asked.pagination(found))

    async def ExportAuditRecords(
        self, request: audit_pb2.ExportAuditRecordsRequest, context: Any
    ) -> AsyncIterator[audit_pb2.ExportAuditRecordsResponse]:
        """Streams records."""
        project_id = calls.current().project_id
        async for portion in audit.portions(self._reader, project_id, _chosen(request), limit=EXPORTED_AT_ONCE):
            yield audit_pb2.ExportAuditRecordsResponse(data=[_record(each) for each in portion])


def _chosen(request: audit_pb2.ListAuditRecordsRequest | audit_pb2.ExportAuditRecordsRequest) -> AuditFilter:
    return AuditFilter(
        actor_id=request.actor_id if request.HasField("actor_id") else None,
        action=request.action if request.HasField("action") else None,
        object_id=request.object_id if request.HasField("object_id") else None,
        outcome=request.outcome if request.HasField("outcome") else None,
        id_from=_first_id(request.created_after, later=1) if request.HasField("created_after") else None,
        id_before=_first_id(request.created_before) if request.HasField("created_before") else None,
    )


def _first_id(time: Timestamp, later: int = 0) -> str:
    return first_at(PREFIX, time.ToMicroseconds() + later)


def _record(row: rows.AuditRecord) -> audit_pb2.AuditRecord:
    message = messages.filled(audit_pb2.AuditRecord, row)
    message.created_at.FromMicroseconds(time_of(row.id))
    return message
