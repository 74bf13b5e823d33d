"""Every RPC by name, with what surrounds all of them: credential, audience, rate, field limits, errors.

A method reached over gRPC and one reached through the relay pass the same checks here. Servicers read their caller from
`calls.current()` and raise Problems; they never touch the gRPC context.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

import grpc
import msgspec
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.message import Message
from google.rpc import status_pb2

from agent_orchestration.rate_limits import RateLimits
from agent_orchestration.scopes import holds, lacking
from agent_orchestration.v1 import options_pb2
from ao_server.api import calls, errors
from ao_server.api.rates import DirectCalls
from ao_server.api.validation import validate
from ao_server.engine.access import Access, Held, Principal
from ao_server.engine.clock import Clock
from ao_server.engine.ids import Ids
from ao_server.errors import Forbidden, Problem, Unauthorized, Unavailable

log = structlog.get_logger("ao_server.api")

Metadata = Mapping[str, str]
PROJECT_KEY: Final = "agent-orchestration-project"
LAST_WORD_SECONDS: Final = 0.5
_SCHEME: Final = "bearer "
_CREDENTIAL_KEY: Final = "authorization"
_NOT_ANY_MORE: Final = Unauthorized("the credential is not valid any more")


def _untold(is_parked: bool) -> None:
    """For calls whose caller need not know whether they wait."""


class Methods:
    """Collects servicers as a gRPC server would, and gives out their methods with all checks around them."""

    def __init__(self, access: Access, limits: RateLimits, ids: Ids, clock: Clock) -> None:
        self._access = access
        self._direct = DirectCalls(access, limits)
        self._ids = ids
        self._clock = clock
        self._handlers: dict[str, Any] = {}
        self._services: dict[str, dict[str, Any]] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        # Calls, streams and others, whose credential has ended.
        self._ended: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Part of what generated code expects of a server; the registered handlers below are the same methods."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Takes a service's methods from generated code. ValueError when one of them does not say who may call it."""
        for name in handlers:
            rule = _rule(f"/{service}/{name}")
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
            calls.enter(await self._admit(method, metadata, timeout, on_parked))
            validate(request)
            return handler.response_serializer(await handler.unary_unary(request, None))
        except asyncio.CancelledError:
            if not self._has_ended():
                raise
            return errors.status_of(_NOT_ANY_MORE)
        except Exception as error:
            return errors.status_of(self._problem(method, error))

    def end_streams(self) -> None:
        """Ends every open stream with UNAVAILABLE: the server stops."""
        self._stopping = True
        for task in self._streams:
            task.cancel()

    async def _admit(
        self,
        method: str,
        metadata: Metadata,
        timeout: float | None,
        on_parked: Callable[[bool], None] = _untold,
        context: Any = None,
    ) -> calls.Call:
        """`context` is that of a call that came over gRPC, which is counted here."""
        credential, rule = _credential(metadata), _rule(method)
        known = await self._access.authenticate(credential)
        objection = _objection(known, rule)
        if context is not None and not rule.is_uncounted:
            await self._direct.count(context, metadata, known, is_allowed=objection is None)
        if objection is not None:
            raise Forbidden(objection)
        principal = _acting(known, rule, metadata)
        request_id = metadata.get("x-request-id") or self._ids.new("req", self._clock.now())[0]
        return calls.Call(principal, request_id, timeout, _Parking(self, credential, on_parked))

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
                        calls.enter(await self._admit(method, _metadata(context), timeout, context=context))
                        validate(request)
                        return await handler.unary_unary(request, None)
                except TimeoutError:
                    return await self._abort(method, context, calls.too_late())
                except asyncio.CancelledError:
                    if not self._has_ended():
                        raise
                    return await self._abort(method, context, _NOT_ANY_MORE)
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
            self._streams.add(task)
            try:
                held = await self._open(method, context)
                if one_request:
                    validate(request)
                else:
                    request = _Requests(context)
                async with aclosing(behavior(request, context)) as messages:
                    async for message in messages:
                        await context.write(message)
                        # A stream may be idle for long, and there are thousands.
                        del message
            except grpc.aio.InternalError:
                # A write to a peer that is gone. If grpc wrote what a generator yields, it would log a traceback.
                pass
            except asyncio.CancelledError:
                if self._has_ended():
                    await self._end_with(method, context, _NOT_ANY_MORE)
                if not self._stopping:
                    raise
                await self._end_with(method, context, Unavailable("the server is stopping"))
            except Exception as error:
                await self._abort(method, context, error)
            finally:
                if held is not None:
                    self._access.release(held)
                self._streams.discard(task)

        return stream

    async def _open(self, method: str, context: Any) -> Held | None:
        """Admits a stream, which then ends with its credential. A gateway's own lasts as long as the server."""
        metadata = _metadata(context)
        call = await self._admit(method, metadata, None, context=context)
        calls.enter(call)
        if context.trailing_metadata():
            # What is left of the limits: the end of the stream may be far.
            await context.send_initial_metadata(context.trailing_metadata())
        return None if call.principal.is_gateway else await self.hold(_credential(metadata))

    async def hold(self, credential: str) -> Held:
        """From now on the call that runs ends with its credential. Unauthorized when that has ended."""
        task = asyncio.current_task()
        assert task is not None
        principal = await self._access.authenticate(credential)
        return self._access.hold(credential, principal, partial(self._end, task))

    def release(self, held: Held) -> None:
        """Not any more."""
        self._access.release(held)

    def _end(self, task: asyncio.Task[Any]) -> None:
        if task not in self._ended:
            self._ended.add(task)
            # It may be over before it comes to hear of it.
            task.add_done_callback(self._ended.discard)
            task.cancel()

    def _has_ended(self) -> bool:
        """Whether the call that runs was ended, as opposed to cancelled by its caller. Says so once."""
        task = asyncio.current_task()
        if task not in self._ended:
            return False
        self._ended.discard(task)
        task.uncancel()
        return True

    async def _end_with(self, method: str, context: Any, problem: Problem) -> None:
        """Says why the stream ends. Cut off is one whose peer takes nothing: this would wait behind the rest."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._abort(method, context, problem)
        raise asyncio.CancelledError

    async def _abort(self, method: str, context: Any, error: Exception) -> Any:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        status = errors.status_of(self._problem(method, error))
        trailing = (*context.trailing_metadata(), (errors.DETAILS_KEY, status.SerializeToString()))
        await context.abort(errors.STATUS_CODES[status.code], status.message, trailing)


class _Parking(msgspec.Struct):
    """A call that waits for something to happen ends with its credential; others are soon over."""

    methods: Methods
    credential: str
    told: Callable[[bool], None]
    held: Held | None = None

    async def __aenter__(self) -> None:
        # The credential may have ended since the call was admitted, when nobody would have been told.
        self.held = await self.methods.hold(self.credential)
        self.told(True)

    async def __aexit__(self, *exception: object) -> None:
        assert self.held is not None
        self.methods.release(self.held)
        self.told(False)


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


def _metadata(context: Any) -> Metadata:
    given = [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]
    if sum(key == _CREDENTIAL_KEY for key, _ in given) > 1:
        # Which of them counts must not be a matter of luck.
        given = [pair for pair in given if pair[0] != _CREDENTIAL_KEY]
    return dict(given)


def _credential(metadata: Metadata) -> str:
    authorization = metadata.get(_CREDENTIAL_KEY, "")
    if authorization[: len(_SCHEME)].lower() != _SCHEME:
        raise Unauthorized("a credential is needed: authorization: Bearer <key>")
    return authorization[len(_SCHEME) :].strip()


@dataclass(frozen=True, slots=True)
class _Rule:
    """Who may call a method: the kind of credential, and the scope that a user's needs."""

    audience: int
    scope: str
    is_uncounted: bool


@cache
def _rule(method: str) -> _Rule:
    service, name = method.removeprefix("/").split("/")
    options = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].GetOptions()
    said = options.Extensions
    return _Rule(said[options_pb2.audience], said[options_pb2.scope], said[options_pb2.uncounted])


def _objection(principal: Principal, rule: _Rule) -> str | None:
    """Why the method is not for the principal; None when it is."""
    if principal.is_gateway:
        if rule.audience == options_pb2.AUDIENCE_UNSPECIFIED:
            return "a gateway's own credential is not good for this method"
    elif rule.audience == options_pb2.AUDIENCE_GATEWAYS:
        return "this method is for gateways alone"
    elif not holds(principal.scopes, rule.scope):
        return lacking(rule.scope)
    return None


def _acting(principal: Principal, rule: _Rule, metadata: Metadata) -> Principal:
    """The principal in the project that it acts in."""
    if principal.is_gateway and rule.audience == options_pb2.AUDIENCE_USERS_AND_GATEWAYS:
        return Principal(principal.credential_id, metadata.get(PROJECT_KEY, ""), is_gateway=True)
    return principal
