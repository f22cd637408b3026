"""What people ask the ledger after a run, answered from one small run whose every number is known."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.ledgers import DATABASES, DOCUMENT, RUN, attempt, migrated_url, run
from tierwise.errors import Misuse, UnknownName
from tierwise.ledger import DeferredRow, Ledger
from tierwise.records import Outcome, Status, Usage, Verdict, text_hash

CENT = Decimal("0.01")
PASSED, TOO_LONG = (
    Verdict("length", True),
    Verdict("length", False, "41 words, at most 40"),
)
NOT_QUOTED = Verdict("grounding", False, "not in the document")


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(migrated_url(request.param, tmp_path), root=tmp_path) as opened:
        yield opened


def record(
    ledger: Ledger,
    run_id: str,
    document_id: str,
    step: str,
    *attempts: Any,
    **outcome: Any,
) -> None:
    """A document's attempts in order, each with its verdicts, then its outcome."""

    async def story() -> None:
        for number, changes in enumerate(attempts):
            own = {"call_hash": text_hash(f"{document_id} {step} {number}")}
            made = attempt(
                document_id=document_id, step=step, **{"cost": CENT, **own, **changes}
            )
            await ledger.settle(run_id, replace(made, verdicts=()), None)
            await ledger.record_verdicts(run_id, made.id, made.verdicts)
        if outcome:
            await ledger.record_outcome(
                run_id, replace(DOCUMENT, id=document_id), Outcome(step=step, **outcome)
            )

    run(story())


def accepted(model: str) -> dict[str, Any]:
    return {
        "status": "accepted",
        "value": "?",
        "model": model,
        "sensitivity": "internal",
    }


SMALL = {"model": "small", "tier": "local"}
LARGE = {"model": "large", "tier": "proprietary"}


def record_a_run(ledger: Ledger) -> None:
    """Five documents: two pass at once, one is repaired, one escalates, one is deferred in the end."""
    ledger.start_run(
        replace(
            RUN,
            budget_usd=Decimal("0.5"),
            flow_run_name="brave-otter",
            parameters={"source": "inbox"},
        )
    )
    ok = {"verdicts": (PASSED,)}
    record(
        ledger,
        RUN.id,
        "a",
        "summarize",
        {**SMALL, **ok, "latency_s": 1.0},
        **accepted("small"),
    )
    record(
        ledger,
        RUN.id,
        "b",
        "summarize",
        {**SMALL, **ok, "reused": True, "cost": Decimal(0), "latency_s": 0.0},
        **accepted("small"),
    )
    record(
        ledger,
        RUN.id,
        "c",
        "summarize",
        {
            **SMALL,
            "error": "RateLimited",
            "usage": None,
            "cost": Decimal(0),
            "latency_s": 9.0,
        },
        {**SMALL, "kind": "retry", "verdicts": (TOO_LONG,), "latency_s": 2.0},
        {**SMALL, "kind": "repair", **ok, "latency_s": 3.0},
        **accepted("small"),
    )
    record(
        ledger,
        RUN.id,
        "d",
        "summarize",
        {**SMALL, "verdicts": (TOO_LONG, NOT_QUOTED), "latency_s": 4.0},
        {
            **LARGE,
            "kind": "escalation",
            **ok,
            "usage": Usage(1000, 10, 400),
            "latency_s": 5.0,
        },
        **accepted("large"),
    )
    record(
        ledger,
        RUN.id,
        "e",
        "summarize",
        {**SMALL, "verdicts": (TOO_LONG,), "latency_s": 5.0},
        {
            **LARGE,
            "kind": "escalation",
            "error": "CallTimeout",
            "usage": None,
            "cost": None,
            "latency_s": 120.0,
        },
        {
            **LARGE,
            "kind": "retry",
            "verdicts": (NOT_QUOTED,),
            "usage": None,
            "cost": None,
            "latency_s": 6.0,
        },
        status="deferred",
        reason="no acceptable model left",
        sensitivity="confidential",
    )
    record(ledger, RUN.id, "a", "draft", {**LARGE, **ok}, **accepted("large"))
    record(ledger, RUN.id, "b", "draft", status="skipped", reason="needs no reply")
    record(ledger, RUN.id, "e", "draft", status="skipped", reason="waits at summarize")
    ledger.finish_run(RUN.id, "completed")


def test_a_summary_has_one_row_per_step_tier_and_model(ledger: Ledger) -> None:
    record_a_run(ledger)
    rows = ledger.runs.summary(RUN.id)
    assert [(row.step, row.tier, row.model) for row in rows] == [
        ("summarize", "local", "small"),
        ("summarize", "proprietary", "large"),
        ("draft", "proprietary", "large"),
    ]
    small, large, draft = rows
    assert (small.documents, small.accepted, small.pass_rate) == (5, 3, 0.6)
    assert (large.documents, large.accepted, large.pass_rate) == (2, 1, 0.5)
    assert (draft.documents, draft.accepted, draft.pass_rate) == (1, 1, 1.0)
    assert (small.attempts, small.reused, small.repairs, small.escalations) == (
        7,
        1,
        1,
        2,
    )
    assert (large.attempts, large.reused, large.repairs, large.escalations) == (
        3,
        0,
        0,
        0,
    )
    assert (small.checks_failed, small.errors) == (
        {"grounding": 1, "length": 3},
        {"RateLimited": 1},
    )
    assert (large.checks_failed, large.errors) == ({"grounding": 1}, {"CallTimeout": 1})
    assert (draft.checks_failed, draft.errors) == ({}, {})


