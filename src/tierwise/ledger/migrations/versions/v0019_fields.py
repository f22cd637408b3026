"""Outcomes by field: the source of each field, verdicts and confidences by field."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns to attempts, verdicts, outcomes and reviews."""
    columns = (
        ("attempts", "field_confidences"),
        ("verdicts", "fields"),
        ("outcomes", "sources"),
        ("outcomes", "open_fields"),
        ("reviews", "sources"),
    )
    for table, name in columns:
        op.add_column(table, sa.Column(name, sa.Text(), nullable=True))
