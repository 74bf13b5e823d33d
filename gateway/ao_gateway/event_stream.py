"""One stream of Server-Sent Events: a call at the server on one side, a reader on the other.

The call is read only as fast as the reader takes, so that a slow reader slows the server's sending and nothing is kept
here but what is about to be sent.
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

import grpc
import structlog
from starlette.types import Receive, Send

from agent_orchestration.v1 import events_pb2, monitoring_pb2
from ao_gateway import errors, scalars, sse
from ao_gateway.disconnect import ClientGone, gone, unless_gone
from ao_gateway.errors import Headers, Refusal, from_rpc_error, unavailable
from ao_gateway.frames import FeedEvent
from ao_gateway.rest import Request

log: Any = structlog.get_logger("ao_gateway.event_stream")

OUTLET: Final = "agent_orchestration.outlet"
# Of events that readers have yet to take, in all streams; beyond it the reader that takes longest is cut off.
MAX_HELD_BYTES: Final = 32 * 1024 * 1024
# What is written at once.
PIECE_BYTES: Final = 64 * 1024
FIRST_ANSWER_SECONDS: Final = 10.0
COMMENT_SECONDS: Final = 15.0
# A reader that takes nothing for this long is cut off.
STALLED_SECONDS: Final = 30.0
# What the end of a stream may take: its last event, the end of its call.
END_SECONDS: Final = 1.0

# Of chunked transfer encoding, beside the length of the chunk in hexadecimal.
_CHUNK_BYTES: Final = 4
_CHANNELS: Final = {number: word for word, number in scalars.words_of(events_pb2.Channel.DESCRIPTOR).items()}


class Outlet(Protocol):
    """The connection that carries a stream."""

    @property
    def backlog_bytes(self) -> int:
        """Bytes written that the peer's side has not taken yet."""
        ...

    def begin_stream(self) -> None:
        """Prepares for an answer without end: the last one of its connection."""
        ...

    def abort(self) -> None:
        """Cuts the connection."""
        ...


