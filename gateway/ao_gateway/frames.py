"""What goes out to sockets: text frames as bytes that many sockets can share, and the events in them."""

from typing import Any, Final, Protocol

import msgspec

from agent_orchestration.v1 import events_pb2
from agent_orchestration.v1.options_pb2 import as_listed
from ao_gateway import scalars
from ao_gateway.encode import encode, message_view

_TYPES: Final = {number: word for word, number in scalars.words_of(events_pb2.EventType.DESCRIPTOR).items()}
_PAYLOADS: Final = {
    field.name: message_view(field.message_type, field.GetOptions().Extensions[as_listed])
    for field in events_pb2.Event.DESCRIPTOR.oneofs_by_name["payload"].fields
    if field.message_type is not None
}


class Cancellable(Protocol):
    """Something that runs for a socket alone."""

    def cancel(self) -> object:
        """Ends it."""
        ...


class Sink(Protocol):
    """The outgoing side of one socket. Nothing in it waits but `drained`."""

    @property
    def backlog_bytes(self) -> int:
        """Bytes written that the peer's side has not taken yet."""
        ...

    @property
    def backlog_messages(self) -> int:
        """Messages among them, the one that is half out included."""
        ...

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent any more."""
        ...

    def write(self, frames: bytes, messages: int) -> None:
        """Sends whole frames in one write; nothing happens once closed."""
        ...

    def end(self, code: int, reason: str) -> None:
        """Sends a close frame behind what was written; a peer that takes nothing is cut off after a while."""
        ...

    def on_closed(self, call: Cancellable) -> None:
        """Cancels the call when the socket is closed, instead of one given before."""
        ...

    async def drained(self) -> None:
        """Waits until the peer has taken most of what was written, or is gone."""
        ...


class FeedEvent:
    """One event, encoded at most once for each channel, whoever hears of it. It must not outlive its batch."""

    __slots__ = (
        *("_event", "_frames", "_payload", "cursor", "type"),
        *("agent_id", "task_id", "workflow_id", "execution_id"),
    )

    def __init__(self, event: events_pb2.Event) -> None:
        self._event = event
        self._payload: msgspec.Raw | None = None
        self._frames: dict[str, bytes] = {}
        self.type = _TYPES.get(event.type, "unspecified")
        self.cursor = event.cursor
        self.agent_id = event.agent_id if event.HasField("agent_id") else None
        self.task_id = event.task_id if event.HasField("task_id") else None
        self.workflow_id = event.workflow_id if event.HasField("workflow_id") else None
        self.execution_id = event.execution_id if event.HasField("execution_id") else None

    def frame(self, channel: str) -> bytes:
        """The event's frame, as heard through the channel."""
        frame = self._frames.get(channel)
        if frame is None:
            frame = self._frames[channel] = text_frame(self.message(channel))
        return frame

    def message(self, channel: str | None) -> bytes:
        """The event's JSON, as heard through the channel, if through one. An event outside the feed has no cursor."""
        printed: dict[str, Any] = {
            "type": self.type,
            "channel": channel,
            "cursor": self.cursor,
            "timestamp": scalars.print_timestamp(self._event.timestamp),
            "payload": self._printed_payload(),
        }
        if channel is None:
            del printed["channel"]
        if not self.cursor:
            del printed["cursor"]
        return encode(printed)

    def _printed_payload(self) -> msgspec.Raw:
        if self._payload is None:
            name = self._event.WhichOneof("payload")
            # A newer server may send a payload that this gateway does not know.
            printed = _PAYLOADS[name](getattr(self._event, name)) if name is not None else None
            self._payload = msgspec.Raw(encode(printed or {}))
        return self._payload


def text_frame(payload: bytes) -> bytes:
    """A whole, unmasked text frame: the same bytes for every socket."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload
