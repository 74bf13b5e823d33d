"""Runs revisions on the connection, and within the transaction, that `store.schema` opened."""

from alembic import context

from ao_server.store.tables import SQLModel

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
