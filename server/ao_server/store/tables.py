"""Every table, once: columns, keys, constraints and indexes. Rows and statements are made from these.

Times are integer microseconds since 1970 in UTC, durations integer microseconds. `project_id` leads every key and
index. On PostgreSQL, text that stands in one has the collation "C", which a migration gives it. A column with
`info={"fixed": True}` never changes after the insert and is left out of updates, so that SQLite does not touch the
indexes it stands in.
"""

from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Column, Float, Index, Integer, String, Text
from sqlmodel import Field, SQLModel

from ao_server.store import columns

TASK_STATUSES = ("pending", "running", "completed", "failed", "cancelled")
AGENT_STATUSES = ("initializing", "active", "inactive", "error")
CREDENTIAL_KINDS = ("key", "client", "token")
# A pending task whose time has come: what dispatch looks for.
CLAIMABLE = "status = 'pending' AND ready_at IS NULL"
# Pending and running tasks.
UNFINISHED = "completed_at IS NULL"
# Tasks of steps of executions.
OF_EXECUTION = "execution_id IS NOT NULL"
# Calls that did not succeed.
REFUSED = "outcome <> 'success'"


class Project(SQLModel, table=True):
    """What every object belongs to one of."""

    __tablename__: ClassVar[Any] = "projects"

    id: str = Field(sa_column=columns.key())
    name: str = Field(sa_column=columns.fixed(Text))
    created_at: int = Field(sa_column=columns.fixed(BigInteger))


class Credential(SQLModel, table=True):
    """An API key, an OAuth client or an access token of one. Secrets are known only by their SHA-256."""

    __tablename__: ClassVar[Any] = "credentials"
    __table_args__: ClassVar[Any] = (
        columns.one_of("kind", CREDENTIAL_KINDS),
        Index("credentials_by_kind", "project_id", "kind", "id"),
        # Tokens go some time after their end, all others stay.
        columns.partial("credentials_by_end", "project_id", "forgotten_at", where="forgotten_at IS NOT NULL"),
    )

    project_id: str = Field(sa_column=columns.key())
    id: str = Field(sa_column=columns.key())
    kind: str = Field(sa_column=columns.fixed(String))
    name: str = Field(sa_column=columns.changing(Text))
    # With spaces between them.
    scopes: str = Field(sa_column=columns.fixed(Text))
    sha256: str = Field(sa_column=Column(String, nullable=False, unique=True))
    created_at: int = Field(sa_column=columns.fixed(BigInteger))
    # How the secret begins.
    prefix: str = Field(default="", sa_column=columns.changing(String))
    expires_at: int | None = Field(default=None, sa_column=columns.fixed(BigInteger, nullable=True))
    revoked_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    # The secret before the last rotation, and when it ends.
    previous_sha256: str | None = Field(default=None, sa_column=Column(String, nullable=True, unique=True))
    previous_expires_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    # Of a runner's key: the one agent, or the type of agents, that it may connect as.
    agent_id: str | None = Field(default=None, sa_column=columns.fixed(String, nullable=True))
    agent_type: str | None = Field(default=None, sa_column=columns.fixed(String, nullable=True))
    # Rate limits of its own; 0 for none.
    per_hour: int | None = Field(default=None, sa_column=columns.changing(Integer, nullable=True))
    per_minute: int | None = Field(default=None, sa_column=columns.changing(Integer, nullable=True))
    # Of a token: the client that it was given to.
    client_id: str | None = Field(default=None, sa_column=columns.fixed(String, nullable=True))
    # Of a client: how long its tokens are good.
    token_lifetime: int | None = Field(default=None, sa_column=columns.fixed(BigInteger, nullable=True))
    forgotten_at: int | None = Field(default=None, sa_column=columns.fixed(BigInteger, nullable=True))


