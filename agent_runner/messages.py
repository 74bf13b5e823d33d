"""From what waits to the messages of the stream, many reports in each, none of them near the limit of a message."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from agent_orchestration.v1 import runners_pb2
from agent_runner.outbox import AttemptId, Line, Progress

MESSAGE_BYTES: Final = 1024 * 1024
MESSAGE_ITEMS: Final = 2_000

Item = TypeVar("Item")


def logs(lines: Iterable[Line]) -> Iterator[tuple[list[Line], runners_pb2.ConnectRequest]]:
    """Messages, each with the lines that it holds."""
    for part in _parts(lines, lambda line: len(line.message)):
        now = time.monotonic()
        reports = [_log_report(line, now) for line in part]
        yield part, runners_pb2.ConnectRequest(log=runners_pb2.Log(reports=reports))


def progress(reports: dict[AttemptId, Progress]) -> Iterator[runners_pb2.ConnectRequest]:
    """Messages with one report for each attempt."""
    for part in _parts(reports.items(), lambda item: len(item[1][1] or "")):
        messages = [
            runners_pb2.ProgressReport(attempt=attempt.message(), progress=percent, message=message)
            for attempt, (percent, message) in part
        ]
        yield runners_pb2.ConnectRequest(progress=runners_pb2.Progress(reports=messages))


def outcomes(
    ended: Iterable[tuple[AttemptId, runners_pb2.Outcome]],
) -> Iterator[tuple[set[AttemptId], runners_pb2.ConnectRequest]]:
    """Messages, each with the attempts that it speaks of."""
    for part in _parts(ended, lambda item: len(item[1].result)):
        message = runners_pb2.Outcomes(outcomes=[outcome for _, outcome in part])
        yield {attempt for attempt, _ in part}, runners_pb2.ConnectRequest(outcomes=message)


def _log_report(line: Line, now: float) -> runners_pb2.LogReport:
    report = runners_pb2.LogReport(attempt=line.attempt.message(), level=line.level, message=line.message)
    report.age.FromMicroseconds(max(0, round((now - line.at) * 1e6)))
    return report


def _parts(items: Iterable[Item], size_of: Callable[[Item], int]) -> Iterator[list[Item]]:
    part: list[Item] = []
    size = 0
    for item in items:
        length = size_of(item)
        if part and (size + length > MESSAGE_BYTES or len(part) >= MESSAGE_ITEMS):
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part
