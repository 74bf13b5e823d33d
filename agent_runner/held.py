"""The attempts that this instance holds: their code runs, or their outcome is not settled yet.

Owned by the link's thread. It says what every status and hello says: what is held, and how much more may come. It keeps
the time of each attempt, and sees to it that code which was told to stop does, or that it is reported all the same.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from agent_orchestration.v1 import runners_pb2
from agent_runner import outcomes
from agent_runner.attempts import Attempt, Stop
from agent_runner.deadlines import Deadlines
from agent_runner.outbox import AttemptId, Ended, Outbox

log = logging.getLogger("agent_runner")

MAX_UNSETTLED_BYTES: Final = 64 * 1024 * 1024

# Makes an attempt ready to start; or says at once how it ends.
Prepare = Callable[[AttemptId, runners_pb2.Assignment], Attempt | runners_pb2.Outcome]


@dataclass(frozen=True, slots=True)
class Grace:
    """Seconds from one step to the next of stopping code: from telling it to SIGTERM, from that to SIGKILL."""

    seconds: float = 5.0
    # When another instance may begin the same task, a second after the lease has run out or was given back.
    urgent: float = 0.3


DEFAULT_GRACE: Final = Grace()


class Held:
    """What one instance holds."""

    def __init__(self, prepare: Prepare, outbox: Outbox, wake: Callable[[], None], grace: Grace) -> None:
        """`wake` is called when there is something to say that the outbox does not know of."""
        self.draining = False
        # Attempts that the instance may hold at a time.
        self.limit = 0
        self._prepare = prepare
        self._outbox = outbox
        self._wake = wake
        self._grace = grace
        self._held: set[AttemptId] = set()
        # Attempts whose code has not ended, and those of them that are not held any more: dropped, but not stopped yet.
        self._running: dict[AttemptId, Attempt] = {}
        self._strays: set[AttemptId] = set()
        # What comes next for each that runs: its timeout, or the next step of stopping it.
        self._deadlines: Deadlines[AttemptId] = Deadlines(asyncio.get_running_loop())
        self._stopping: dict[AttemptId, Stop] = {}
        self._outcomes: dict[AttemptId, runners_pb2.Outcome] = {}
        self._unsent: dict[AttemptId, None] = {}
        self._unsettled_bytes = 0
        self._changed = asyncio.Event()

    def __contains__(self, attempt: AttemptId) -> bool:
        return attempt in self._held

    def __len__(self) -> int:
        return len(self._held)

    def messages(self) -> list[runners_pb2.Attempt]:
        """For hello and status."""
        return [attempt.message() for attempt in self._held]

    @property
    def stuck(self) -> int:
        """How many attempts have code that has not ended, while they have for the server. Each takes a slot."""
        return len(self._strays)

    @property
    def is_busy(self) -> bool:
        """Whether there is an attempt that has no outcome yet."""
        return len(self._outcomes) < len(self._held)

    @property
    def unsent(self) -> int:
        """How many outcomes wait to be sent on this stream."""
        return len(self._unsent)

    @property
    def capacity(self) -> int:
        """How many attempts the instance is ready to hold, those that it holds included."""
        if self.draining:
            return 0
        capacity = max(0, self.limit - len(self._strays))
        if self._outbox.is_half_full or self._unsettled_bytes > MAX_UNSETTLED_BYTES:
            return min(capacity, len(self._held))
        return capacity

    def take_up(self, assignments: Iterable[runners_pb2.Assignment]) -> None:
        """Starts new attempts."""
        begun: list[Attempt] = []
        for assignment in assignments:
            attempt_id = AttemptId.of(assignment.attempt)
            if attempt_id in self._held or attempt_id in self._running:
                continue
            self._held.add(attempt_id)
            if self.draining:
                self._end(attempt_id, outcomes.handed_back("the runner goes away"))
                continue
            if self._strays and len(self._running) >= self.limit:
                # Given out before the server knew.
                self._end(attempt_id, outcomes.handed_back("no slot is free: code that was told to stop has not"))
                continue
            prepared = self._prepare(attempt_id, assignment)
            if isinstance(prepared, Attempt):
                self._running[attempt_id] = prepared
                begun.append(prepared)
            else:
                self._end(attempt_id, prepared)
        for attempt in begun:
            if attempt.timeout is not None:
                self._deadlines.set(attempt.id, attempt.timeout, self._timed_out)
        # The first one that starts wakes a thread, which would hold up what is done for the others.
        for attempt in begun:
            attempt.start()
        self._changed.set()

    def ended(self, ended: Sequence[Ended]) -> None:
        """The code of these attempts has ended."""
        if not ended:
            return
        for attempt_id, outcome in ended:
            self._running.pop(attempt_id, None)
            self._strays.discard(attempt_id)
            self._stopping.pop(attempt_id, None)
            self._deadlines.clear(attempt_id)
            if outcome is not None:
                self._end(attempt_id, outcome)
        self._changed.set()

    def settle(self, attempts: Iterable[AttemptId]) -> None:
        """The server knows their outcomes, or does not want them."""
        for attempt_id in attempts:
            self._forget(attempt_id)
        self._changed.set()

    def cancel(self, attempt_id: AttemptId, stop: Stop) -> None:
        """Stops one attempt. What is dropped is not held from here on."""
        self._stop(attempt_id, stop)
        if stop is Stop.DROPPED:
            self._forget(attempt_id)
        self._changed.set()

    def drop_all(self) -> int:
        """Stops everything and forgets it: the server may have handed it to others. Returns how much that was."""
        held = list(self._held)
        for attempt_id in held:
            self.cancel(attempt_id, Stop.DROPPED)
        return len(held)

    def stop_for_hand_back(self) -> None:
        """Tells all code to stop; what still ends is handed back."""
        for attempt_id in self._running:
            self._stop(attempt_id, Stop.HANDED_BACK)

    def hand_back(self) -> None:
        """Gives everything that still runs back to the queue."""
        self.kill_all()
        for attempt_id in self._running:
            self._end(attempt_id, outcomes.handed_back("the runner went away"))
        self._changed.set()

    def new_stream(self) -> None:
        """On a new stream every outcome that is not settled is sent again."""
        self._unsent = dict.fromkeys(self._outcomes)

    def take_unsent(self) -> list[tuple[AttemptId, runners_pb2.Outcome]]:
        """Outcomes that were not sent on this stream yet."""
        unsent, self._unsent = self._unsent, {}
        return [(attempt_id, self._outcomes[attempt_id]) for attempt_id in unsent]

    async def until(self, condition: Callable[[], bool], timeout: float) -> None:
        """Waits until the condition holds, looking at every change, for at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()

    def kill_all(self) -> None:
        """Ends every process that still runs for an attempt, at once."""
        for attempt in self._running.values():
            while attempt.press():
                pass
        self._deadlines.clear_all()

    def _stop(self, attempt_id: AttemptId, stop: Stop) -> None:
        attempt = self._running.get(attempt_id)
        if attempt is None:
            return
        before = self._stopping.get(attempt_id)
        attempt.cancel(stop)
        # A cancel that is repeated wins no time.
        if before is None or (stop.is_urgent and not before.is_urgent):
            self._stopping[attempt_id] = stop
            self._deadlines.set(attempt_id, self._patience(stop), self._press)

    def _timed_out(self, attempt_id: AttemptId) -> None:
        self._stop(attempt_id, Stop.TIMEOUT)

    def _press(self, attempt_id: AttemptId) -> None:
        """Its code was told to stop, or signalled, and has not stopped."""
        attempt, stop = self._running[attempt_id], self._stopping[attempt_id]
        patience = self._patience(stop)
        if attempt.press():
            self._deadlines.set(attempt_id, patience, self._press)
            return
        if stop.is_urgent:
            # What is dropped is nobody's business, and what is handed back is when the runner leaves.
            return
        outcome = attempt.give_up(patience)
        log.warning("attempt %d at %s has been told to stop and does not", attempt_id.number, attempt_id.task_id)
        if outcome is not None:
            self._end(attempt_id, outcome)
            self._changed.set()
            self._wake()

    def _patience(self, stop: Stop) -> float:
        return self._grace.urgent if stop.is_urgent else self._grace.seconds

    def _end(self, attempt_id: AttemptId, outcome: runners_pb2.Outcome) -> None:
        if attempt_id not in self._held or attempt_id in self._outcomes:
            return
        outcome.attempt.task_id, outcome.attempt.number = attempt_id
        self._outcomes[attempt_id] = outcome
        self._unsettled_bytes += len(outcome.result)
        self._unsent[attempt_id] = None

    def _forget(self, attempt_id: AttemptId) -> None:
        self._held.discard(attempt_id)
        self._unsent.pop(attempt_id, None)
        if attempt_id in self._running:
            self._strays.add(attempt_id)
        outcome = self._outcomes.pop(attempt_id, None)
        if outcome is not None:
            self._unsettled_bytes -= len(outcome.result)
