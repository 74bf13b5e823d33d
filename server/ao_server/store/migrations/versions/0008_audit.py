"""The audit log: records that nothing changes.

A trigger sees to that. It does not stop who owns the database, but a fault of ours and a careless statement. On SQLite
it goes when a later migration makes the table anew (`batch_alter_table`), which then has to make it again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

REFUSED = "outcome <> 'success'"
MESSAGE = "audit records are never changed"
SQLITE = f"""
CREATE TRIGGER audit_records_stay BEFORE UPDATE ON audit_records BEGIN SELECT RAISE(ABORT, '{MESSAGE}'); END
"""
POSTGRESQL = f"""
CREATE FUNCTION audit_records_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '{MESSAGE}'; END $$;
CREATE TRIGGER audit_records_stay BEFORE UPDATE OR TRUNCATE ON audit_records EXECUTE FUNCTION audit_records_stay()
"""


def upgrade() -> None:
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    # Text in keys and indexes is in the order of its bytes, see 0006.
    text = sa.String(collation="C") if is_postgresql else sa.String()
    op.create_table(
        "audit_records",
        sa.Column("project_id", text, autoincrement=False, nullable=False),
        sa.Column("id", text, autoincrement=False, nullable=False),
        sa.Column("actor_id", text, nullable=False),
        sa.Column("actor_name", sa.Text(), nullable=False),
        sa.Column("action", text, nullable=False),
        sa.Column("object_id", text, nullable=False),
        sa.Column("outcome", text, nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "id"),
    )
    for name, column in (("actor", "actor_id"), ("action", "action"), ("object", "object_id")):
        op.create_index(f"audit_records_by_{name}", "audit_records", ["project_id", column, "id"])
    op.create_index(
        "audit_records_refused",
        "audit_records",
        ["project_id", "outcome", "id"],
        sqlite_where=sa.text(REFUSED),
        postgresql_where=sa.text(REFUSED),
    )
    op.execute(POSTGRESQL if is_postgresql else SQLITE)