def test_a_summarys_cost_is_unknown_when_that_of_any_attempt_is(ledger: Ledger) -> None:
    record_a_run(ledger)
    small, large, draft = ledger.runs.summary(RUN.id)
    assert (small.cost, small.cost_known, small.cost_unknown) == (5 * CENT, 5 * CENT, 0)
    assert (large.cost, large.cost_known, large.cost_unknown) == (None, CENT, 2)
    assert (draft.cost, draft.cost_known, draft.cost_unknown) == (CENT, CENT, 0)


def test_a_summary_counts_tokens_and_latencies_of_calls_that_were_made(
    ledger: Ledger,
) -> None:
    record_a_run(ledger)
    small, large, draft = ledger.runs.summary(RUN.id)
    assert (small.prompt_tokens, small.cached_tokens, small.completion_tokens) == (
        5 * 700,
        5 * 20,
        5 * 50,
    )
    assert (large.prompt_tokens, large.cached_tokens, large.completion_tokens) == (
        1000,
        400,
        10,
    )
    # of 1, 2, 3, 4, 5, 9
    assert (small.latency_p50_s, small.latency_p95_s) == (3.0, 9.0)
    assert (large.latency_p50_s, large.latency_p95_s) == (6.0, 120.0)
    assert (draft.latency_p50_s, draft.latency_p95_s) == (0.25, 0.25)


def test_a_model_whose_replies_were_all_reused_has_no_latency(ledger: Ledger) -> None:
    ledger.start_run(RUN)
    record(
        ledger,
        RUN.id,
        "a",
        "draft",
        {"reused": True, "cost": Decimal(0)},
        **accepted("small"),
    )
    (row,) = ledger.runs.summary(RUN.id)
    assert (row.latency_p50_s, row.latency_p95_s, row.prompt_tokens, row.cost) == (
        None,
        None,
        0,
        Decimal(0),
    )


def test_an_outcome_taken_over_without_an_attempt_is_no_answer_of_this_run(
    ledger: Ledger,
) -> None:
    """A retry keeps accepted outcomes of an earlier run; the model was not asked for them here."""
    ledger.start_run(RUN)
    record(ledger, RUN.id, "a", "draft", SMALL, **accepted("small"))
    record(ledger, RUN.id, "b", "draft", **accepted("small"))
    (row,) = ledger.runs.summary(RUN.id)
    assert (row.documents, row.accepted) == (1, 1)


def test_an_escalation_leaves_the_model_before_it_and_a_fallback_is_none(
    ledger: Ledger,
) -> None:
    """Three models in a row: the first fails on the provider's side, the second by its verdict."""
    ledger.start_run(RUN)
    down, weak = (
        {"model": "down", "error": "Overloaded"},
        {"model": "weak", "kind": "fallback"},
    )
    strong = {"model": "strong", "kind": "escalation"}
    record(
        ledger,
        RUN.id,
        "a",
        "draft",
        down,
        weak,
        {**weak, "kind": "repair"},
        strong,
        **accepted("strong"),
    )
    record(ledger, RUN.id, "b", "draft", {"model": "weak"}, **accepted("weak"))
    assert {row.model: row.escalations for row in ledger.runs.summary(RUN.id)} == {
        "down": 0,
        "weak": 1,
        "strong": 0,
    }


def test_a_summary_of_a_run_without_attempts_is_empty(ledger: Ledger) -> None:
    ledger.start_run(RUN)
    assert ledger.runs.summary(RUN.id) == []
    assert ledger.runs.outcome_counts(RUN.id) == {}
    assert ledger.runs.deferred(RUN.id) == []
    row = ledger.runs.resolve("latest")
    assert (row.documents, row.attempts, row.cost, row.state, row.finished_at) == (
        0,
        0,
        Decimal(0),
        "running",
        None,
    )


def test_a_runs_row_counts_documents_attempts_and_money(ledger: Ledger) -> None:
    record_a_run(ledger)
    row = ledger.runs.resolve("latest")
    assert (row.id, row.flow, row.flow_run_name, row.state) == (
        RUN.id,
        RUN.flow,
        "brave-otter",
        "completed",
    )
    assert (row.documents, row.accepted, row.deferred) == (5, 4, 1)
    assert (row.attempts, row.reused) == (11, 1)
    assert (row.cost, row.cost_known, row.cost_unknown) == (None, 7 * CENT, 2)
    assert (row.budget_usd, row.parameters, row.started_at) == (
        Decimal("0.5"),
        {"source": "inbox"},
        RUN.started_at,
    )
    assert row.finished_at is not None