class EventStream:
    """One stream to one reader."""

    def __init__(self, request: Request, call: Any, held: "Held") -> None:
        self.credential = request.credential
        self._request = request
        self._receive: Receive = request.receive
        self._send: Send = request.send
        self._outlet: Outlet = request.scope["extensions"][OUTLET]
        self._call = call
        self._held = held
        # Why it ends; None when nothing more can be said to the reader.
        self._ended: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._is_writing = False
        # Bytes since the stream began.
        self._written = 0
        # Behind all that was written, and the last one that the reader was told.
        self._cursor = ""
        self._told = ""

    @property
    def is_ended(self) -> bool:
        """Whether it is about to end."""
        return self._ended.done()

    def end(self, reason: Refusal | None) -> None:
        """Ends it: with a last event, or at once when nothing more can be said to the reader."""
        if not self._ended.done():
            self._ended.set_result(reason)
        if not self._request.is_answered:
            self._call.cancel()

    async def serve(self) -> None:
        """Streams until either side ends it. Refusal while the answer has not begun."""
        first = await self._first_answer()
        await self._begin(first.cursor)
        if self._request.is_head:
            return
        pumping = asyncio.create_task(self._pump(first))
        tasks = (pumping, asyncio.create_task(self._beat()), asyncio.create_task(self._leave()))
        try:
            await asyncio.wait((self._ended, *tasks), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._call.cancel()
            if not self._is_writing:
                # A read that is in flight ends with its call; grpc leaks one that is cancelled.
                await asyncio.wait((pumping,), timeout=END_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._say_good_bye(self._reason(tasks))

    async def _first_answer(self) -> monitoring_pb2.WatchEventsResponse:
        try:
            async with asyncio.timeout(FIRST_ANSWER_SECONDS):
                first = await unless_gone(self._receive, self._call.read())
        except TimeoutError:
            raise unavailable("The server did not answer in time") from None
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        except asyncio.CancelledError:
            reason = self._ended.result() if self._ended.done() else None
            if reason is None:
                raise
            raise reason from None
        if first is grpc.aio.EOF:
            raise unavailable("The server ended the stream")
        return first

    async def _begin(self, cursor: str) -> None:
        """Sends the headers and where the stream begins. ClientGone when what was asked for before is in the way."""
        self._request.is_answered = True
        if not self._request.is_head:
            self._outlet.begin_stream()
        try:
            async with asyncio.timeout(STALLED_SECONDS):
                await self._send({"type": "http.response.start", "status": 200, "headers": self._headers()})
                if self._request.is_head:
                    await self._send({"type": "http.response.body", "body": b""})
                else:
                    await self._write(sse.opening(cursor), cursor)
                    self._told = cursor
        except TimeoutError:
            await self._cut()
            raise ClientGone from None

    async def _pump(self, response: Any) -> Refusal:
        """Passes on what comes; why nothing comes any more."""
        try:
            while response is not grpc.aio.EOF:
                with self._held.until_taken(self, response.ByteSize()):
                    await self._pass_on(response)
                response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error)
        return unavailable("The server ended the stream")

    async def _pass_on(self, response: monitoring_pb2.WatchEventsResponse) -> None:
        piece = bytearray()
        cursor = self._cursor
        for each in response.events:
            event = FeedEvent(each)
            piece += sse.event(event.type, event.cursor, event.message(_CHANNELS.get(each.channel)))
            if event.cursor:
                cursor = self._told = event.cursor
            if len(piece) >= PIECE_BYTES:
                await self._write(bytes(piece), cursor)
                piece.clear()
        if piece:
            await self._write(bytes(piece), cursor)
        self._cursor = response.cursor or cursor

    async def _beat(self) -> None:
        """Sends signs of life; returns when the reader takes nothing."""
        taken = -1
        stalled = 0.0
        while stalled < STALLED_SECONDS:
            await asyncio.sleep(COMMENT_SECONDS)
            before, taken = taken, self._written - self._outlet.backlog_bytes
            if taken == self._written:
                cursor = self._cursor
                await self._write(sse.comment(cursor if cursor != self._told else ""), cursor)
                self._told = cursor
            stalled = stalled + COMMENT_SECONDS if before == taken < self._written else 0.0

    async def _leave(self) -> None:
        """Returns when the reader has left."""
        await gone(self._receive)

    async def _write(self, text: bytes, cursor: str) -> None:
        self._is_writing = True
        await self._send({"type": "http.response.body", "body": text, "more_body": True})
        self._is_writing = False
        self._written += len(text) + len(f"{len(text):x}") + _CHUNK_BYTES
        self._cursor = cursor

    def _reason(self, tasks: "tuple[asyncio.Task[Refusal], asyncio.Task[None], asyncio.Task[None]]") -> Refusal | None:
        if self._ended.done():
            return self._ended.result()
        pumping, beating, leaving = tasks
        if pumping.cancelled() and beating.cancelled() and leaving.cancelled():
            return unavailable("The server cannot be reached")
        try:
            for task in (leaving, beating):
                if not task.cancelled():
                    return task.result()
            return pumping.result()
        except Exception:
            log.exception("stream_failed", request_id=self._request.id)
            return errors.internal()

    async def _say_good_bye(self, reason: Refusal | None) -> None:
        if reason is None:
            await self._cut()
            return
        last = sse.cut_off(reason, self._request.id, self._cursor)
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._send({"type": "http.response.body", "body": last})
        except TimeoutError:
            await self._cut()

    async def _cut(self) -> None:
        """Cuts the connection, and waits until it is known to be."""
        self._outlet.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await gone(self._receive)

    def _headers(self) -> Headers:
        own = (b"x-accel-buffering", b"no")
        return [*self._request.answer_headers(b"text/event-stream; charset=utf-8"), own]


class Held:
    """What all streams hold of events that their readers have yet to take."""

    def __init__(self) -> None:
        # In the order in which they began to wait for their readers.
        self._sizes: dict[EventStream, int] = {}
        self._bytes = 0

    @contextmanager
    def until_taken(self, stream: EventStream, size: int) -> Generator[None]:
        """Counts what a stream holds. Beyond the bound, whoever has held for longest is cut off, and can resume."""
        self._sizes[stream] = size
        self._bytes += size
        if self._bytes > MAX_HELD_BYTES:
            slowest = next((each for each in self._sizes if not each.is_ended), None)
            if slowest is not None:
                slowest.end(None)
        try:
            yield
        finally:
            del self._sizes[stream]
            self._bytes -= size
