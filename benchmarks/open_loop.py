"""`python -m benchmarks.open_loop PORT KEY AGENT RATE SECONDS CONNECTIONS`: creates that are sent when they are due,
however long the answers take.

Latency counts from the moment a request was due. One that is due while every connection waits for an answer is not
sent, and counted. It prints one line, `done` and an Outcome as JSON.
"""

import json
import selectors
import socket
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.processes import module

READ_BYTES: Final = 65_536
POLL_SECONDS: Final = 0.001
DRAIN_SECONDS: Final = 10.0
GRACE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Percentiles in seconds. `unasked`: how many refusals came without Retry-After."""

    statuses: dict[str, int]
    unasked: int
    # Not sent, as no connection was free; sent, but never answered.
    unsent: int
    unanswered: int
    p50: float
    p99: float
    worst: float
    # The generator's own: the longest that it sent after the time, and its share of a processor.
    late: float
    cpu: float

    @property
    def answers(self) -> int:
        """All of them."""
        return sum(self.statuses.values())


def offer(folder: Path, port: int, key: str, agent_id: str, rate: float, seconds: float, connections: int) -> Outcome:
    """Runs it as a process of its own."""
    arguments = (str(port), key, agent_id, str(rate), str(seconds), str(connections))
    with module(__name__, *arguments, folder=folder) as generator:
        return Outcome(**json.loads(generator.line("done ", seconds + DRAIN_SECONDS + GRACE_SECONDS)))


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.heard = b""


class _Generator:
    def __init__(self, port: int, request: bytes, connections: int) -> None:
        self._request = request
        self._selector = selectors.DefaultSelector()
        self._free = [_Connection(port) for _ in range(connections)]
        for each in self._free:
            self._selector.register(each.socket, selectors.EVENT_READ, each)
        self._statuses: Counter[str] = Counter()
        self._accepted: list[float] = []
        self._unasked = 0
        self._busy = 0

    def run(self, rate: float, seconds: float) -> Outcome:
        """Sends so many a second for so long, and waits for the answers."""
        count, number, unsent, late = round(rate * seconds), 0, 0, 0.0
        begin, used = time.perf_counter(), time.process_time()
        while (now := time.perf_counter()) < begin + seconds + DRAIN_SECONDS and (number < count or self._busy):
            due = min(count, int((now - begin) * rate) + 1)
            while number < due and self._free:
                self._send(begin + number / rate)
                late = max(late, now - begin - number / rate)
                number += 1
            unsent += due - number
            number = due
            for ready, _ in self._selector.select(POLL_SECONDS):
                self._read(ready.data)
        took = sorted(self._accepted)
        lasted = time.perf_counter() - begin
        return Outcome(
            statuses=dict(self._statuses),
            unasked=self._unasked,
            unsent=unsent,
            unanswered=self._busy,
            p50=took[len(took) // 2],
            p99=took[len(took) * 99 // 100],
            worst=took[-1],
            late=late,
            cpu=(time.process_time() - used) / lasted,
        )

    def _send(self, due: float) -> None:
        connection = self._free.pop()
        connection.due = due
        connection.socket.send(self._request)
        self._busy += 1

    def _read(self, connection: _Connection) -> None:
        some = connection.socket.recv(READ_BYTES)
        assert some, "the gateway has closed a connection"
        connection.heard += some
        if not connection.heard.endswith(b"}"):
            return
        status = connection.heard[9:12].decode()
        if status == "201":
            self._accepted.append(time.perf_counter() - connection.due)
        else:
            self._unasked += b"\r\nretry-after:" not in connection.heard.lower()
        self._statuses[status] += 1
        connection.heard = b""
        self._busy -= 1
        self._free.append(connection)


def _request(port: int, key: str, agent_id: str) -> bytes:
    body = json.dumps({"agent_id": agent_id, "type": "noop", "payload": {"source": "sales.csv", "count": 50}}).encode()
    lines = (
        "POST /v1/tasks HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "",
        "",
    )
    return "\r\n".join(lines).encode() + body


def _main(port: int, key: str, agent_id: str, rate: float, seconds: float, connections: int) -> None:
    outcome = _Generator(port, _request(port, key, agent_id), connections).run(rate, seconds)
    print(f"done {json.dumps(asdict(outcome))}", flush=True)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]))
