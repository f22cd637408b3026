"""The figures of a run by step, tier and model. Read-only; summed by the database, exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import ColumnElement, Select, and_, case, func, select

from tierwise.ledger.people.reviews import CURRENT
from tierwise.ledger.rows import LOST, SummaryRow
from tierwise.ledger.tables import COST, AttemptRecord, VerdictRecord
from tierwise.ledger.views.answers import Tally, answers_of, tallies_of
from tierwise.ledger.views.lost import lost_calls
from tierwise.records import Attempt

if TYPE_CHECKING:
    from sqlalchemy import Connection

_Key = tuple[str, str, str]  # step, tier, model
_Of = tuple[ColumnElement[bool], ...]  # which attempts
_Query = Select[Any]
# What a model was asked for: an outcome, or only to be compared, or to judge another's answer.
_Role = Literal["used", "shadow", "judge"]
# the attempts that an outcome may come from
USED = AttemptRecord.kind.not_in(("shadow", "judge"))

_COUNTS = (
    "documents",
    "attempts",
    "reused",
    "repairs",
    "reasks",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cost_unknown",
)
_REUSED = func.sum(case((AttemptRecord.reused, 1), else_=0))
_UNKNOWN = func.sum(case((COST.is_(None), 1), else_=0))
# A model without a price has no date of one either.
_UNPRICED = func.sum(
    case(
        (and_(COST.is_(None), AttemptRecord.price_date.is_(None)), 1),
        else_=0,
    )
)
_GROUP = (AttemptRecord.step, AttemptRecord.tier, AttemptRecord.model)


def summary_rows(connection: Connection, run_id: str) -> list[SummaryRow]:
    """Return one row for each step, tier and model of a run, steps and models as first asked.

    The rows of judges and shadows come last within their step.
    """
    rows = [
        *_rows(connection, run_id, "used"),
        *_rows(connection, run_id, "judge"),
        *_rows(connection, run_id, "shadow"),
    ]
    steps = list(dict.fromkeys(row.step for row in rows))
    # Stable: within a step, judges and shadows stay behind.
    return sorted(rows, key=lambda row: steps.index(row.step))


def _key(row: Any) -> _Key:
    return row.step, row.tier, row.model


def _rows(connection: Connection, run_id: str, role: _Role) -> list[SummaryRow]:
    """Return the rows of the models that were asked in this role."""
    is_used = role == "used"
    of = (
        AttemptRecord.run_id == run_id,
        USED if is_used else AttemptRecord.kind == role,
    )
    totals = _totals(connection, of)
    errors = _errors(connection, of)
    for call in lost_calls(connection, [run_id]):
        if call.role == role:
            _add_lost(call.attempt, totals, errors)
    if not totals:
        return []
    accepted = _accepted(connection, run_id) if is_used else {}
    deferred = _deferred(connection, run_id) if is_used else {}
    tallies: Mapping[_Key, Tally] = {}
    if is_used:
        tallies = tallies_of(answers_of(connection, [run_id]).values()).by_model
    escalations = _escalations(connection, of)
    checks_failed = _checks_failed(connection, of)
    seconds = latencies(connection, of)
    return [
        SummaryRow(
            **total | ({} if is_used else {"model": f"{key[2]} ({role})"}),
            accepted=accepted.get(key, 0),
            escalations=escalations.get(key, 0),
            checks_failed=checks_failed.get(key, {}),
            errors=errors.get(key, {}),
            latency_p50_s=seconds.get(key, {}).get(50),
            latency_p95_s=seconds.get(key, {}).get(95),
            deferred=deferred.get(key, 0),
            answers=tallies.get(key, Tally()).n,
            passed=tallies.get(key, Tally()).passed,
            unreviewed=tallies.get(key, Tally()).waiting,
            shadow=role == "shadow",
            judge=role == "judge",
        )
        for key, total in totals.items()
    ]


def _totals(connection: Connection, of: _Of) -> dict[_Key, dict[str, Any]]:
    """Return sums by step, tier and model, in the order of the first attempt."""

    def spent(tokens: Any) -> Any:
        # A reused attempt repeats the counts of the one that paid.
        paid_tokens = case((AttemptRecord.reused, 0), else_=tokens)
        return func.coalesce(func.sum(paid_tokens), 0)

    query = (
        select(
            *_GROUP,
            func.count(AttemptRecord.document_id.distinct()).label("documents"),
            func.count().label("attempts"),
            _REUSED.label("reused"),
            func.sum(case((AttemptRecord.kind == "repair", 1), else_=0)).label(
                "repairs"
            ),
            func.sum(case((AttemptRecord.kind == "reask", 1), else_=0)).label("reasks"),
            spent(AttemptRecord.prompt_tokens).label("prompt_tokens"),
            spent(AttemptRecord.cached_tokens).label("cached_tokens"),
            spent(AttemptRecord.completion_tokens).label("completion_tokens"),
            func.sum(COST).label("cost_known"),
            _UNKNOWN.label("cost_unknown"),
            _UNPRICED.label("unpriced"),
        )
        .where(*of)
        .group_by(*_GROUP)
        .order_by(func.min(AttemptRecord.seq))
    )
    return {
        _key(row): {**row._mapping, **_numbers(row)}
        for row in connection.execute(query)
    }


def _add_lost(
    attempt: Attempt,
    totals: dict[_Key, dict[str, Any]],
    errors: dict[_Key, dict[str, int]],
) -> None:
    """Count a lost call under its step, tier and model."""
    key = (attempt.step, attempt.tier, attempt.model)
    total = totals.get(key)
    if total is None:
        # Its document counts only here: elsewhere the attempts on record have it.
        counts = dict.fromkeys(_COUNTS, 0)
        total = dict(zip(("step", "tier", "model"), key, strict=True)) | counts
        total["cost_known"] = Decimal(0)
        total["documents"] = 1
        totals[key] = total
    total["attempts"] += 1
    if attempt.cost is None:
        total["cost_unknown"] += 1
    else:
        total["cost_known"] += attempt.cost
    of_key = errors.setdefault(key, {})
    of_key[LOST] = of_key.get(LOST, 0) + 1


def _numbers(row: Any) -> dict[str, Any]:
    """Return sums in their own types: in PostgreSQL, integers add up to numeric or NULL."""
    tokens = {
        name: int(getattr(row, name))
        for name in ("prompt_tokens", "cached_tokens", "completion_tokens")
    }
    return {**tokens, "cost_known": row.cost_known or Decimal(0)}


def _accepted(connection: Connection, run_id: str) -> dict[_Key, int]:
    """Count the documents accepted from a model, among those that this run asked it for.

    A retry takes over outcomes of an earlier run without an attempt of its own; these are no
    answers of this run. Counting documents of attempts, as `_totals` does, keeps the accepted ones
    a part of the documents, whatever runs and retries there were.
    """
    query = (
        select(
            *_GROUP, func.count(AttemptRecord.document_id.distinct()).label("documents")
        )
        .join(
            CURRENT,
            (CURRENT.c.run_id == AttemptRecord.run_id)
            & (CURRENT.c.document_id == AttemptRecord.document_id)
            & (CURRENT.c.step == AttemptRecord.step)
            & (CURRENT.c.model == AttemptRecord.model),
        )
        .where(AttemptRecord.run_id == run_id, USED, CURRENT.c.status == "accepted")
        .group_by(*_GROUP)
    )
    return {_key(row): row.documents for row in connection.execute(query)}


def _deferred(connection: Connection, run_id: str) -> dict[_Key, int]:
    """Count deferred documents by step, tier and model of their last attempt."""
    # 1 is the last attempt at a document in a step.
    age = func.row_number().over(
        partition_by=(AttemptRecord.document_id, AttemptRecord.step),
        order_by=AttemptRecord.seq.desc(),
    )
    of = (AttemptRecord.run_id == run_id, USED)
    last = (
        select(*_GROUP, AttemptRecord.document_id, age.label("age"))
        .where(*of)
        .subquery()
    )
    query = (
        select(last.c.step, last.c.tier, last.c.model, func.count().label("documents"))
        .join(
            CURRENT,
            (CURRENT.c.document_id == last.c.document_id)
            & (CURRENT.c.step == last.c.step),
        )
        .where(
            CURRENT.c.run_id == run_id, CURRENT.c.status == "deferred", last.c.age == 1
        )
        .group_by(last.c.step, last.c.tier, last.c.model)
    )
    return {_key(row): row.documents for row in connection.execute(query)}


def _escalations(connection: Connection, of: _Of) -> dict[_Key, int]:
    """Count the documents whose next attempt after a model was an escalation."""
    # NULL after the last attempt, which no escalation followed.
    next_kind = func.lead(AttemptRecord.kind).over(
        partition_by=(AttemptRecord.document_id, AttemptRecord.step),
        order_by=AttemptRecord.seq,
    )
    steps = (
        select(*_GROUP, AttemptRecord.document_id, next_kind.label("next_kind"))
        .where(*of)
        .subquery()
    )
    query = (
        select(
            steps.c.step,
            steps.c.tier,
            steps.c.model,
            func.count(steps.c.document_id.distinct()).label("documents"),
        )
        .where(steps.c.next_kind == "escalation")
        .group_by(steps.c.step, steps.c.tier, steps.c.model)
    )
    return {_key(row): row.documents for row in connection.execute(query)}


def _checks_failed(connection: Connection, of: _Of) -> dict[_Key, dict[str, int]]:
    """Count the failed attempts by check."""
    query = (
        select(*_GROUP, VerdictRecord.check.label("name"), func.count().label("times"))
        .join(VerdictRecord, VerdictRecord.attempt_id == AttemptRecord.id)
        # NULL is a check that came to no verdict; it did not fail.
        .where(*of, VerdictRecord.passed.is_(False))
        .group_by(*_GROUP, VerdictRecord.check)
        .order_by(VerdictRecord.check)
    )
    return _named_counts(connection, query)


def _errors(connection: Connection, of: _Of) -> dict[_Key, dict[str, int]]:
    """Count the attempts by error."""
    query = (
        select(*_GROUP, AttemptRecord.error.label("name"), func.count().label("times"))
        .where(*of, AttemptRecord.error.is_not(None))
        .group_by(*_GROUP, AttemptRecord.error)
        .order_by(AttemptRecord.error)
    )
    return _named_counts(connection, query)


def _named_counts(connection: Connection, query: _Query) -> dict[_Key, dict[str, int]]:
    counts: dict[_Key, dict[str, int]] = defaultdict(dict)
    for row in connection.execute(query):
        counts[_key(row)][row.name] = row.times
    return counts


def latencies(connection: Connection, of: _Of) -> dict[_Key, dict[int, float]]:
    """Return the nearest-rank 50th and 95th percentiles of the online calls' latencies (seconds)."""
    ranked = (
        select(
            *_GROUP,
            AttemptRecord.latency_s,
            func.row_number()
            .over(partition_by=_GROUP, order_by=AttemptRecord.latency_s)
            .label("rank"),
            func.count().over(partition_by=_GROUP).label("total"),
        )
        .where(
            *of, AttemptRecord.reused.is_(False), AttemptRecord.transport == "online"
        )
        .subquery()
    )
    # The nearest rank: rounded up, with integers only.
    places = {percent: (ranked.c.total * percent + 99) // 100 for percent in (50, 95)}
    query = select(
        ranked, *(place.label(f"p{percent}") for percent, place in places.items())
    )
    found: dict[_Key, dict[int, float]] = defaultdict(dict)
    for row in connection.execute(query.where(ranked.c.rank.in_(places.values()))):
        # One row may be at both places, such as that of a single call.
        found[_key(row)] |= {
            percent: row.latency_s
            for percent in places
            if row.rank == getattr(row, f"p{percent}")
        }
    return found