def test_a_summarys_costs_add_up_to_the_runs(ledger: Ledger) -> None:
    record_a_run(ledger)
    row, summary = ledger.runs.resolve(RUN.id), ledger.runs.summary(RUN.id)
    assert sum(part.cost_known for part in summary) == row.cost_known
    assert sum(part.attempts for part in summary) == row.attempts


def test_runs_come_newest_first_and_keep_their_numbers_apart(ledger: Ledger) -> None:
    record_a_run(ledger)
    for number in range(3):
        ledger.start_run(
            replace(RUN, id=f"later-{number}", started_at=RUN.started_at + 1 + number)
        )
    record(ledger, "later-1", "z", "draft", {}, **accepted("small"))
    rows = ledger.runs.newest()
    assert [row.id for row in rows] == ["later-2", "later-1", "later-0", RUN.id]
    assert [row.attempts for row in rows] == [0, 1, 0, 11]
    assert [row.id for row in ledger.runs.newest(limit=2)] == ["later-2", "later-1"]


def test_a_run_is_found_by_the_beginning_of_its_id(ledger: Ledger) -> None:
    for number, name in enumerate(["4f1a", "4f1a-2", "9c%d"]):
        ledger.start_run(replace(RUN, id=name, started_at=RUN.started_at + number))
    assert ledger.runs.resolve("9").id == "9c%d"
    assert ledger.runs.resolve("4f1a").id == "4f1a"  # an exact id needs no more
    assert ledger.runs.resolve("latest").id == "9c%d"
    with pytest.raises(
        Misuse, match="fits several runs: 4f1a-2, 4f1a; give more of the id"
    ):
        ledger.runs.resolve("4f")
    with pytest.raises(UnknownName, match="no run named '%'"):
        ledger.runs.resolve("%")
    with pytest.raises(UnknownName, match="did you mean '4f1a-2'"):
        ledger.runs.resolve("4f1b-2")


def test_the_latest_of_no_runs_is_an_error_with_the_remedy(ledger: Ledger) -> None:
    with pytest.raises(Misuse, match="no runs yet; run a flow first"):
        ledger.runs.resolve("latest")


def test_outcomes_are_counted_by_step_and_status(ledger: Ledger) -> None:
    record_a_run(ledger)
    counts = ledger.runs.outcome_counts(RUN.id)
    assert counts == {
        "summarize": {"accepted": 4, "deferred": 1},
        "draft": {"accepted": 1, "skipped": 2},
    }
    assert list(counts) == ["summarize", "draft"]


def test_the_deferred_documents_come_with_their_reasons(ledger: Ledger) -> None:
    record_a_run(ledger)
    assert ledger.runs.deferred(RUN.id) == [
        DeferredRow(
            document_id="e",
            step="summarize",
            reason="no acceptable model left",
            cause=None,
            model=None,
            sensitivity="confidential",
        )
    ]


@pytest.mark.parametrize(
    ("document_id", "step", "status", "found"),
    [
        (None, None, None, ["a", "a", "b", "b", "c", "d", "e", "e"]),
        ("a", None, None, ["a", "a"]),
        (None, "draft", None, ["a", "b", "e"]),
        (None, None, "skipped", ["b", "e"]),
        ("c", "draft", None, []),
    ],
)
def test_outcomes_are_found_by_document_step_and_status(
    ledger: Ledger,
    document_id: str | None,
    step: str | None,
    status: Status | None,
    found: list[str],
) -> None:
    record_a_run(ledger)
    assert [
        row.document_id
        for row in ledger.runs.outcomes(RUN.id, document_id, step, status)
    ] == found


def test_attempts_come_in_order_with_their_verdicts(ledger: Ledger) -> None:
    record_a_run(ledger)
    tried = list(ledger.runs.attempts(RUN.id, "d"))
    assert [(a.model, a.kind, a.verdicts) for a in tried] == [
        ("small", "first", (TOO_LONG, NOT_QUOTED)),
        ("large", "escalation", (PASSED,)),
    ]
    assert [a.document_id for a in ledger.runs.attempts(RUN.id, step="draft")] == ["a"]
    assert list(ledger.runs.attempts("another-run")) == []


def test_more_attempts_than_are_fetched_at_once_all_come(ledger: Ledger) -> None:
    """In order, none twice, and each with its own verdicts."""
    ledger.start_run(RUN)
    verdicts = (
        Verdict("one", True),
        Verdict("two", False, "no"),
        Verdict("three", None),
    )
    made = [
        attempt(id=f"{number:04}", verdicts=verdicts[: number % 4])
        for number in range(1100)
    ]

    async def story() -> None:
        await asyncio.gather(*(ledger.settle(RUN.id, one, None) for one in made))

    run(story())
    assert list(ledger.runs.attempts(RUN.id)) == made


def test_a_reader_that_stops_early_does_not_block_the_writer(ledger: Ledger) -> None:
    record_a_run(ledger)
    reading = ledger.runs.attempts(RUN.id)
    first = next(reading)
    record(ledger, RUN.id, "f", "draft", {}, **accepted("small"))
    assert first.document_id == "a"
    # it sees the ledger as it was when it began
    assert "f" not in {a.document_id for a in reading}
