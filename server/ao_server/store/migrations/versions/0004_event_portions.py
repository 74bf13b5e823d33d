"""Events in portions, those that are there as well."""

from collections.abc import Iterator
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import msgspec
import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TOGETHER = 32
PORTIONS_AT_ONCE = 100


def upgrade() -> None:
    portions = op.create_table(
        "event_portions",
        sa.Column("project_id", sa.String(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "last"),
    )
    made = _portions()
    while some := list(islice(made, PORTIONS_AT_ONCE)):
        op.bulk_insert(portions, some)
    op.drop_table("events")


def _portions() -> Iterator[dict[str, Any]]:
    select = "SELECT project_id, position, type, timestamp, body, agent_id, task_id FROM events"
    in_order = sa.text(f"{select} ORDER BY project_id, position").execution_options(yield_per=TOGETHER * 10)
    for project_id, events in groupby(op.get_bind().execute(in_order), key=itemgetter(0)):
        while some := [tuple(event) for event in islice(events, TOGETHER)]:
            yield {
                "project_id": project_id,
                "last": some[-1][1],
                "timestamp": max(event[3] for event in some),
                "events": msgspec.json.encode(some).decode(),
            }
