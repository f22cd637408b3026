"""Runs whose rows retention removed: when, their totals, and the documents that they settled."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two columns and a table; so far, nothing was removed."""
    op.create_index("ix_calls_attempt_id", "calls", ["attempt_id"])
    op.add_column("runs", sa.Column("removed_at", sa.Double(), nullable=True))
    op.add_column("runs", sa.Column("totals", sa.Text(), nullable=True))
    op.create_table(
        "settled",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Text(), nullable=False),
        sa.Column("document_hash", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_settled_run_id_runs"),
        sa.PrimaryKeyConstraint("run_id", "document_id", name="pk_settled"),
    )
