"""The model that a server reports, and the verdicts of canaries on another one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column to the attempts with an index of the known ones, and a table of verdicts."""
    op.add_column("attempts", sa.Column("served_model", sa.Text(), nullable=True))
    is_known = sa.text("served_model IS NOT NULL")
    op.create_index(
        "ix_attempts_served",
        "attempts",
        ["model", "seq"],
        sqlite_where=is_known,
        postgresql_where=is_known,
    )
    counter = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "canaries",
        sa.Column("seq", counter, autoincrement=True, nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("served", sa.Text(), nullable=False),
        sa.Column("asked", sa.BigInteger(), nullable=False),
        sa.Column("lost", sa.BigInteger(), nullable=False),
        sa.Column("gained", sa.BigInteger(), nullable=False),
        sa.Column("is_restored", sa.Boolean(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_canaries"),
    )
