"""The one route that serves all unary RPCs: path, method, credential, body, call, answer, in this order."""

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import structlog
from google.protobuf.message import Message
from starlette.types import Receive, Scope, Send

from ao_gateway import access, bindings, errors, request_ids
from ao_gateway.access import Access
from ao_gateway.bindings import Binding, Paths
from ao_gateway.body import BodyReader, ClientGone
from ao_gateway.decode import RequestDecoder
from ao_gateway.encode import ResponseEncoder
from ao_gateway.errors import Refusal
from ao_gateway.relay import Relay

log: Any = structlog.get_logger("ao_gateway.unary")

TIMEOUT_SECONDS: Final = 30.0
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

    @property
    def is_read(self) -> bool:
        return self.binding.http_method == "GET"


@dataclass(slots=True)
class _Answer:
    status: int
    body: bytes
    headers: errors.Headers


class Unary:
    """The ASGI application of all REST paths."""

    def __init__(self, routes: Iterable[Binding], access: Access, relay: Relay) -> None:
        self._access = access
        self._relay = relay
        self._bodies = BodyReader()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
        self._in_threads = 0
        self._paths: Paths[_Route] = Paths()
        for binding in routes:
            encoder = ResponseEncoder(binding.response, binding.success_status)
            response = bindings.message_class(binding.response)
            self._paths.add(binding, _Route(binding, RequestDecoder(binding), encoder, response))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one HTTP request, whatever happens, in the documented shape."""
        request_id = request_ids.of(scope["headers"])
        try:
            answer = await self._answer(scope, receive, request_id)
        except Refusal as refusal:
            answer = _refused(refusal, request_id)
        except ClientGone:
            return
        except Exception:
            log.exception("request_failed", request_id=request_id, method=scope["method"], path=scope["path"])
            answer = _refused(errors.internal(), request_id)
        await send_answer(send, answer.status, answer.body, request_id, answer.headers)

    def close(self) -> None:
        """Gives back the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _answer(self, scope: Scope, receive: Receive, request_id: str) -> _Answer:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        found = self._paths.find(scope["raw_path"])
        if found is None:
            raise errors.not_found()
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        if method not in found.targets:
            raise errors.method_not_allowed(found.targets)
        route = found.targets[method]
        credential = access.bearer(headers)
        if credential is None:
            raise errors.unauthorized("A credential is needed: Authorization: Bearer <key>")
        await self._access.authenticate(credential)
        body = await self._bodies.read(headers, receive) if route.binding.body else b""
        request = await self._decode(route.decoder, found.values, scope["query_string"], body)
        reply = await self._relay.call(
            route.binding.rpc,
            request.SerializeToString(),
            {"authorization": f"Bearer {credential}", "x-request-id": request_id},
            timeout=TIMEOUT_SECONDS,
            is_read=route.is_read,
        )
        response = route.response.FromString(reply)
        return _Answer(route.encoder.status(response), route.encoder.encode(response), [])

    async def _decode(self, decoder: RequestDecoder, values: list[str], query: bytes, body: bytes) -> Message:
        if len(body) <= DECODED_IN_THREAD:
            return decoder.decode(values, query, body)
        if self._in_threads >= MAX_WAITING_FOR_THREAD:
            raise errors.unavailable("Too many large requests are in flight")
        self._in_threads += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, decoder.decode, values, query, body)
        finally:
            self._in_threads -= 1


async def send_answer(send: Send, status: int, body: bytes, request_id: str, headers: errors.Headers) -> None:
    """Sends a JSON answer with the headers that every answer has."""
    common = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (request_ids.HEADER, request_id.encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": common + headers})
    await send({"type": "http.response.body", "body": body})


def _refused(refusal: Refusal, request_id: str) -> _Answer:
    return _Answer(refusal.status, errors.printed(refusal, request_id), refusal.headers)
