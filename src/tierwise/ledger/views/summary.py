"""Figures of one or more runs, for reports. Read-only; counted and summed by the database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from sqlalchemy import (
    Subquery,
    Text,
    and_,
    case,
    exists,
    false,
    func,
    or_,
    select,
    type_coerce,
)

from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.rows import LOST, SummaryRow
from tierwise.ledger.tables import (
    COST,
    AttemptRecord,
    OutcomeRecord,
    Run,
    VerdictRecord,
)
from tierwise.ledger.views.answers import Tallies, Tally, answers_of, tallies_of
from tierwise.ledger.views.lost import lost_calls
from tierwise.ledger.views.model_rows import (
    USED,
    latencies,
    summary_rows,
)
from tierwise.records import Attempt, Usage
from tierwise.text.tokens import count_tokens

if TYPE_CHECKING:
    from tierwise.ledger.database import Database

_TOKENS = (
    AttemptRecord.prompt_tokens,
    AttemptRecord.completion_tokens,
    AttemptRecord.cached_tokens,
    AttemptRecord.cache_write_tokens,
    AttemptRecord.cache_write_1h_tokens,
)
# every call that a document needs is answered first as one of these
_NEEDED = ("first", "retry", "fallback")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """The verdicts of one check on one model in one step; shadows are left out."""

    step: str
    model: str
    check: str
    passed: int
    failed: int
    unscored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    """The calls of a step to a model that ended in one kind of error, shadows included."""

    step: str
    model: str
    error: str
    calls: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededRow:
    """The spending of a step, and the calls that one model would answer in place of all others.

    `barred`: a guard kept that model from these documents. `long`: the prompt is above its
    long-prompt limit. `usage` are the tokens of all `counted` calls; those of the `uncounted` ones
    are unknown.
    """

    step: str
    barred: bool
    long: bool
    counted: int
    uncounted: int
    usage: Usage
    # USD, of everything: repairs, re-asks, escalations, judges and shadows too
    cost_known: Decimal
    cost_unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateRow:
    """Documents of a step whose needed calls have no token counts, and their estimated tokens.

    That is the prompt as it was estimated for routing, and the accepted answer as it is. `long` as
    in NeededRow; documents that a guard keeps from the model are left out.
    """

    step: str
    long: bool
    documents: int
    calls: int
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRow:
    """The outcomes of a step accepted from `model`, one of the `models` of their route.

    Outcomes that a retry took over from an earlier run are left out, as their cost is.
    """

    step: str
    models: tuple[str, ...]
    model: str
    documents: int


class Summaries:
    """The figures of one or more runs, for reports: `ledger.summaries`.

    Every method raises LedgerError when the database fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @outlasts_outages
    def of_runs(self, run_ids: Sequence[str]) -> list[SummaryRow]:
        """Return `Runs.summary` of several runs, added up: a document counts once a run."""
        by_key: dict[tuple[str, str, str], list[SummaryRow]] = {}
        with self._database.reading() as connection:
            for run_id in run_ids:
                for row in summary_rows(connection, run_id):
                    by_key.setdefault((row.step, row.tier, row.model), []).append(row)
            if len(run_ids) == 1:
                return [rows[0] for rows in by_key.values()]
            # Percentiles cannot be added up: they are taken anew over all runs.
            of_all = (AttemptRecord.run_id.in_(run_ids), USED)
            seconds = latencies(connection, of_all)
        # Nor can distinct answers: one run may reuse what another one paid.
        tallies = self.answers(run_ids).by_model
        return [
            _added(rows, seconds.get(key, {}), tallies.get(key, Tally()))
            for key, rows in by_key.items()
        ]

    @outlasts_outages
    def answers(self, run_ids: Sequence[str]) -> Tallies:
        """Return the distinct answers of runs, by step and day, and by model."""
        oldest_first = (
            select(Run.id)
            .where(Run.id.in_(run_ids))
            .order_by(Run.started_at, Run.id.desc())
        )
        with self._database.reading() as connection:
            ordered = list(connection.scalars(oldest_first))
            of_runs = answers_of(connection, ordered)
        return tallies_of(of_runs[run_id] for run_id in ordered)

    @outlasts_outages
    def check_rows(self, run_ids: Sequence[str]) -> list[CheckRow]:
        """Return the verdicts by step, model and check, in the order of recording."""
        key = (AttemptRecord.step, AttemptRecord.model, VerdictRecord.check)
        query = (
            select(
                *key,
                func.sum(case((VerdictRecord.passed.is_(True), 1), else_=0)).label(
                    "passed"
                ),
                func.sum(case((VerdictRecord.passed.is_(False), 1), else_=0)).label(
                    "failed"
                ),
                func.sum(case((VerdictRecord.passed.is_(None), 1), else_=0)).label(
                    "unscored"
                ),
            )
            .join(AttemptRecord, VerdictRecord.attempt_id == AttemptRecord.id)
            .where(AttemptRecord.run_id.in_(run_ids), AttemptRecord.kind != "shadow")
            .group_by(*key)
            .order_by(
                func.min(AttemptRecord.seq),
                func.min(VerdictRecord.position),
                VerdictRecord.check,
            )
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            CheckRow(
                step=r.step,
                model=r.model,
                check=r.check,
                # PostgreSQL adds integers up to numeric, which is a Decimal here.
                passed=int(r.passed),
                failed=int(r.failed),
                unscored=int(r.unscored),
            )
            for r in rows
        ]

    @outlasts_outages
    def verdict_counts(self, run_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return, by run, the number of passed verdicts and of scored ones."""
        query = (
            select(
                AttemptRecord.run_id,
                func.sum(case((VerdictRecord.passed.is_(True), 1), else_=0)).label(
                    "passed"
                ),
                func.count().label("scored"),
            )
            .join(AttemptRecord, VerdictRecord.attempt_id == AttemptRecord.id)
            .where(
                AttemptRecord.run_id.in_(run_ids),
                AttemptRecord.kind != "shadow",
                VerdictRecord.passed.is_not(None),
            )
            .group_by(AttemptRecord.run_id)
        )
        with self._database.reading() as connection:
            return {
                row.run_id: (int(row.passed), row.scored)
                for row in connection.execute(query)
            }

    @outlasts_outages
    def error_rows(self, run_ids: Sequence[str]) -> list[ErrorRow]:
        """Return the calls that ended in an error, the most frequent first."""
        key = (AttemptRecord.step, AttemptRecord.model, AttemptRecord.error)
        query = (
            select(*key, func.count().label("calls"))
            .where(AttemptRecord.run_id.in_(run_ids), AttemptRecord.error.is_not(None))
            .group_by(*key)
            .order_by(func.count().desc(), *key)
        )
        with self._database.reading() as connection:
            rows = [ErrorRow(**row._mapping) for row in connection.execute(query)]
            lost = lost_calls(connection, run_ids)
        counts = Counter((call.attempt.step, call.attempt.model) for call in lost)
        for (step, model), calls in counts.items():
            rows.append(ErrorRow(step=step, model=model, error=LOST, calls=calls))
        return sorted(rows, key=lambda row: -row.calls)

    @outlasts_outages
    def needed_rows(
        self, run_ids: Sequence[str], model: str, long_from: int | None
    ) -> list[NeededRow]:
        """Return the spending, and the calls needed had every document gone to `model`.

        Those calls are the first answered ones: no repairs, re-asks, escalations, judges or
        shadows, and no reused answers. Where a document's first answer took no tokens, as a trained
        classifier's does, the first escalation that took some replaces it. `long_from` is the
        prompt length (tokens) above which the model has another price.
        """
        marked = _marked(run_ids, model, long_from)
        key = (marked.c.step, marked.c.barred, marked.c.long)
        query = (
            select(
                *key,
                func.sum(marked.c.counted).label("counted"),
                func.sum(marked.c.uncounted).label("uncounted"),
                *(
                    # `counted` is 1 or 0, so the product leaves out the tokens of other calls.
                    func.sum(marked.c[column.key] * marked.c.counted).label(column.key)
                    for column in _TOKENS
                ),
                # Money is that of every attempt, counted or not.
                func.sum(marked.c.cost).label("cost_known"),
                func.sum(case((marked.c.cost.is_(None), 1), else_=0)).label(
                    "cost_unknown"
                ),
            )
            .group_by(*key)
            .order_by(func.min(marked.c.seq))
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
            lost = lost_calls(connection, run_ids)
        needed = [
            NeededRow(
                step=row.step,
                barred=bool(row.barred),
                long=bool(row.long),
                counted=int(row.counted),
                uncounted=int(row.uncounted),
                usage=Usage(
                    int(row.prompt_tokens),
                    int(row.completion_tokens),
                    int(row.cached_tokens),
                    int(row.cache_write_tokens),
                    int(row.cache_write_1h_tokens),
                ),
                cost_known=row.cost_known or Decimal(0),
                cost_unknown=int(row.cost_unknown),
            )
            for row in rows
        ]
        # No document needs a lost call, as another one was made in its place or it waits; its
        # money is gone all the same.
        return needed + [_needed_by_lost(call.attempt) for call in lost]

    @outlasts_outages
    def estimate_rows(
        self, run_ids: Sequence[str], model: str, long_from: int | None
    ) -> list[EstimateRow]:
        """Return the estimated tokens of the uncounted calls of `needed_rows`."""
        marked = _marked(run_ids, model, long_from)
        document = (marked.c.run_id, marked.c.document_id, marked.c.step)
        calls = (
            select(*document, func.count().label("calls"))
            .where(marked.c.uncounted == 1, marked.c.barred == 0)
            .group_by(*document)
            .subquery()
        )
        outcome = (OutcomeRecord.run_id, OutcomeRecord.document_id, OutcomeRecord.step)
        same = (
            mine == other for mine, other in zip(outcome, calls.c, strict=False)
        )  # all but the count
        query = select(
            calls.c.step, calls.c.calls, OutcomeRecord.route, OutcomeRecord.value
        ).join(calls, and_(*same))
        found: dict[tuple[str, bool], list[tuple[int, Usage]]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query, execution_options={"yield_per": 1000}):
                prompt = ((row.route or {}).get("features") or {}).get("prompt_tokens")
                # Else there is nothing to estimate from: the text is deleted, for example.
                if prompt and row.value is not None:
                    usage = Usage(
                        prompt, count_tokens(json.dumps(row.value, ensure_ascii=False))
                    )
                    key = (row.step, long_from is not None and prompt > long_from)
                    found.setdefault(key, []).append((row.calls, usage))
        return [
            EstimateRow(
                step=step,
                long=long,
                documents=len(rows),
                calls=sum(calls for calls, _ in rows),
                usage=Usage(
                    sum(u.prompt_tokens for _, u in rows),
                    sum(u.completion_tokens for _, u in rows),
                ),
            )
            for (step, long), rows in found.items()
        ]

    @outlasts_outages
    def chain_rows(self, run_ids: Sequence[str]) -> list[ChainRow]:
        """Return the routes of the accepted outcomes, with the models that answered."""
        # A retry takes over outcomes of an earlier run without an attempt of its own.
        was_asked = exists().where(
            AttemptRecord.run_id == OutcomeRecord.run_id,
            AttemptRecord.document_id == OutcomeRecord.document_id,
            AttemptRecord.step == OutcomeRecord.step,
            AttemptRecord.model == OutcomeRecord.model,
            USED,
        )
        query = select(
            OutcomeRecord.step, OutcomeRecord.route, OutcomeRecord.model
        ).where(
            OutcomeRecord.run_id.in_(run_ids),
            OutcomeRecord.status == "accepted",
            was_asked,
        )
        with self._database.reading() as connection:
            rows = connection.execute(query, execution_options={"yield_per": 1000})
            counts: Counter[tuple[str, tuple[str, ...], str]] = Counter()
            for row in rows:
                route = row.route or {}
                models = tuple(route.get("models", ()))
                counts[row.step, models, row.model] += 1
        return [
            ChainRow(step=step, models=models, model=model, documents=documents)
            for (step, models, model), documents in counts.items()
        ]


def _marked(run_ids: Sequence[str], model: str, long_from: int | None) -> Subquery:
    """Select every attempt with its tokens and marks, each 1 or 0.

    `counted`: `model` would have had to answer this call. `uncounted`: so too, but no server
    reported its tokens. `barred`: a guard keeps `model` from the document. `long`: its prompt is
    above the limit.
    """
    prompt_tokens = AttemptRecord.prompt_tokens
    completion_tokens = AttemptRecord.completion_tokens
    document = (AttemptRecord.run_id, AttemptRecord.document_id, AttemptRecord.step)
    was_answered = and_(AttemptRecord.error.is_(None), AttemptRecord.reused.is_(False))
    is_needed = and_(AttemptRecord.kind.in_(_NEEDED), was_answered)
    is_escalation = and_(AttemptRecord.kind == "escalation", was_answered)
    has_tokens = (
        func.coalesce(prompt_tokens, 0) + func.coalesce(completion_tokens, 0) > 0
    )

    # A trained classifier answers without tokens. If no needed call of a document took any, the
    # first escalation that did is counted in its place.
    needed_with_tokens = case((and_(is_needed, has_tokens), 1), else_=0)
    any_needed_has_tokens = func.max(needed_with_tokens).over(partition_by=document)
    # No `else_`: NULL for all other attempts, which `min` passes over.
    escalation_with_tokens = case((and_(is_escalation, has_tokens), AttemptRecord.seq))
    first_escalation = func.min(escalation_with_tokens).over(partition_by=document)
    is_replacement = and_(
        any_needed_has_tokens == 0, AttemptRecord.seq == first_escalation
    )
    is_counted = or_(and_(is_needed, has_tokens), is_replacement)
    is_uncounted = and_(is_needed, ~has_tokens, first_escalation.is_(None))

    barred_models = type_coerce(OutcomeRecord.barred, Text)  # a JSON list of names
    # With its quotes: `small` must not be found in `small-2`.
    is_barred = barred_models.contains(json.dumps(model), autoescape=True)
    is_long = (
        AttemptRecord.prompt_tokens > long_from if long_from is not None else false()
    )
    same_outcome = and_(
        OutcomeRecord.run_id == AttemptRecord.run_id,
        OutcomeRecord.document_id == AttemptRecord.document_id,
        OutcomeRecord.step == AttemptRecord.step,
    )
    return (
        select(
            *document,
            AttemptRecord.seq,
            COST.label("cost"),
            case((is_barred, 1), else_=0).label("barred"),
            case((is_long, 1), else_=0).label("long"),
            case((is_counted, 1), else_=0).label("counted"),
            case((is_uncounted, 1), else_=0).label("uncounted"),
            *(func.coalesce(column, 0).label(column.key) for column in _TOKENS),
        )
        # An attempt of a run that crashed may have no outcome, and cost money all the same.
        .outerjoin(OutcomeRecord, same_outcome)
        .where(AttemptRecord.run_id.in_(run_ids))
        .subquery()
    )


def _needed_by_lost(attempt: Attempt) -> NeededRow:
    """Return the spending of a lost call."""
    return NeededRow(
        step=attempt.step,
        barred=False,
        long=False,
        counted=0,
        uncounted=0,
        usage=Usage(0, 0),
        cost_known=attempt.cost or Decimal(0),
        cost_unknown=int(attempt.cost is None),
    )


def _added(
    rows: Sequence[SummaryRow], latencies: Mapping[int, float], tally: Tally
) -> SummaryRow:
    """Rows of the same step, tier and model as one."""
    outcomes = ("documents", "accepted", "escalations", "deferred")
    counts = (
        *outcomes,
        "attempts",
        "reused",
        "repairs",
        "reasks",
        "cost_known",
        "cost_unknown",
        "unpriced",
    )
    tokens = ("prompt_tokens", "cached_tokens", "completion_tokens")
    return replace(
        rows[0],
        **{
            name: sum(getattr(row, name) for row in rows) for name in (*counts, *tokens)
        },
        checks_failed=_counted([row.checks_failed for row in rows]),
        errors=_counted([row.errors for row in rows]),
        latency_p50_s=latencies.get(50),
        latency_p95_s=latencies.get(95),
        answers=tally.n,
        passed=tally.passed,
        unreviewed=tally.waiting,
    )


def _counted(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for count in counts:
        for name, number in count.items():
            totals[name] = totals.get(name, 0) + number
    return totals
