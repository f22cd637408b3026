"""Causes of outcomes and kinds of rejections as fields, filled once from sentences of 0.1.0.

This is the only place that reads sentences, and only those of version 0.1.0: later rows have the
fields.
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_PAGE = 500  # rows updated at once
# How a rejection's sentence began, and its kind. Any other sentence named a missing certificate.
_KINDS = (
    ("guard ", "guard"),
    ("unavailable: ", "unavailable"),
    ("is trained for ", "other_step"),
    ("needs about ", "context_length"),
    ("its price is unknown", "unknown_price"),
    ("may cost ", "budget"),
    ("certified, but dearer", "cost"),
)

_outcomes = sa.table(
    "outcomes",
    *(
        sa.column(name, sa.Text())
        for name in (
            "run_id",
            "document_id",
            "step",
            "status",
            "reason",
            "cause",
            "route",
            "barred",
        )
    ),
    sa.column("quotes", sa.Boolean()),
)
_attempts = sa.table(
    "attempts",
    *(
        sa.column(name, sa.Text())
        for name in ("id", "run_id", "document_id", "step", "error")
    ),
)
_verdicts = sa.table(
    "verdicts", sa.column("attempt_id", sa.Text()), sa.column("passed", sa.Boolean())
)


def upgrade() -> None:
    """Add three columns, then fill them and the rejections inside of routes."""
    op.add_column("outcomes", sa.Column("cause", sa.Text(), nullable=True))
    op.add_column(
        "outcomes",
        sa.Column("quotes", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.add_column("outcomes", sa.Column("barred", sa.Text(), nullable=True))
    _fill_causes()
    _fill_quotes()
    _fill_rejections(op.get_bind())


def _fill_causes() -> None:
    reason = _outcomes.c.reason
    deferred = _outcomes.c.status == "deferred"
    skipped = _outcomes.c.status == "skipped"
    after_earlier_step = sa.or_(
        reason.like("% was deferred"), reason.like("% was rejected")
    )
    # The first condition that is true counts, so the general ones come last.
    cause = sa.case(
        (sa.and_(deferred, _outcomes.c.step == "read"), "unreadable"),
        (sa.and_(deferred, reason.like("budget: %")), "budget"),
        (sa.and_(deferred, reason.like("waits for a person's review%")), "review"),
        (sa.and_(deferred, ~_has_attempts()), "no_model"),
        (sa.and_(deferred, _has_failed_checks()), "failed_checks"),
        (deferred, "provider_fault"),
        (sa.and_(skipped, after_earlier_step), "earlier_step"),
        (skipped, "condition"),
        (_outcomes.c.status == "rejected", "reviewer"),
        else_=None,
    )
    op.execute(_outcomes.update().values(cause=cause))


def _fill_quotes() -> None:
    """Mark reasons that repeat words: of failed checks and faults, and of a reviewer's note."""
    after_answers = sa.and_(
        _outcomes.c.cause.in_(("budget", "failed_checks", "provider_fault")),
        _has_attempts(),
    )
    # `edited by ada: a note (run ...)`: without a note there is no colon.
    with_note = sa.and_(
        _outcomes.c.status.in_(("accepted", "rejected")),
        _outcomes.c.reason.like("% by %: % (run %)"),
    )
    op.execute(
        _outcomes.update().where(sa.or_(after_answers, with_note)).values(quotes=True)
    )


def _same_outcome() -> sa.ColumnElement[bool]:
    return sa.and_(
        _attempts.c.run_id == _outcomes.c.run_id,
        _attempts.c.document_id == _outcomes.c.document_id,
        _attempts.c.step == _outcomes.c.step,
    )


def _has_attempts() -> sa.ColumnElement[bool]:
    return sa.exists().where(_same_outcome())


def _has_failed_checks() -> sa.ColumnElement[bool]:
    failed = sa.and_(
        _verdicts.c.attempt_id == _attempts.c.id, _verdicts.c.passed.is_(sa.false())
    )
    return sa.exists().where(sa.and_(_same_outcome(), failed))


def _fill_rejections(connection: sa.Connection) -> None:
    """Give each rejection in a route its kind, and each outcome the models that a guard barred."""
    query = sa.select(
        _outcomes.c.run_id, _outcomes.c.document_id, _outcomes.c.step, _outcomes.c.route
    )
    rows = connection.execute(query.where(_outcomes.c.route.is_not(None))).all()
    changes: list[dict[str, Any]] = []
    for row in rows:
        route = json.loads(row.route)
        if not route or not route.get("rejected"):
            continue
        rejected = [_with_kind(rejection) for rejection in route["rejected"]]
        barred = [
            rejection["model"] for rejection in rejected if rejection["kind"] == "guard"
        ]
        changes.append(
            {
                "run": row.run_id,
                "document": row.document_id,
                "of_step": row.step,
                "new_route": json.dumps({**route, "rejected": rejected}),
                "new_barred": json.dumps(barred) if barred else None,
            }
        )
    statement = (
        _outcomes.update()
        .where(
            _outcomes.c.run_id == sa.bindparam("run"),
            _outcomes.c.document_id == sa.bindparam("document"),
            _outcomes.c.step == sa.bindparam("of_step"),
        )
        .values(route=sa.bindparam("new_route"), barred=sa.bindparam("new_barred"))
    )
    for start in range(0, len(changes), _PAGE):
        connection.execute(statement, changes[start : start + _PAGE])


def _with_kind(rejection: dict[str, str]) -> dict[str, str]:
    reason = rejection["reason"]
    kind = "uncertified"
    for beginning, its_kind in _KINDS:
        if reason.startswith(beginning):
            kind = its_kind
            break
    detail = ""
    if kind == "guard":
        detail = reason.removeprefix("guard ").partition(": ")[0]
    elif kind == "unavailable":
        detail = reason.removeprefix("unavailable: ")
    return {
        "model": rejection["model"],
        "reason": reason,
        "kind": kind,
        "detail": detail,
    }
