"""Every fault of a provider batch: what becomes of documents, money and the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.batch_runs import batch_project, letters, opened, priced, two_steps
from tests.kit.batch_standin import BatchStandin
from tests.kit.standin import status


@dataclass(frozen=True)
class Case:
    """A fault, and what it leads to with four letters in two steps, which are eight calls."""

    fault: str
    details: dict[str, Any] = field(default_factory=dict)
    online: int = 0  # calls that were made online in the end
    failed: dict[str, int] = field(default_factory=dict)  # attempts by error
    unknown: int = 0  # calls of unknown cost
    deferred: int = 0  # documents that wait for a person


CASES = [
    Case("upload_refused", online=8),
    Case("file_too_large"),
    Case("create_refused", online=8),
    Case("too_many_items"),
    Case("queue_full"),
    Case("create_lost"),
    Case("create_failed"),
    Case("poll", {"fault": status(429, retry_after=1)}),
    Case("poll", {"fault": status(503)}),
    Case("results", {"fault": status(500)}),
    Case("validation_full"),
    Case("lines_invalid", {"lines": (2,)}, online=1),
    Case("all_invalid", online=4),
    Case("failed", failed={"BatchFailed": 4}, unknown=4),
    Case("expired", {"share": 0.5}, failed={"BatchExpired": 2}),
    Case("cancelled", {"share": 0.5}, failed={"BatchCancelled": 2}, deferred=2),
    Case("shuffled"),
    Case("duplicate"),
    Case("unknown_id"),
    Case("results_missing", online=4, failed={"CallLost": 4}, unknown=4),
    Case("results_gone", online=4, failed={"CallLost": 4}, unknown=4),
    Case("truncated", online=2, failed={"CallLost": 2}, unknown=2),
    Case("no_usage", unknown=4),
    Case(
        "left_out",
        {"places": (1,)},
        online=1,
        failed={"BatchItemMissing": 1},
        unknown=1,
    ),
    Case(
        "items",
        {"fault": status(429), "places": (1, 3)},
        failed={"RateLimited": 2},
    ),
    Case(
        "items",
        {"fault": status(500), "places": (2,)},
        failed={"ServerFault": 1},
    ),
]


@pytest.fixture
def provider() -> Iterator[BatchStandin]:
    """The stand-in of batch APIs, with prices and answers."""
    with BatchStandin() as standin:
        yield priced(standin)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fault)
def test_a_fault_costs_no_document_and_no_money_that_is_not_on_record(
    case: Case, provider: BatchStandin, tmp_path: Path
) -> None:
    root = batch_project(tmp_path / "project", provider.url)
    provider.order(case.fault, **case.details)
    with opened(root) as engine:
        run = engine.start_run("letters", transport="batch", budget_usd=Decimal(1))
        done = two_steps(engine, run, letters(4))
        engine.finish_run(run, "completed")
        attempts = list(engine.ledger.runs.attempts(run.id))
        row = engine.ledger.runs.resolve(run.id)
        (budget,) = engine.ledger.budgets.states()
        assert engine.ledger.batches.open_batches() == []
        assert engine.ledger.seals.is_sound(run.id)
    outcomes = [document.outcomes["classify"] for document in done]
    assert Counter(outcome.status for outcome in outcomes) == Counter(
        accepted=4 - case.deferred, deferred=case.deferred
    )
    assert {outcome.cause for outcome in outcomes} <= {None, "setup"}
    assert Counter(a.error for a in attempts if a.error) == Counter(case.failed)
    assert sum(attempt.transport == "online" for attempt in attempts) == case.online
    assert set(provider.billed_items().values()) <= {1}
    assert row.cost_unknown == case.unknown
    assert budget.reserved == 0
    known = row.cost_known * 1_000_000
    if case.unknown:
        # What is unknown counts in full, so the budget is never passed.
        assert known < provider.billed or case.fault in ("failed", "left_out")
        assert budget.spent * 1_000_000 >= provider.billed
    else:
        assert known == provider.billed
        assert budget.spent == row.cost_known


def test_a_batch_of_refused_requests_leaves_each_to_the_next_model(
    provider: BatchStandin, tmp_path: Path
) -> None:
    """An item's own error is decided as that of an online call."""
    root = batch_project(tmp_path / "project", provider.url)
    provider.order("errors_only")
    with opened(root) as engine:
        run = engine.start_run("letters", transport="batch")
        done = two_steps(engine, run, letters(2))
        attempts = list(engine.ledger.runs.attempts(run.id))
    assert {document.outcomes["classify"].model for document in done} == {"large"}
    assert {attempt.transport for attempt in attempts} == {"batch"}
    assert Counter(a.error for a in attempts if a.error) == {"BadRequest": 2}


def test_a_key_that_is_revoked_while_waiting_stops_the_model_and_loses_nothing(
    provider: BatchStandin, tmp_path: Path
) -> None:
    rules = "{version: 1, routes: [{name: default, try: [small]}]}"
    root = batch_project(tmp_path / "project", provider.url, rules=rules)
    provider.order("poll", fault=status(401, type="invalid_api_key"))
    provider.turnaround_s = 36_000.0
    with opened(root) as engine:
        run = engine.start_run("letters", transport="batch", budget_usd=Decimal(1))
        done = two_steps(engine, run, letters(2))
        assert {document.outcomes["classify"].cause for document in done} == {"setup"}
        assert len(engine.ledger.batches.open_batches()) == 1
        engine.finish_run(run, "waiting")
    provider.finish()
    provider.turnaround_s = 0.0
    with opened(root) as engine:
        run = engine.start_run("letters", transport="batch", budget_usd=Decimal(1))
        done = two_steps(engine, run, letters(2))
        assert {d.outcomes["summarize"].status for d in done} == {"accepted"}
        assert set(provider.billed_items().values()) == {1}


def test_a_provider_whose_clock_is_wrong_changes_nothing(
    provider: BatchStandin, tmp_path: Path
) -> None:
    root = batch_project(tmp_path / "project", provider.url)
    provider.clock.advance(-7200)
    with opened(root) as engine:
        run = engine.start_run("letters", transport="batch")
        done = two_steps(engine, run, letters(2))
        assert {d.outcomes["summarize"].status for d in done} == {"accepted"}
        assert all(
            taken < 600 for taken in engine.ledger.batches.seconds_taken("small")
        )
