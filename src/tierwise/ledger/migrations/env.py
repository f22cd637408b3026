"""Run by alembic with the connection that `database.migrate` hands over."""

from __future__ import annotations

from alembic import context

from tierwise.ledger.database import VERSION_TABLE
from tierwise.ledger.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite changes a table only by copying it
    transactional_ddl=True,
)
context.run_migrations()
