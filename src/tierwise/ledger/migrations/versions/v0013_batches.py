"""Batches of providers with their items, and how each attempt was sent and cached."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns to the attempts, which were all made online, and two tables."""
    op.add_column(
        "attempts",
        sa.Column("transport", sa.Text(), nullable=False, server_default="online"),
    )
    op.add_column("attempts", sa.Column("service_tier", sa.Text(), nullable=True))
    for name in ("cache_write_tokens", "cache_write_1h_tokens"):
        op.add_column("attempts", sa.Column(name, sa.BigInteger(), nullable=True))
    op.create_table(
        "batches",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("provider_id", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("fault", sa.Text(), nullable=True),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("succeeded", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("submitted_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("collected_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_batches_run_id_runs"),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_index("ix_batches_run_id", "batches", ["run_id"])
    op.create_index(
        "ix_batches_model_collected_at", "batches", ["model", "collected_at"]
    )
    is_open = sa.text("collected_at IS NULL")
    op.create_index(
        "ix_batches_open",
        "batches",
        ["created_at"],
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_table(
        "batch_items",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("call_hash", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Text(), nullable=True),
        sa.Column("budgets", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name="fk_batch_items_batch_id_batches"
        ),
        sa.PrimaryKeyConstraint("batch_id", "call_hash", name="pk_batch_items"),
    )
    op.create_index("ix_batch_items_attempt_id", "batch_items", ["attempt_id"])
