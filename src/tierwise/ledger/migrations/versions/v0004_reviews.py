"""Reviews, what they answer, seals for the audit trail, and what deletion leaves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and tables; `reviews` was never written to, so it is made anew."""
    op.add_column("attempts", sa.Column("answer_hash", sa.Text(), nullable=True))
    for name in ("question", "sensitivity_source", "value_hash"):
        op.add_column("outcomes", sa.Column(name, sa.Text(), nullable=True))
    op.drop_index("ix_reviews_run_id_document_id_step", "reviews")
    op.drop_table("reviews")
    op.create_table(
        "reviews",
        _counter(),
        *_texts("run_id", "document_id", "document_hash", "step"),
        *_texts("question", nullable=True),
        *_texts("decision"),
        *_texts("value", "value_hash", "model", nullable=True),
        *_texts("sensitivity", "reviewer"),
        sa.Column("reviewed_at", sa.Double(), nullable=False),
        *_texts("note"),
        *_texts("note_hash", nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_reviews_run_id_runs"),
        sa.PrimaryKeyConstraint("seq", name="pk_reviews"),
    )
    op.create_index(
        "ix_reviews_run_id_document_id_step",
        "reviews",
        ["run_id", "document_id", "step"],
    )
    op.create_index(
        "ix_reviews_question_document_hash", "reviews", ["question", "document_hash"]
    )
    op.create_table(
        "questions",
        *_texts("hash", "step", "schema"),
        sa.PrimaryKeyConstraint("hash", name="pk_questions"),
    )
    op.create_table(
        "texts",
        *_texts("document_hash", "text"),
        sa.Column("kept_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("document_hash", name="pk_texts"),
    )
    op.create_table(
        "deletions",
        _counter(),
        *_texts("scope", "removed", "by"),
        sa.Column("deleted_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_deletions"),
    )
    op.create_table(
        "seals",
        _counter(),
        *_texts("kind", "subject"),
        sa.Column("records", sa.BigInteger(), nullable=False),
        *_texts("head"),
        sa.Column("sealed_at", sa.Double(), nullable=False),
        *_texts("previous", "hash"),
        sa.PrimaryKeyConstraint("seq", name="pk_seals"),
        sa.UniqueConstraint("kind", "subject", name="uq_seals_kind_subject"),
    )


def _counter() -> sa.Column[int]:
    # SQLite numbers rows by itself only in a key of type INTEGER.
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("seq", number, autoincrement=True, nullable=False)


def _texts(*names: str, nullable: bool = False) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=nullable) for name in names]