class Agent(SQLModel, table=True):
    """An agent as registered; what its processes do is kept in memory."""

    __tablename__: ClassVar[Any] = "agents"
    __table_args__: ClassVar[Any] = (
        columns.one_of("status", AGENT_STATUSES),
        Index("agents_by_type", "project_id", "type", "id"),
        Index("agents_by_status", "project_id", "status", "id"),
    )

    project_id: str = Field(sa_column=columns.key())
    id: str = Field(sa_column=columns.key())
    name: str = Field(sa_column=columns.changing(Text))
    type: str = Field(sa_column=columns.fixed(String))
    status: str = Field(sa_column=columns.changing(String))
    configuration: str = Field(sa_column=columns.changing(Text))
    created_at: int = Field(sa_column=columns.fixed(BigInteger))
    updated_at: int = Field(sa_column=columns.changing(BigInteger))
    environment: str | None = Field(default=None, sa_column=columns.changing(Text, nullable=True))
    last_seen_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    # Whether it is given work: `serving`, `paused` or `draining`.
    mode: str = Field(default="serving", sa_column=columns.changing(String))
    # Processes lost in a row while they held tasks; the first task completed since sets it back.
    lost_sessions: int = Field(default=0, sa_column=columns.changing(Integer))
    # The name under which a registration leads to it; None for a later agent of the same type and name.
    registered_as: str | None = Field(default=None, sa_column=columns.fixed(Text, nullable=True))
    deleted_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))


class Registration(SQLModel, table=True):
    """Which agent a process becomes that says hello with this type and name. It changes only once the agent is deleted:
    then it leads nowhere (`agent_id` is empty) until another agent takes it.
    """

    __tablename__: ClassVar[Any] = "registrations"

    project_id: str = Field(sa_column=columns.key())
    type: str = Field(sa_column=columns.key())
    name: str = Field(sa_column=columns.key())
    agent_id: str = Field(sa_column=columns.changing(String))


class Task(SQLModel, table=True):
    """A task. Its payload and result stand in tables of their own, so that a change of state stays small."""

    __tablename__: ClassVar[Any] = "tasks"
    __table_args__: ClassVar[Any] = (
        columns.one_of("status", TASK_STATUSES),
        CheckConstraint("status <> 'running' OR instance_id IS NOT NULL", name="running_is_held"),
        CheckConstraint(
            "(status IN ('completed', 'failed', 'cancelled')) = (completed_at IS NOT NULL)", name="final_is_completed"
        ),
        # Of what lists are narrowed by, only the status changes while a task lives: it stands in one of these alone.
        # What stands behind the id is there to be compared without a look at the row.
        Index("tasks_by_agent", "project_id", "agent_id", "id", "type", "priority"),
        Index("tasks_by_type", "project_id", "type", "id", "agent_type", "priority"),
        Index("tasks_by_agent_type", "project_id", "agent_type", "id", "priority"),
        Index("tasks_by_status", "project_id", "status", "priority", "id"),
        columns.partial("tasks_unfinished", "project_id", "agent_id", "id", where=UNFINISHED),
        columns.partial("tasks_by_queue", "project_id", "queue", "priority", "turn", "id", where=CLAIMABLE),
        columns.partial("tasks_by_ready_at", "ready_at", where="ready_at IS NOT NULL"),
        columns.partial("tasks_by_execution", "project_id", "execution_id", "id", "step_id", where=OF_EXECUTION),
    )

    project_id: str = Field(sa_column=columns.key())
    id: str = Field(sa_column=columns.key())
    # The agent that runs it or is to run it; empty while any agent of a type may take it.
    agent_id: str = Field(sa_column=columns.changing(String))
    type: str = Field(sa_column=columns.fixed(String))
    # 0 critical, 1 high, 2 medium, 3 low: ascending order is the order of dispatch.
    priority: int = Field(sa_column=columns.fixed(Integer))
    created_at: int = Field(sa_column=columns.fixed(BigInteger))
    status: str = Field(sa_column=columns.changing(String))
    # The fencing token: counts up with each claim.
    attempt: int = Field(default=0, sa_column=columns.changing(Integer))
    # Claims that count towards the limit of lost leases; a hand-back takes its claim off again.
    deliveries: int = Field(default=0, sa_column=columns.changing(Integer))
    # The process that holds the running attempt, or held the last one.
    instance_id: str | None = Field(default=None, sa_column=columns.changing(String, nullable=True))
    progress: float = Field(default=0.0, sa_column=columns.changing(Float))
    progress_message: str | None = Field(default=None, sa_column=columns.changing(Text, nullable=True))
    estimated_completion: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    log_lines: int = Field(default=0, sa_column=columns.changing(Integer))
    started_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    completed_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    error_code: str | None = Field(default=None, sa_column=columns.changing(String, nullable=True))
    error_message: str | None = Field(default=None, sa_column=columns.changing(Text, nullable=True))
    # Where it waits: the id of its agent, or `type:` and the type of agents that may take it.
    queue: str = Field(default="", sa_column=columns.fixed(String))
    # Type of the agent that runs it or is to run it.
    agent_type: str = Field(default="", sa_column=columns.fixed(String))
    # JSON of a map of text, None for none.
    labels: str | None = Field(default=None, sa_column=columns.fixed(Text, nullable=True))
    # Of one attempt, as sent.
    timeout: int | None = Field(default=None, sa_column=columns.fixed(BigInteger, nullable=True))
    # JSON of the retry policy, as sent.
    retry: str | None = Field(default=None, sa_column=columns.fixed(Text, nullable=True))
    # The time that its schedule names, None for at once.
    run_at: int | None = Field(default=None, sa_column=columns.fixed(BigInteger, nullable=True))
    retry_of: str | None = Field(default=None, sa_column=columns.fixed(String, nullable=True))
    # While it waits for its time: the schedule's, or the end of a backoff. None makes it claimable.
    ready_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    # Attempts that failed, including the last.
    failures: int = Field(default=0, sa_column=columns.changing(Integer))
    # When the server gives up the running attempt, its runner having failed to.
    times_out_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    cancel_requested_at: int | None = Field(default=None, sa_column=columns.changing(BigInteger, nullable=True))
    # The step of an execution that it was made for, and which of the items of that step, from 0.
    execution_id: str | None = Field(default=None, sa_column=columns.fixed(String, nullable=True))
    step_id: str | None = Field(default=None, sa_column=columns.fixed(String, nullable=True))
    item: int | None = Field(default=None, sa_column=columns.fixed(Integer, nullable=True))
    # 0 of a step of an execution that has come so far already: it goes before the others of its priority.
    turn: int = Field(default=1, sa_column=columns.fixed(Integer))


