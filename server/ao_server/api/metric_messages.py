"""History as metrics: what each of them is, of which periods, in parts of which length."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from agent_orchestration.v1 import monitoring_pb2
from ao_server.engine.counters import MICROSECONDS_A_MINUTE
from ao_server.store.counts import Finished

# The period and its parts, in minutes.
PERIODS: Final[Mapping[int, tuple[int, int]]] = {
    monitoring_pb2.PERIOD_1H: (60, 1),
    monitoring_pb2.PERIOD_24H: (24 * 60, 30),
    monitoring_pb2.PERIOD_7D: (7 * 24 * 60, 3 * 60),
    monitoring_pb2.PERIOD_30D: (30 * 24 * 60, 12 * 60),
}
METRICS: Final[Mapping[int, str]] = {
    monitoring_pb2.METRIC_TASK_COMPLETION_RATE: "task_completion_rate",
    monitoring_pb2.METRIC_RESPONSE_TIME: "response_time",
    monitoring_pb2.METRIC_ERROR_RATE: "error_rate",
}


def report(
    period: monitoring_pb2.Period.ValueType, history: Sequence[Finished], metrics: Sequence[str]
) -> monitoring_pb2.GetMetricsResponse:
    """These metrics over a period."""
    response = monitoring_pb2.GetMetricsResponse()
    response.data.period = period
    response.data.metrics.SetInParent()
    for name in metrics:
        series = getattr(response.data.metrics, name)
        series.SetInParent()
        for finished in history:
            value = _VALUES[name](finished)
            if value is not None:
                point = series.points.add(value=value)
                point.timestamp.FromMicroseconds(finished.minute * MICROSECONDS_A_MINUTE)
    return response


def _completion_rate(finished: Finished) -> float:
    total = finished.completed + finished.failed
    return round(100 * finished.completed / total, 2) if total else 0.0


def _error_rate(finished: Finished) -> float:
    total = finished.completed + finished.failed
    return round(100 * finished.failed / total, 2) if total else 0.0


def _response_time(finished: Finished) -> float | None:
    """Milliseconds; None where nothing completed."""
    return round(finished.duration / finished.completed / 1000, 3) if finished.completed else None


_VALUES: Final[Mapping[str, Callable[[Finished], float | None]]] = {
    "task_completion_rate": _completion_rate,
    "response_time": _response_time,
    "error_rate": _error_rate,
}
