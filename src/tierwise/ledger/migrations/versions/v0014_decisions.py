"""Decisions by request and by the version that was seen, labels by several people, comparisons."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns to reviews and labels, and the two tables of comparisons."""
    # In SQLite a constraint cannot be added to a table; an index of the same effect can.
    for name in ("seen", "request", "selection"):
        op.add_column("reviews", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("reviews", sa.Column("undoes", sa.BigInteger(), nullable=True))
    op.create_index(
        "uq_reviews_request_run_id_document_id_step",
        "reviews",
        ["request", "run_id", "document_id", "step"],
        unique=True,
    )
    for name in ("request", "answer", "answer_hash"):
        op.add_column("labels", sa.Column(name, sa.Text(), nullable=True))
    for name in ("settles", "is_blind"):
        op.add_column("labels", sa.Column(name, sa.Boolean(), nullable=True))
    op.add_column("labels", sa.Column("undoes", sa.BigInteger(), nullable=True))
    op.create_index("ix_labels_item", "labels", ["item"])
    op.create_index(
        "uq_labels_request_item", "labels", ["request", "item"], unique=True
    )
    _add_comparisons()


def _add_comparisons() -> None:
    op.create_table(
        "comparisons",
        *_texts("id", "step", "first", "second", "created_by"),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_comparisons"),
    )
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "comparison_verdicts",
        sa.Column("seq", number, autoincrement=True, nullable=False),
        *_texts("comparison", "run_id", "document_id", "document_hash", "step", "word"),
        sa.Column("is_swapped", sa.Boolean(), nullable=False),
        *_texts("first_hash", "second_hash"),
        *_texts("answer", "answer_hash", nullable=True),
        *_texts("reviewer"),
        sa.Column("judged_at", sa.Double(), nullable=False),
        *_texts("request"),
        sa.Column("undoes", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["comparison"],
            ["comparisons.id"],
            name="fk_comparison_verdicts_comparison_comparisons",
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_comparison_verdicts_run_id_runs"
        ),
        sa.PrimaryKeyConstraint("seq", name="pk_comparison_verdicts"),
    )
    op.create_index(
        "ix_comparison_verdicts_comparison", "comparison_verdicts", ["comparison"]
    )
    op.create_index(
        "uq_comparison_verdicts_request",
        "comparison_verdicts",
        ["request"],
        unique=True,
    )


def _texts(*names: str, nullable: bool = False) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=nullable) for name in names]
