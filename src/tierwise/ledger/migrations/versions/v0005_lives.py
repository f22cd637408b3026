"""Whose a run is and until when it lives; and persons' labels as rows that are only ever added."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_LEFT_S = 86_400.0  # for runs that were under way before anyone kept leases


def upgrade() -> None:
    """Add two columns and a table."""
    op.add_column("runs", sa.Column("owner", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("lease_until", sa.Double(), nullable=True))
    runs = sa.table(
        "runs", sa.column("state", sa.Text()), sa.column("lease_until", sa.Double())
    )
    op.execute(
        runs.update()
        .where(runs.c.state == "running")
        .values(lease_until=time.time() + _LEFT_S)
    )
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "labels",
        sa.Column("seq", number, autoincrement=True, nullable=False),
        sa.Column("item", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("document_hash", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("shadow", sa.Text(), nullable=True),
        sa.Column("word", sa.Text(), nullable=False),
        sa.Column("value_hash", sa.Text(), nullable=True),
        sa.Column("reviewer", sa.Text(), nullable=False),
        sa.Column("labelled_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_labels_run_id_runs"),
        sa.PrimaryKeyConstraint("seq", name="pk_labels"),
    )
