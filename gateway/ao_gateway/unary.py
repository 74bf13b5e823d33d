"""Unary RPCs over HTTP: body, decode, call, encode."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from agent_orchestration.v1 import options_pb2
from ao_gateway import bindings, errors, scalars
from ao_gateway.bindings import BadBinding, Binding
from ao_gateway.body import BodyReader
from ao_gateway.decode import RequestDecoder
from ao_gateway.disconnect import unless_gone
from ao_gateway.encode import ResponseEncoder
from ao_gateway.errors import Refusal
from ao_gateway.refusals import Refusals
from ao_gateway.relay import TOO_MANY, Relay
from ao_gateway.rest import Answer, Request, Serve, Told

TIMEOUT_SECONDS: Final = 30.0
# How long a request that finds no room is kept. Refused at once, it would come again at once, and refusals would take
# all the time from the calls in flight.
FULL_SECONDS: Final = 0.2
# A larger body is decoded in a thread, so that others do not wait for it.
DECODED_IN_THREAD: Final = 64 * 1024
THREADS: Final = 2
MAX_WAITING_FOR_THREAD: Final = 32


@dataclass(frozen=True, slots=True)
class _Route:
    binding: Binding
    decoder: RequestDecoder
    encoder: ResponseEncoder
    response: type[Message]
    # The field that makes the call take longer, and the most seconds that it can ask for.
    extension: tuple[str, float] | None
    # Hears of requests that are refused here.
    refused: Told | None

    @property
    def is_read(self) -> bool:
        return self.binding.http_method == "GET"

    def extra_seconds(self, message: Message) -> float:
        if self.extension is None:
            return 0.0
        name, most = self.extension
        return min(most, max(0.0, scalars.print_duration(getattr(message, name))))


class Unary:
    """Serves unary RPCs through the relay."""

    def __init__(self, relay: Relay, refusals: Refusals) -> None:
        self._relay = relay
        self._refusals = refusals
        self._bodies = BodyReader()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
        self._in_threads = 0

    def endpoint(self, binding: Binding) -> Serve:
        """What serves the binding."""
        encoder = ResponseEncoder(binding.response, binding.success_status)
        response = bindings.message_class(binding.response)
        extension, refused = _extension(binding.request), self._refusals.of(binding)
        return partial(self._serve, _Route(binding, RequestDecoder(binding), encoder, response, extension, refused))

    def close(self) -> None:
        """Gives back the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _serve(self, route: _Route, request: Request) -> Answer:
        if route.extension is None:
            await self._room()
        try:
            body = await self._bodies.read(request) if route.binding.body else b""
            message = await self._decode(route.decoder, request, body)
        except Refusal as refusal:
            if route.refused is not None:
                await route.refused(request, refusal)
            raise
        extra = route.extra_seconds(message)
        calling = self._relay.call(
            route.binding.rpc,
            message.SerializeToString(),
            request.metadata(),
            timeout=TIMEOUT_SECONDS + extra,
            is_read=route.is_read,
            is_waiting=extra > 0,
        )
        # Only a long call is worth watching its client for; a write goes on whoever leaves.
        reply = await (unless_gone(request.receive, calling) if extra and route.is_read else calling)
        response = route.response.FromString(reply)
        return Answer(route.encoder.status(response), route.encoder.encode(response), route.encoder.headers(response))

    async def _room(self) -> None:
        """Returns when one more call may be made; Refusal when that is not so for a while."""
        if not self._relay.has_room:
            await asyncio.sleep(FULL_SECONDS)
            if not self._relay.has_room:
                raise errors.unavailable(TOO_MANY)

    async def _decode(self, decoder: RequestDecoder, request: Request, body: bytes) -> Message:
        arguments = (request.values, request.scope["query_string"], request.headers, body)
        if len(body) <= DECODED_IN_THREAD:
            return decoder.decode(*arguments)
        if self._in_threads >= MAX_WAITING_FOR_THREAD:
            raise errors.unavailable("Too many large requests are in flight")
        self._in_threads += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, decoder.decode, *arguments)
        finally:
            self._in_threads -= 1


def _extension(request: Descriptor) -> tuple[str, float] | None:
    for field in request.fields:
        options: Any = field.GetOptions()
        if options.Extensions[options_pb2.extends_deadline]:
            if field.message_type is None or field.message_type.full_name != scalars.DURATION:
                raise BadBinding(f"{field.full_name}: only a duration can extend a deadline")
            return field.name, options.Extensions[options_pb2.rules].maximum
    return None
