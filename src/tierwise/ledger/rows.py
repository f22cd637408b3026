"""The frozen values that go into and come out of the ledger, and how they become rows and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from functools import cache
from operator import attrgetter
from typing import Any, Literal

from tierwise.records import (
    Attempt,
    Cause,
    Choice,
    Document,
    FieldSource,
    Outcome,
    Rejection,
    Reply,
    Route,
    Sensitivity,
    Usage,
    Verdict,
    canonical_hash,
    place_of_row,
    text_hash,
)

Row = dict[str, Any]

# How a run ended. `waiting`: it went through all documents, and too many of them wait.
# `detached`: it ended while calls are in provider batches, and goes on under its own id.
RunState = Literal["completed", "waiting", "failed", "cancelled", "detached"]
# The ends of a run that went through all of its documents.
WENT_THROUGH: tuple[RunState, ...] = ("completed", "waiting")

_TOKENS = (
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
)
# Usage has columns of its own, verdicts have rows; of the text only a hash is kept. A new price
# comes later than the attempt.
_ATTEMPT = tuple(
    f.name
    for f in fields(Attempt)
    if f.name not in ("usage", "text", "verdicts", "repriced")
)
_read_attempt = attrgetter(*_ATTEMPT)
LATE = "AnsweredLate"  # the error of an item of a batch that was made online meanwhile
LOST = "CallLost"  # the error of a call whose process did not record its end


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """One run of a flow as it starts. `started_at` is seconds since the epoch, UTC."""

    id: str
    flow: str
    policy_hash: str
    tierwise_version: str
    started_at: float
    flow_run_id: str | None = None
    flow_run_name: str | None = None
    budget_usd: Decimal | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    plan: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolders:
    """A source that a run read, with a folder that it wrote to; both as `documents.places` names.

    None is an unknown one: of a run of an earlier version, or one that wrote nothing. `naming` are
    the run's parameters, by name, that named the output; in a run of an earlier version, those that
    named the source and the output.
    """

    source: str | None
    output: str | None
    naming: Mapping[str, str] = field(default_factory=dict)
    is_further: bool = False  # the source is in front of its documents' ids
    done: str | None = None  # the folder that files of the source move to

    def as_json(self) -> str:
        """Return source, output, naming and done folder as text, the same for equal ones."""
        values: dict[str, Any] = {
            "source": self.source,
            "output": self.output,
            "naming": self.naming,
        }
        # Without one, the text is that of earlier versions.
        if self.done is not None:
            values["done"] = self.done
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> RunFolders:
        """Return what `as_json` made a text of."""
        return cls(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Paid:
    """A call that was paid before: its reply, attempt and cost (USD, None when unknown).

    `paid_for` are the run, the document and the step of that attempt.
    """

    reply: Reply
    attempt_id: str
    cost: Decimal | None
    paid_for: tuple[str, str, str] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """One run. Times are seconds since the epoch, UTC; costs are USD.

    `documents` have an outcome; a document is `deferred` when any of its outcomes is, else
    `accepted` when any is. `attempts` counts reused ones too. `cost` is None when that of any
    attempt is unknown: then `cost_known` is the sum of the others, and `cost_unknown` counts those
    without, those that were lost with their process too. `usage_unclear` counts the calls whose
    token counts contradict each other, `repriced` those whose price was filled in later.
    """

    id: str
    flow: str
    flow_run_id: str | None
    flow_run_name: str | None
    state: str
    started_at: float
    finished_at: float | None
    documents: int
    accepted: int
    deferred: int
    attempts: int
    reused: int
    cost_known: Decimal
    cost_unknown: int
    budget_usd: Decimal | None
    parameters: dict[str, Any]
    policy_hash: str
    tierwise_version: str
    tags: dict[str, str] | None = None
    plan: dict[str, Any] | None = None
    usage_unclear: int = 0
    repriced: int = 0
    in_batches: int = 0  # documents that wait for a provider batch

    @property
    def cost(self) -> Decimal | None:
        """USD, None when that of any attempt is unknown."""
        return None if self.cost_unknown else self.cost_known


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """One step on one model in one run.

    `documents` were tried by this model, `accepted` are those whose outcome came from it, and
    `escalations` are those that left it after a failed verdict; `reasks` are calls that showed it
    the words of a failed check; `deferred` are those that wait since it was asked last. `attempts`
    counts reused ones too; tokens and latencies (seconds) are those of calls that were made, so
    without reused ones.

    `answers` are its distinct answers with a result, and `passed` those among them whose outcome
    came from it; `unreviewed` wait for a person, by their route. See `views.answers`.
    """

    step: str
    tier: str
    model: str
    documents: int
    accepted: int
    attempts: int
    reused: int
    repairs: int
    escalations: int
    checks_failed: dict[str, int]
    errors: dict[str, int]
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_known: Decimal
    cost_unknown: int
    latency_p50_s: float | None
    latency_p95_s: float | None
    deferred: int = 0
    reasks: int = 0
    unpriced: int = 0  # of `cost_unknown`: calls to a model without a price
    answers: int = 0
    passed: int = 0
    unreviewed: int = 0
    # asked only to be compared, or to judge another's answer: no outcome comes from these
    shadow: bool = False
    judge: bool = False

    @property
    def cost(self) -> Decimal | None:
        """USD, None when that of any attempt is unknown."""
        return None if self.cost_unknown else self.cost_known

    @property
    def pass_rate(self) -> float | None:
        """Passed answers per distinct answer, 0 to 1; None without any, as for a shadow or judge."""
        return self.passed / self.answers if self.answers else None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeRow:
    """A document's outcome, without its attempts. `recorded_at` is seconds since the epoch, UTC.

    `question` is what was asked (see `Step.question`), None where nothing was.
    """

    document_id: str
    document_hash: str
    outcome: Outcome
    recorded_at: float
    question: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeferredRow:
    """A document that waits for a person or money, and why."""

    document_id: str
    step: str
    reason: str
    cause: Cause | None
    model: str | None
    sensitivity: Sensitivity


def run_row(run: RunInfo) -> Row:
    """Return a run's row."""
    row = {f.name: getattr(run, f.name) for f in fields(RunInfo)}
    return row | {
        "parameters": dict(run.parameters),
        "tags": dict(run.tags),
        "state": "running",
    }


