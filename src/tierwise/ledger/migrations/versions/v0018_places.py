"""The places of quotations in the documents' texts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column to the outcomes."""
    op.add_column("outcomes", sa.Column("places", sa.Text(), nullable=True))