class TaskLabel(SQLModel, table=True):
    """A label of a task, to find tasks by."""

    __tablename__: ClassVar[Any] = "task_labels"
    __table_args__: ClassVar[Any] = (
        Index("task_labels_by_key", "project_id", "key", "task_id"),
        # Its key is all that it has: no second tree for the rows.
        {"sqlite_with_rowid": False},
    )

    project_id: str = Field(sa_column=columns.key())
    key: str = Field(sa_column=columns.key())
    value: str = Field(sa_column=columns.key())
    task_id: str = Field(sa_column=columns.key())


class IdempotencyKey(SQLModel, table=True):
    """What a create with this key was answered, for as long as the key is kept. `request_hash` is of the method and the
    decoded request, `answer` the JSON of what was created.
    """

    __tablename__: ClassVar[Any] = "idempotency_keys"
    __table_args__: ClassVar[Any] = (Index("idempotency_keys_by_age", "project_id", "created_at"),)

    project_id: str = Field(sa_column=columns.key())
    key: str = Field(sa_column=columns.key())
    request_hash: str = Field(sa_column=columns.changing(String))
    answer: str = Field(sa_column=columns.changing(Text))
    created_at: int = Field(sa_column=columns.changing(BigInteger))


class Payload(SQLModel, table=True):
    """The JSON text that a task was created with, verbatim."""

    __tablename__: ClassVar[Any] = "payloads"

    project_id: str = Field(sa_column=columns.key())
    task_id: str = Field(sa_column=columns.key())
    payload: str = Field(sa_column=columns.fixed(Text))


class Result(SQLModel, table=True):
    """The JSON text that the counted attempt of a task returned, verbatim, and its length in bytes."""

    __tablename__: ClassVar[Any] = "results"

    project_id: str = Field(sa_column=columns.key())
    task_id: str = Field(sa_column=columns.key())
    bytes: int = Field(sa_column=columns.fixed(Integer))
    result: str = Field(sa_column=columns.fixed(Text))


