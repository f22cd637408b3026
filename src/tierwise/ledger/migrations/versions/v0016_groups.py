"""Groups: the documents that each group of a run was made of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table of members."""
    names = ("run_id", "group_id", "document_id", "document_hash", "sensitivity")
    op.create_table(
        "group_members",
        *(sa.Column(name, sa.Text(), nullable=False) for name in names),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_group_members_run_id_runs"
        ),
        sa.PrimaryKeyConstraint(
            "run_id", "group_id", "position", name="pk_group_members"
        ),
    )
    op.create_index(
        "ix_group_members_run_id_document_id",
        "group_members",
        ["run_id", "document_id"],
    )
