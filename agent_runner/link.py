"""Keeps one instance connected: connects, reconnects for as long as it takes, and takes its leave.

It lives in the event loop of the link thread. Agent code never runs there, so nothing that it does can cost the lease.
"""

import asyncio
import logging
import math
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import grpc

from agent_orchestration.tls import Unusable
from agent_orchestration.v1 import runners_pb2_grpc
from agent_runner.definition import Definition
from agent_runner.instance import Instance
from agent_runner.probe import is_refused
from agent_runner.settings import Address
from agent_runner.stream import Refused, Stream, StreamEnded
from agent_runner.user_loop import UserLoop

log = logging.getLogger("agent_runner")

FIRST_BACKOFF_SECONDS: Final = 0.1
MAX_BACKOFF_SECONDS: Final = 5.0
WARNING_EVERY_SECONDS: Final = 30.0
# How long code that was told to stop may take before its attempt is handed back, how long the server may take to settle
# the last outcomes, and to hear goodbye.
STOP_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 5.0
GOODBYE_SECONDS: Final = 3.0

MESSAGE_BYTES: Final = 16 * 1024 * 1024
CHANNEL_OPTIONS: Final = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    # Each stream gets a connection of its own: one that has gone silent must not be taken again.
    ("grpc.use_local_subchannel_pool", 1),
    # The lease needs to know whether the server itself refuses a connect.
    ("grpc.enable_http_proxy", 0),
]


class Link:
    """The way of one instance to the server."""

    def __init__(
        self,
        definition: Definition,
        address: Address,
        user: UserLoop,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        """Made in the event loop of the link thread."""
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._name = definition.name
        self._instance = Instance(definition, user, self._wake_from_any_thread)
        self._jitter = jitter
        self._stream: Stream | None = None
        self._drained = asyncio.Event()
        self._failures = 0
        self._warned_at = -math.inf

    async def run(self) -> None:
        """Serves until `drain` has ended. Refused when the server will not have the instance."""
        watching = asyncio.create_task(self._instance.watch_lease(self._lapsed))
        connecting = asyncio.create_task(self._stay_connected())
        drained = asyncio.create_task(self._drained.wait())
        tasks = (watching, connecting, drained)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            self._instance.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def drain(self, timeout: float) -> None:
        """Takes no more work, waits for what runs, hands back the rest, says goodbye. `timeout` in seconds.

        An outcome that the server has not heard of yet is given what is left of the time, and a little more.
        """
        held = self._instance.held
        ends = self._loop.time() + timeout
        held.draining = True
        self._woken()
        await held.until(lambda: not held.is_busy, timeout)
        if held.is_busy:
            held.stop_for_hand_back()
            await held.until(lambda: not held.is_busy, STOP_SECONDS)
            held.hand_back()
            self._woken()
        await held.until(lambda: not held, max(SETTLE_SECONDS, ends - self._loop.time()))
        if held:
            log.warning("%s: ends with %d outcomes that the server has not confirmed", self._name, len(held))
        if self._stream is not None:
            self._stream.say_goodbye()
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_SECONDS):
                    await self._drained.wait()
        self._drained.set()

    async def _stay_connected(self) -> None:
        while True:
            try:
                await self._connect()
            except StreamEnded as ended:
                self._warn(str(ended))
            except Refused:
                raise
            except Exception:
                log.exception("%s: the stream failed", self._name)
            else:
                self._drained.set()
                return
            await asyncio.sleep(self._backoff())

    async def _connect(self) -> None:
        """One stream. Returns once goodbye was said."""
        began = self._instance.now()
        if await is_refused(self._address.host, self._address.port):
            self._instance.server_is_down(began)
            raise StreamEnded(f"nothing listens at {self._address.target}")
        self._instance.server_may_be_up(began)
        async with self._channel() as channel:
            stub = runners_pb2_grpc.RunnerServiceStub(channel)
            stream = Stream(
                stub.Connect(metadata=(("authorization", f"Bearer {self._address.api_key}"),)), self._instance
            )
            self._stream = stream
            try:
                await stream.run()
            finally:
                self._stream = None
                if stream.is_proven:
                    self._failures = 0

    def _channel(self) -> grpc.aio.Channel:
        """A connection of its own, with the files of TLS as they are now. StreamEnded when they cannot be used."""
        address = self._address
        if address.tls is None:
            return grpc.aio.insecure_channel(address.target, options=CHANNEL_OPTIONS)
        try:
            credentials = grpc.ssl_channel_credentials(*address.tls.read())
        except Unusable as problem:
            raise StreamEnded(str(problem)) from None
        return grpc.aio.secure_channel(address.target, credentials, options=CHANNEL_OPTIONS)

    def _backoff(self) -> float:
        """Full jitter, so that a fleet does not come back in lockstep. Twice within a lease at least, since only an
        attempt to connect shows whether the lease stands still.
        """
        limit = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(self._failures, 10))
        self._failures += 1
        return self._jitter(0.0, min(limit, max(0.0, self._instance.lease_seconds - 1.0) / 2))

    def _wake_from_any_thread(self) -> None:
        # Code that outlives the link has nobody to report to.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._woken)

    def _woken(self) -> None:
        self._instance.held.ended(self._instance.outbox.take_ended())
        if self._stream is not None:
            self._stream.wake()

    def _lapsed(self) -> None:
        if self._stream is not None:
            self._stream.end("the lease ran out")

    def _warn(self, reason: str) -> None:
        now = self._loop.time()
        if now - self._warned_at >= WARNING_EVERY_SECONDS:
            self._warned_at = now
            log.warning("%s: not connected, trying again: %s", self._name, reason)
        else:
            log.debug("%s: not connected, trying again: %s", self._name, reason)