class LogLine(SQLModel, table=True):
    """One line that an attempt logged; `number` counts from 1 within the task."""

    __tablename__: ClassVar[Any] = "log_lines"

    project_id: str = Field(sa_column=columns.key())
    task_id: str = Field(sa_column=columns.key())
    number: int = Field(sa_column=columns.key(type_=Integer))
    attempt: int = Field(sa_column=columns.fixed(Integer))
    timestamp: int = Field(sa_column=columns.fixed(BigInteger))
    level: str = Field(sa_column=columns.fixed(String))
    message: str = Field(sa_column=columns.fixed(Text))


class Feed(SQLModel, table=True):
    """The head of a project's event feed. Its row is locked last in each transaction, which numbers the events without
    a gap and in commit order. `feed_id` is random: a cursor of another project or another database does not fit.
    """

    __tablename__: ClassVar[Any] = "feeds"

    project_id: str = Field(sa_column=columns.key())
    feed_id: str = Field(sa_column=columns.fixed(String))
    last: int = Field(default=0, sa_column=columns.changing(BigInteger))
    # Events up to this one were pruned.
    pruned: int = Field(default=0, sa_column=columns.changing(BigInteger))


class EventPortion(SQLModel, table=True):
    """Some of the events that one transaction wrote, in order and without a gap. `last` is the position of the last of
    them, `timestamp` the newest of their times, `events` what `store.portions` makes of them.
    """

    __tablename__: ClassVar[Any] = "event_portions"

    project_id: str = Field(sa_column=columns.key())
    last: int = Field(sa_column=columns.key(type_=BigInteger))
    timestamp: int = Field(sa_column=columns.fixed(BigInteger))
    events: str = Field(sa_column=columns.fixed(Text))


class TaskCount(SQLModel, table=True):
    """How many tasks stand where, kept in the transactions that move them: totals of lists never scan."""

    __tablename__: ClassVar[Any] = "task_counts"

    project_id: str = Field(sa_column=columns.key())
    agent_id: str = Field(sa_column=columns.key())
    agent_type: str = Field(sa_column=columns.key())
    type: str = Field(sa_column=columns.key())
    priority: int = Field(sa_column=columns.key(type_=Integer))
    status: str = Field(sa_column=columns.key())
    tasks: int = Field(default=0, sa_column=columns.changing(BigInteger))
    # Of completed tasks, start to completion, summed.
    duration: int = Field(default=0, sa_column=columns.changing(BigInteger))


class AuditRecord(SQLModel, table=True):
    """One call as the audit log has it. A trigger refuses changes; only retention takes records out."""

    __tablename__: ClassVar[Any] = "audit_records"
    __table_args__: ClassVar[Any] = (
        Index("audit_records_by_actor", "project_id", "actor_id", "id"),
        Index("audit_records_by_action", "project_id", "action", "id"),
        Index("audit_records_by_object", "project_id", "object_id", "id"),
        # Nearly all records are of successes.
        columns.partial("audit_records_refused", "project_id", "outcome", "id", where=REFUSED),
    )

    project_id: str = Field(sa_column=columns.key())
    id: str = Field(sa_column=columns.key())
    actor_id: str = Field(sa_column=columns.fixed(String))
    actor_name: str = Field(sa_column=columns.fixed(Text))
    action: str = Field(sa_column=columns.fixed(String))
    object_id: str = Field(sa_column=columns.fixed(String))
    outcome: str = Field(sa_column=columns.fixed(String))
    address: str = Field(sa_column=columns.fixed(String))
    request_id: str = Field(sa_column=columns.fixed(String))


class Rollup(SQLModel, table=True):
    """What finished within one minute (`minute`: minutes since 1970)."""

    __tablename__: ClassVar[Any] = "rollups"

    project_id: str = Field(sa_column=columns.key())
    minute: int = Field(sa_column=columns.key(type_=BigInteger))
    completed: int = Field(default=0, sa_column=columns.changing(BigInteger))
    failed: int = Field(default=0, sa_column=columns.changing(BigInteger))
    duration: int = Field(default=0, sa_column=columns.changing(BigInteger))
