"""Alembic's entry: runs the wanted migrations on the connection that `wgtune.database.schema.migrate` hands over."""

from alembic import context

from wgtune.database.schema.migrate import VERSION_TABLE
from wgtune.database.schema.tables import Base

# SQLite cannot alter columns in place: in batch mode Alembic copies the table instead.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
