"""The hash of an attempt's prompt, so that texts of one version can be told apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column to the attempts."""
    op.add_column("attempts", sa.Column("template_hash", sa.Text(), nullable=True))