def attempt_row(run_id: str, attempt: Attempt) -> Row:
    """Return an attempt's row; its verdicts have rows of their own."""
    row = dict(zip(_ATTEMPT, _read_attempt(attempt), strict=True))
    usage = attempt.usage
    for name in _TOKENS:
        row[name] = getattr(usage, name) if usage else None
    row["usage_unclear"] = None
    if usage and usage.unclear:
        row["usage_unclear"] = usage.unclear
    row["run_id"] = run_id
    row["answer_hash"] = None if attempt.text is None else text_hash(attempt.text)
    return row


def attempt_of(row: Any, verdicts: Iterable[Verdict] = ()) -> Attempt:
    """Return the attempt of a row, without its text."""
    usage = None
    # An attempt has all counts or none.
    if row.prompt_tokens is not None:
        usage = Usage(
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            cached_tokens=row.cached_tokens,
            # attempts of older versions have no counts of these
            cache_write_tokens=row.cache_write_tokens or 0,
            cache_write_1h_tokens=row.cache_write_1h_tokens or 0,
            unclear=row.usage_unclear or "",
        )
    values = {name: getattr(row, name) for name in _ATTEMPT}
    is_repriced = row.repriced is not None
    if is_repriced:
        values["cost"] = row.repriced
    return Attempt(
        **values, usage=usage, verdicts=tuple(verdicts), repriced=is_repriced
    )


def in_flight_row(run_id: str, attempt: Attempt) -> Row:
    """Return what is known of an attempt before its call ends, as plain JSON."""
    row = attempt_row(run_id, attempt)
    return {name: value for name, value in row.items() if value is not None}


def in_flight_attempt(in_flight: Mapping[str, Any]) -> Attempt:
    """Return the attempt of a row of `in_flight_row`, with nothing known of its end."""
    # Fields that were left out as None are None again.
    values: dict[str, Any] = {name: in_flight.get(name) for name in _ATTEMPT}
    # of a claim of an older version, too
    values["transport"] = in_flight.get("transport", "online")
    return Attempt(**values, usage=None)


def lost_attempt(in_flight: Mapping[str, Any], repriced: Decimal | None) -> Attempt:
    """Return the attempt of a lost call, given the row of `in_flight_row`."""
    return replace(
        in_flight_attempt(in_flight),
        cost=repriced,
        error=LOST,
        error_text="its process ended before the call did; it may have been billed",
        repriced=repriced is not None,
    )


def verdict_rows(attempt_id: str, verdicts: Sequence[Verdict]) -> list[Row]:
    """Return one row for each check, in the order of the checks.

    One that judged field by field has its verdicts in one row. Of several checks with one name the
    last one counts.
    """
    judged_by_field = {each.check for each in verdicts if each.field is not None}
    rows: list[Row] = []
    written: set[str] = set()
    for position, verdict in enumerate(verdicts):
        name = verdict.check
        if name in written:
            continue
        row = {
            "attempt_id": attempt_id,
            "check": name,
            "position": position,
            "passed": verdict.passed,
            "score": verdict.score,
            "reason": verdict.reason,
            "fields": None,
        }
        if name in judged_by_field:
            written.add(name)
            row |= _together([each for each in verdicts if each.check == name])
        rows.append(row)
    return rows


def _together(verdicts: Sequence[Verdict]) -> Row:
    """Return the columns of a check's verdicts by field. Their reasons are a column of their own.

    So a deletion of all reasons leaves the fields.
    """
    passed = [verdict.passed for verdict in verdicts]
    return {
        "passed": False if False in passed else passed[0],
        "score": None,
        "reason": json.dumps([verdict.reason for verdict in verdicts]),
        "fields": [[each.field, each.passed, each.score] for each in verdicts],
    }


