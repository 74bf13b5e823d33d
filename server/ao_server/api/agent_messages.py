"""Agents as messages: the record, totals over its tasks, and the health and load of its processes."""

from collections.abc import Sequence
from typing import Final

from agent_orchestration.v1 import agents_pb2
from ao_server.api import messages
from ao_server.engine.registry import Instance
from ao_server.engine.states import DRAINING, PAUSED
from ao_server.store import rows
from ao_server.store.counts import AgentTotals

MAX_TYPES_BYTES: Final = 1024 * 1024


def agent(
    row: rows.Agent, totals: AgentTotals, instances: Sequence[Instance], monotonic: float, lease: float
) -> agents_pb2.Agent:
    """An agent with its metrics and the health of its processes."""
    message = messages.filled(agents_pb2.Agent, row)
    loads = [instance.session.load for instance in instances if instance.session is not None]
    message.health.status = _health(row, totals.running, instances, monotonic, lease)
    checked = max((instance.heard_at for instance in instances), default=0) or row.last_seen_at
    if checked:
        message.health.last_check.FromMicroseconds(checked)
    message.health.uptime.FromMicroseconds(round(max((load.uptime for load in loads), default=0.0) * 1e6))
    metrics = message.metrics
    metrics.tasks_completed = totals.completed
    metrics.tasks_failed = totals.failed
    finished = totals.completed + totals.failed
    metrics.success_rate = round(100 * totals.completed / finished, 2) if finished else 0.0
    metrics.avg_response_time = round(totals.duration / totals.completed / 1000, 3) if totals.completed else 0.0
    if loads:
        metrics.memory_usage = round(sum(load.memory_usage for load in loads) / len(loads), 2)
        metrics.cpu_usage = round(sum(load.cpu_usage for load in loads) / len(loads), 2)
    return message


def task_types(instances: Sequence[Instance]) -> list[agents_pb2.TaskType]:
    """What the connected processes of an agent run, by name; beyond a size the names alone."""
    sessions = [instance.session for instance in instances if instance.session is not None]
    stated = {each.name: each for session in sessions for each in session.task_types}
    shown: list[agents_pb2.TaskType] = []
    size = 0
    for name in sorted(stated):
        message = messages.filled(agents_pb2.TaskType, stated[name])
        size += message.ByteSize()
        shown.append(message if size <= MAX_TYPES_BYTES else agents_pb2.TaskType(name=name))
    return shown


def _health(
    row: rows.Agent, running: int, instances: Sequence[Instance], monotonic: float, lease: float
) -> agents_pb2.HealthStatus.ValueType:
    if row.mode == PAUSED:
        return agents_pb2.HEALTH_STATUS_PAUSED
    if row.mode == DRAINING:
        return agents_pb2.HEALTH_STATUS_DRAINING if running else agents_pb2.HEALTH_STATUS_DRAINED
    if row.status == "initializing":
        return agents_pb2.HEALTH_STATUS_UNKNOWN
    if row.status == "error":
        return agents_pb2.HEALTH_STATUS_ERROR
    if not instances or row.status == "inactive":
        return agents_pb2.HEALTH_STATUS_OFFLINE
    # A status comes every third of the lease; one that is twice as late is missed.
    overdue = any(instance.expires_at - monotonic < lease / 3 for instance in instances)
    sessions = [instance.session for instance in instances if instance.session is not None]
    is_well = sessions and not overdue and not any(session.load.stuck for session in sessions)
    return agents_pb2.HEALTH_STATUS_HEALTHY if is_well else agents_pb2.HEALTH_STATUS_DEGRADED
