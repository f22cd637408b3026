"""Indexes for the documents that wait over all runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add an index of all outcomes by text, and a small one of the deferred outcomes."""
    op.create_index("ix_outcomes_document_hash", "outcomes", ["document_hash"])
    is_deferred = sa.text("status = 'deferred'")
    op.create_index(
        "ix_outcomes_deferred",
        "outcomes",
        ["document_hash"],
        sqlite_where=is_deferred,
        postgresql_where=is_deferred,
    )
