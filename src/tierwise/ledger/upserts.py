"""INSERT … ON CONFLICT (upsert), which SQLAlchemy builds differently for each kind of database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tierwise.ledger.tables import Base


def insert_into(dialect: str, table: type[Base]) -> Any:
    """Return an INSERT that can be told what to do when a row with the same key exists."""
    # Here, as PostgreSQL's part takes 50 ms to import, and SQLite's users do not need it.
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert as sqlite_insert

        return sqlite_insert(table)
    from sqlalchemy.dialects.postgresql import insert as postgresql_insert

    return postgresql_insert(table)
