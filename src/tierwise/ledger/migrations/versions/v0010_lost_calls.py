"""Calls under way with their attempts, calls that were lost, and prices filled in later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two tables and two columns; no call that there is was lost or repriced."""
    op.add_column("calls", sa.Column("in_flight", sa.Text(), nullable=True))
    # Few calls have an owner at any time, and every report looks for them.
    owned = sa.text("owner IS NOT NULL")
    op.create_index(
        "ix_calls_owner",
        "calls",
        ["owner"],
        sqlite_where=owned,
        postgresql_where=owned,
    )
    op.add_column("attempts", sa.Column("repriced", sa.BigInteger(), nullable=True))
    counter = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "lost_calls",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Text(), nullable=False),
        sa.Column("lost_at", sa.Double(), nullable=False),
        sa.Column("repriced", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_lost_calls"),
    )
    op.create_index("ix_lost_calls_run_id", "lost_calls", ["run_id"])
    op.create_table(
        "repricings",
        sa.Column("seq", counter, autoincrement=True, nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("price", sa.Text(), nullable=False),
        sa.Column("catalog_hash", sa.Text(), nullable=True),
        sa.Column("changes", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("repriced_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_repricings"),
    )
