"""Projects as rows; scopes, ends, rotation and limits of credentials; OAuth clients and their tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

ENDING = "forgotten_at IS NOT NULL"


def upgrade() -> None:
    # Text in keys and indexes is in the order of its bytes, see 0006.
    text = sa.String(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.String()
    op.create_table(
        "projects",
        sa.Column("id", text, autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.execute(
        "INSERT INTO projects (id, name, created_at)"
        " SELECT project_id, 'Default', MIN(created_at) FROM credentials GROUP BY project_id"
    )
    # Whatever there was had every right.
    with op.batch_alter_table("credentials") as table:
        table.add_column(sa.Column("kind", text, nullable=False, server_default="key"))
        table.add_column(sa.Column("scopes", sa.Text(), nullable=False, server_default="admin"))
        table.add_column(sa.Column("prefix", sa.String(), nullable=False, server_default=""))
        table.add_column(sa.Column("previous_sha256", text, nullable=True))
        for name in ("agent_id", "agent_type", "client_id"):
            table.add_column(sa.Column(name, sa.String(), nullable=True))
        for name in ("expires_at", "revoked_at", "previous_expires_at", "token_lifetime", "forgotten_at"):
            table.add_column(sa.Column(name, sa.BigInteger(), nullable=True))
        for name in ("per_hour", "per_minute"):
            table.add_column(sa.Column(name, sa.Integer(), nullable=True))
        table.create_unique_constraint("credentials_previous_sha256_key", ["previous_sha256"])
        table.create_check_constraint("kind_known", "kind IN ('key', 'client', 'token')")
    op.create_index("credentials_by_kind", "credentials", ["project_id", "kind", "id"])
    op.create_index(
        "credentials_by_end",
        "credentials",
        ["project_id", "forgotten_at"],
        sqlite_where=sa.text(ENDING),
        postgresql_where=sa.text(ENDING),
    )
