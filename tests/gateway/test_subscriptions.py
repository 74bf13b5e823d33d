"""Whatever the order in which streams advance: what is subscribed to arrives, once."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from agent_orchestration.rate_limits import RateLimits
from agent_orchestration.v1 import events_pb2
from ao_gateway.access import Access, Principal
from ao_gateway.channels import Filter
from ao_gateway.feed import Batch, Feeds, Watcher
from ao_gateway.frames import Cancellable, FeedEvent, Sink
from ao_gateway.sockets import SINK, Sockets
from tests.gateway.conftest import NO_LIMITS

AGENTS = ("agent_1", "agent_2")
TASKS = ("task_1", "task_2")
WORKFLOWS = ("workflow_1", "workflow_2")
EXECUTIONS = ("execution_1", "execution_2")
FILTERS = [
    Filter("agent_events"),
    Filter("task_events"),
    Filter("system_events"),
    *(Filter("agent_events", agent_id=each) for each in AGENTS),
    *(Filter("task_events", task_id=each) for each in TASKS),
    Filter("workflow_events"),
    *(Filter("workflow_events", workflow_id=each) for each in WORKFLOWS),
    *(Filter("workflow_events", execution_id=each) for each in EXECUTIONS),
    *(Filter("workflow_events", workflow_id=WORKFLOWS[0], execution_id=each) for each in EXECUTIONS),
]
TASK_TYPES = (events_pb2.EVENT_TYPE_TASK_PROGRESS, events_pb2.EVENT_TYPE_TASK_COMPLETED)
WORKFLOW_TYPES = (events_pb2.EVENT_TYPE_WORKFLOW_STARTED, events_pb2.EVENT_TYPE_WORKFLOW_STEP_STARTED)


def cursor(position: int) -> str:
    return f"f{position:04x}"


class Log:
    """A project's events, its shared feed and the streams behind it, which advance as the draws say."""

    def __init__(self, draw: Callable[[st.SearchStrategy[Any]], Any]) -> None:
        self._draw = draw
        self.events: list[events_pb2.Event] = []
        self.shared = 0
        self.watchers: set[Watcher] = set()

    @property
    def position(self) -> str:
        return cursor(self.shared)

    def join(self, project_id: str, watcher: Watcher) -> "Log":
        self.watchers.add(watcher)
        return self

    def leave(self, project_id: str, watcher: Watcher) -> None:
        self.watchers.discard(watcher)

    async def ready(self) -> None:
        pass

    async def behind(self, after: str, sink: Sink) -> AsyncGenerator[Batch]:
        position = int(after.removeprefix("f"), 16)
        yield Batch([], after)
        while True:
            self.go_on()
            batch = self.batch(position)
            position += len(batch.events)
            yield batch

    def go_on(self) -> None:
        """Events are committed, and the shared feed hears of some."""
        for _ in range(self._draw(st.integers(0, 3))):
            type_ = self._draw(st.sampled_from(TASK_TYPES + WORKFLOW_TYPES))
            event = events_pb2.Event(cursor=cursor(len(self.events) + 1), type=type_)
            if type_ in WORKFLOW_TYPES:
                event.workflow_id = self._draw(st.sampled_from(WORKFLOWS))
                event.execution_id = self._draw(st.sampled_from(EXECUTIONS))
            else:
                event.agent_id = self._draw(st.sampled_from(AGENTS))
                event.task_id = self._draw(st.sampled_from(TASKS))
            self.events.append(event)
        if self._draw(st.booleans()):
            self.deliver(self.batch(self.shared))

    def batch(self, position: int) -> Batch:
        """One or more of the events behind a position, if there are any."""
        left = len(self.events) - position
        count = self._draw(st.integers(1, left)) if left else 0
        events = self.events[position : position + count]
        return Batch([FeedEvent(event) for event in events], cursor(position + count))

    def deliver(self, batch: Batch) -> None:
        self.shared += len(batch.events)
        if batch.events:
            for watcher in self.watchers:
                watcher.deliver(batch)


class Heard:
    """A socket that takes everything."""

    backlog_bytes = 0
    backlog_messages = 0
    is_closed = False

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def write(self, frames: bytes, messages: int) -> None:
        while frames:
            head, size = 2, frames[1]
            if size == 126:
                head, size = 4, int.from_bytes(frames[2:4])
            self.messages.append(json.loads(frames[head : head + size]))
            frames = frames[head + size :]

    def end(self, code: int, reason: str) -> None:
        self.is_closed = True

    def on_closed(self, call: Cancellable) -> None:
        pass

    async def drained(self) -> None:
        pass


class Anyone:
    async def authenticate(self, credential: str) -> Principal:
        return Principal("key_1", "project_1")


def begun(heard: Heard) -> list[tuple[Filter, str]]:
    """What was subscribed to, and from where."""
    return [
        (Filter(each["channel"], **each["filter"]), each["cursor"])
        for each in heard.messages
        if each["type"] == "subscribed"
    ]


@given(st.data())
def test_every_event_of_every_subscription_arrives_once(data: st.DataObject) -> None:
    log = Log(data.draw)
    heard = Heard()
    subscriptions = iter(range(data.draw(st.integers(1, 5))))

    async def receive() -> dict[str, Any]:
        log.go_on()
        if next(subscriptions, None) is None:
            return {"type": "websocket.disconnect"}
        chosen = data.draw(st.sampled_from(FILTERS))
        message = {"type": "subscribe", "channel": chosen.channel, **chosen.ids}
        if data.draw(st.booleans()):
            message["after"] = cursor(data.draw(st.integers(0, len(log.events))))
        return {"type": "websocket.receive", "text": json.dumps(message)}

    async def serve() -> None:
        socket = Sockets(cast(Access, Anyone()), RateLimits(NO_LIMITS), cast(Feeds, log))
        scope = {"headers": [(b"authorization", b"Bearer x")], "extensions": {SINK: heard}}
        greeting = iter([{"type": "websocket.connect"}])

        async def next_message() -> dict[str, Any]:
            message = next(greeting, None) or await receive()
            if message["type"] == "websocket.disconnect":
                while log.shared < len(log.events):
                    log.deliver(log.batch(log.shared))
            return message

        async def accept(message: Any) -> None:
            pass

        await socket(scope, next_message, accept)

    asyncio.run(serve())
    arrived = [each["cursor"] for each in heard.messages if "payload" in each]
    wanted = {
        event.cursor
        for event in log.events
        for chosen, since in begun(heard)
        if event.cursor > since and chosen.matches(FeedEvent(event))
    }
    assert len(arrived) == len(set(arrived)), "an event came twice"
    assert set(arrived) == wanted
