"""Calls whose token counts contradict each other: what is unclear about them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column to the attempts; all that there are have clear counts."""
    op.add_column("attempts", sa.Column("usage_unclear", sa.Text(), nullable=True))
