"""Every RPC by name, with what surrounds all of them: credential, audience, rate, field limits, errors, the audit log.

A method reached over gRPC and one reached through the relay pass the same checks here. Servicers read their caller from
`calls.current()` and raise Problems; they never touch the gRPC context.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final
from urllib.parse import unquote

import grpc
import structlog
from google.protobuf.message import Message
from google.rpc import status_pb2

from agent_orchestration.rate_limits import RateLimits
from agent_orchestration.request_ids import is_fit
from agent_orchestration.v1 import options_pb2
from ao_server.api import admission, calls, errors
from ao_server.api.admission import CLIENT_KEY, REFUSAL_KEY, Metadata, credential_of, metadata_of
from ao_server.api.endings import NOT_ANY_MORE, Endings, Parking
from ao_server.api.rates import DirectCalls
from ao_server.api.recording import Recorder
from ao_server.api.validation import validate
from ao_server.engine.access import Access, Held
from ao_server.engine.clock import Clock
from ao_server.engine.ids import Ids
from ao_server.errors import Forbidden, Problem, Unavailable

log = structlog.get_logger("ao_server.api")

LAST_WORD_SECONDS: Final = 0.5


def _untold(is_parked: bool) -> None:
    """For calls whose caller need not know whether they wait."""


class Methods:
    """Collects servicers as a gRPC server would, and gives out their methods with all checks around them."""

    def __init__(self, access: Access, limits: RateLimits, recorder: Recorder, ids: Ids, clock: Clock) -> None:
        self._access = access
        self._direct = DirectCalls(access, limits)
        self._endings = Endings(access)
        self._recorder = recorder
        self._ids = ids
        self._clock = clock
        self._handlers: dict[str, Any] = {}
        self._services: dict[str, dict[str, Any]] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Part of what generated code expects of a server; the registered handlers below are the same methods."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Takes a service's methods from generated code. ValueError when one of them does not say who may call it."""
        for name in handlers:
            rule = admission.rule_of(f"/{service}/{name}")
            if rule.audience != options_pb2.AUDIENCE_GATEWAYS and not rule.scope:
                raise ValueError(f"{service}.{name} names no scope")
        self._services[service] = handlers
        self._handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}

    @property
    def services(self) -> list[str]:
        """Full names of the services."""
        return list(self._services)

    def register(self, server: grpc.aio.Server) -> None:
        """Serves every method over gRPC."""
        for service, handlers in self._services.items():
            wrapped = {name: self._over_grpc(f"/{service}/{name}", handler) for name, handler in handlers.items()}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, wrapped),))

    async def relayed(
        self, method: str, message: bytes, metadata: Metadata, timeout: float, on_parked: Callable[[bool], None]
    ) -> bytes | status_pb2.Status:
        """Runs one unary method for a gateway; the serialized response, or the status of its failure.

        It is for the caller to end it after `timeout`, in seconds. It runs in a task of its own.
        `on_parked` is told when the call begins, and ceases, to wait for something to happen.
        """
        handler = self._handlers.get(method)
        if handler is None or handler.unary_unary is None:
            return status_pb2.Status(code=grpc.StatusCode.UNIMPLEMENTED.value[0], message=f"no method {method}")
        try:
            request = handler.request_deserializer(message)
            call = await self._identify(method, metadata, timeout, on_parked)
            response = await self._answer(method, handler, request, call, refusal=metadata.get(REFUSAL_KEY))
            return handler.response_serializer(response)
        except asyncio.CancelledError:
            if not self._endings.has_ended():
                raise
            return errors.status_of(NOT_ANY_MORE)
        except Exception as error:
            return errors.status_of(self._problem(method, error))

    def end_streams(self) -> None:
        """Ends every open stream with UNAVAILABLE: the server stops."""
        self._stopping = True
        for task in self._streams:
            task.cancel()

    async def _identify(
        self,
        method: str,
        metadata: Metadata,
        timeout: float | None,
        on_parked: Callable[[bool], None] = _untold,
        peer: str | None = None,
    ) -> calls.Call:
        """Who calls. `peer`: the address at the other end, None where a gateway hands the call on. Unauthorized."""
        credential = credential_of(metadata)
        principal = admission.acting(await self._access.authenticate(credential), method, metadata)
        address = metadata.get(CLIENT_KEY, "") if peer is None or principal.is_gateway else peer
        given = metadata.get("x-request-id", "")
        request_id = given if is_fit(given) else self._ids.new("req", self._clock.now())[0]
        # A stream is held whether it waits or not.
        parking = calls.NOT_PARKED if timeout is None else Parking(self._endings, credential, on_parked)
        return calls.Call(principal, request_id, timeout, parking, address)

    async def _admit(self, method: str, call: calls.Call, metadata: Metadata, context: Any) -> None:
        """Whether the call may be made; one that came over gRPC itself is counted. Forbidden, RateLimited."""
        objection = admission.objection(call.principal, method)
        if context is not None and not admission.rule_of(method).is_uncounted:
            await self._direct.count(context, metadata, call.principal, is_allowed=objection is None)
        if objection is not None:
            raise Forbidden(objection)

    async def _answer(
        self,
        method: str,
        handler: Any,
        request: Message,
        call: calls.Call,
        *,
        refusal: str | None = None,
        metadata: Metadata | None = None,
        context: Any = None,
    ) -> Message:
        """Runs a unary method. `refusal`: the code word with which its gateway refuses it. Problem when it failed."""
        calls.enter(call)
        try:
            await self._admit(method, call, metadata or {}, context)
            if refusal is not None:
                raise Problem("refused by the gateway", code=refusal)
            validate(request)
            response = await handler.unary_unary(request, None)
        except asyncio.CancelledError:
            self._recorder.interrupted(method, request)
            raise
        except Exception as error:
            problem = self._problem(method, error)
            await self._recorder.refused(method, request, problem)
            raise problem from None
        await self._recorder.succeeded(method, request, response)
        return response

    def _problem(self, method: str, error: Exception) -> Problem:
        if isinstance(error, Problem):
            return error
        log.error("call_failed", method=method, exc_info=error)
        return Problem("an internal error; the server's log has it under the request id")

    def _over_grpc(self, method: str, handler: Any) -> Any:
        serializers = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:

            async def unary(request: Message, context: Any) -> Message:
                remaining = context.time_remaining()
                timeout = calls.DEFAULT_TIMEOUT_SECONDS if remaining is None else max(0.0, remaining)
                try:
                    async with asyncio.timeout(timeout):
                        metadata = metadata_of(context)
                        call = await self._identify(method, metadata, timeout, peer=_peer(context))
                        return await self._answer(method, handler, request, call, metadata=metadata, context=context)
                except TimeoutError:
                    return await self._abort(method, context, calls.too_late())
                except asyncio.CancelledError:
                    if not self._endings.has_ended():
                        raise
                    return await self._abort(method, context, NOT_ANY_MORE)
                except Exception as error:
                    return await self._abort(method, context, error)

            return grpc.unary_unary_rpc_method_handler(unary, **serializers)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, handler.unary_stream, True), **serializers)
        return grpc.stream_stream_rpc_method_handler(self._stream(method, handler.stream_stream, False), **serializers)

    def _stream(
        self, method: str, behavior: Callable[..., AsyncGenerator[Message]], one_request: bool
    ) -> Callable[[Any, Any], Awaitable[None]]:
        async def stream(request: Any, context: Any) -> None:
            task = asyncio.current_task()
            assert task is not None
            held: Held | None = None
            # Whether the audit log has it: at its first answer, or when it is refused in place of one.
            is_recorded = True
            self._streams.add(task)
            try:
                metadata = metadata_of(context)
                calls.enter(await self._identify(method, metadata, None, peer=_peer(context)))
                is_recorded = False
                held = await self._open(method, metadata, context)
                # A stream may be idle for long, and there are thousands.
                del metadata
                if one_request:
                    validate(request)
                else:
                    request = _Requests(context)
                async with aclosing(behavior(request, context)) as messages:
                    async for message in messages:
                        if not is_recorded:
                            is_recorded = True
                            await self._recorder.succeeded(method, None, message)
                        await context.write(message)
                        del message
            except grpc.aio.InternalError:
                # A write to a peer that is gone. If grpc wrote what a generator yields, it would log a traceback.
                pass
            except asyncio.CancelledError:
                if self._endings.has_ended():
                    await self._end_with(method, context, NOT_ANY_MORE)
                if not self._stopping:
                    raise
                await self._end_with(method, context, Unavailable("the server is stopping"))
            except Exception as error:
                problem = self._problem(method, error)
                if not is_recorded:
                    await self._recorder.refused(method, None, problem)
                await self._abort(method, context, problem)
            finally:
                if held is not None:
                    self._endings.release(held)
                self._streams.discard(task)

        return stream

    async def _open(self, method: str, metadata: Metadata, context: Any) -> Held | None:
        """Admits a stream, which then ends with its credential. A gateway's own lasts as long as the server."""
        call = calls.current()
        await self._admit(method, call, metadata, context)
        if context.trailing_metadata():
            # What is left of the limits: the end of the stream may be far.
            await context.send_initial_metadata(context.trailing_metadata())
        return None if call.principal.is_gateway else await self._endings.hold(credential_of(metadata))

    async def _end_with(self, method: str, context: Any, problem: Problem) -> None:
        """Says why the stream ends. Cut off is one whose peer takes nothing: this would wait behind the rest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._abort(method, context, problem)
        raise asyncio.CancelledError

    async def _abort(self, method: str, context: Any, error: Exception) -> Any:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        status = errors.trailer_of(self._problem(method, error))
        trailing = (*context.trailing_metadata(), (errors.DETAILS_KEY, status.SerializeToString()))
        await context.abort(errors.STATUS_CODES[status.code], status.message, trailing)


class _Requests:
    """What comes on a stream. Unlike grpc's own iterator it does not hold on to the last message."""

    __slots__ = ("_context",)

    def __init__(self, context: Any) -> None:
        self._context = context

    def __aiter__(self) -> "_Requests":
        return self

    async def __anext__(self) -> Any:
        message = await self._context.read()
        if message is grpc.aio.EOF:
            raise StopAsyncIteration
        return message


def _peer(context: Any) -> str:
    """The address at the other end, without its port: grpc writes `ipv4:127.0.0.1:1`, `ipv6:%5B::1%5D:1`, `unix:`."""
    family, _, rest = context.peer().partition(":")
    return unquote(rest).rpartition(":")[0].strip("[]") if family in ("ipv4", "ipv6") else ""