def verdicts_of(row: Any) -> list[Verdict]:
    """Return the verdicts of a row: one, or one for each field that its check judged."""
    if row.fields is None:
        return [Verdict(row.check, row.passed, row.reason, row.score)]
    reasons = json.loads(row.reason) if row.reason else [""] * len(row.fields)
    return [
        Verdict(row.check, passed, reason, score, field=name)
        for (name, passed, score), reason in zip(row.fields, reasons, strict=True)
    ]


def paid_row(attempt: Attempt, reply: Reply, now: float) -> Row:
    """Return the row of a call that an attempt paid; nobody owns it any more."""
    return {
        "call_hash": attempt.call_hash,
        "owner": None,
        "lease_until": None,
        "attempt_id": attempt.id,
        "in_flight": None,
        # `_plain` leaves the value in `usage` as it is, so it is made plain on its own.
        "reply": _plain(reply) | {"usage": reply.usage and _plain(reply.usage)},
        "paid_at": now,
    }


def reply_of(data: Mapping[str, Any]) -> Reply:
    """Return the reply of plain data."""
    usage = data["usage"]
    return Reply(**{**data, "usage": Usage(**usage) if usage else None})


def outcome_row(
    run_id: str,
    document: Document,
    outcome: Outcome,
    now: float,
    question: str | None = None,
) -> Row:
    """Return an outcome's row; its attempts are found by run, document and step."""
    # An earlier step may have raised the sensitivity; then the document's source is not why.
    own = outcome.sensitivity == document.sensitivity
    return {
        "run_id": run_id,
        "document_id": document.id,
        "step": outcome.step,
        "document_hash": document.hash,
        "status": outcome.status,
        "value": outcome.value,
        "places": [place.as_row() for place in outcome.places] or None,
        "reason": outcome.reason,
        "cause": outcome.cause,
        "quotes": outcome.quotes,
        "barred": _barred(outcome.route),
        "model": outcome.model,
        "sensitivity": outcome.sensitivity,
        "route": outcome.route and _route_row(outcome.route),
        "recorded_at": now,
        "question": question,
        "sensitivity_source": document.sensitivity_source if own else "an earlier step",
        # Hashes outlive the texts, so that the audit trail remains valid after a deletion.
        "value_hash": None if outcome.value is None else canonical_hash(outcome.value),
        "sources": sources_row(outcome.sources),
        "open_fields": list(outcome.open_fields) or None,
    }


def sources_row(sources: Mapping[str, FieldSource]) -> Row | None:
    """Return the sources of fields as plain data; None where there are none."""
    return {name: _plain(source) for name, source in sources.items()} or None


def sources_of(data: Mapping[str, Any] | None) -> dict[str, FieldSource]:
    """Return the sources of plain data."""
    return {name: FieldSource(**source) for name, source in (data or {}).items()}


def _barred(route: Route | None) -> list[str] | None:
    """Return the models that a guard keeps from the document; None where there is none."""
    rejected = route.rejected if route else ()
    return [
        rejection.model for rejection in rejected if rejection.kind == "guard"
    ] or None


def _route_row(route: Route) -> Row:
    # These two hold frozen values, which JSON cannot store.
    lists = {
        "rejected": [*map(_plain, route.rejected)],
        "choices": [*map(_plain, route.choices)],
    }
    return _plain(route) | lists


def _plain(value: Any) -> Row:
    """Return a value's fields. `asdict` copies them deeply, a tenth of a document's CPU time."""
    names, read = _fields_of(value.__class__)
    return dict(zip(names, read(value), strict=True))


@cache
def _fields_of(
    kind: type[Any],
) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """Return the names of a class's fields, and the function that reads them all at once."""
    # `attrgetter` with several names returns a tuple. All kinds here have several fields.
    names = tuple(field.name for field in fields(kind))
    return names, attrgetter(*names)


def outcome_of(row: Any) -> Outcome:
    """Return the outcome of a row, without its attempts."""
    return Outcome(
        step=row.step,
        status=row.status,
        value=row.value,
        reason=row.reason,
        cause=row.cause,
        quotes=row.quotes,
        model=row.model,
        sensitivity=row.sensitivity,
        route=_route_of(row.route),
        places=tuple(place_of_row(place) for place in row.places or ()),
        sources=sources_of(row.sources),
        open_fields=tuple(row.open_fields or ()),
    )


def _route_of(data: Mapping[str, Any] | None) -> Route | None:
    if data is None:
        return None
    # JSON has only lists, where a route has tuples.
    rejected = tuple(Rejection(**rejection) for rejection in data["rejected"])
    # Routes of older versions have no choices.
    choices = tuple(_choice_of(choice) for choice in data.get("choices", ()))
    return Route(
        **{
            **data,
            "models": tuple(data["models"]),
            "rejected": rejected,
            "choices": choices,
        }
    )


def _choice_of(data: Mapping[str, Any]) -> Choice:
    cost = data["expected_cost"]
    if cost is not None:
        cost = Decimal(cost)  # JSON has it as text, which keeps all digits
    return Choice(data["model"], cost, data["proof"])
