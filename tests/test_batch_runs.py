"""Runs in batches: deadlines, budgets, confidential documents, detached runs, several processes."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.batch_runs import (
    answer,
    batch_project,
    letters,
    micros,
    opened,
    priced,
    two_steps,
)
from tests.kit.batch_standin import BatchStandin
from tests.kit.ledgers import migrated_url
from tests.kit.projects import PRICE
from tests.kit.standin import Fault, Request, status
from tests.kit.steps import CLASSIFY, LABELS
from tierwise.cascade import attempts
from tierwise.engine import Engine
from tierwise.errors import GuardViolation, RunStopped
from tierwise.records import Batch, Document, Sensitivity

DAY_S = 86_400.0


@pytest.fixture
def provider() -> Iterator[BatchStandin]:
    """The stand-in of batch APIs, with prices and answers."""
    with BatchStandin() as standin:
        yield priced(standin)


@pytest.fixture
def root(provider: BatchStandin, tmp_path: Path) -> Path:
    """A project whose models have batches."""
    return batch_project(tmp_path / "project", provider.url)


def classified(engine: Engine, run: Any, documents: tuple[Document, ...]) -> list[str]:
    """The status of each document in CLASSIFY."""
    done = engine.run_batch(run, CLASSIFY, Batch(documents), LABELS)
    return [document.outcomes["classify"].status for document in done.load()]


def until(condition: Any) -> None:
    """Return once a condition is true."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it never came true")


# ---- a deadline in danger


def test_a_deadline_in_danger_moves_what_is_missing_online_and_pays_it_once(
    provider: BatchStandin, root: Path
) -> None:
    """The provider cancels: it has answered some by then, and bills those alone."""
    provider.turnaround_s = DAY_S
    with opened(root) as engine:
        run = engine.start_run(
            "letters",
            transport="batch",
            deadline=time.time() + 62,
            budget_usd=Decimal(1),
        )
        assert classified(engine, run, letters(4)) == ["accepted"] * 4
        assert time.time() < (run.deadline or 0)
        engine.finish_run(run, "completed")
        sent = list(engine.ledger.runs.attempts(run.id))
        assert {attempt.transport for attempt in sent} == {"online"}
        assert micros(engine) == provider.billed
        (budget,) = engine.ledger.budgets.states()
        assert (budget.reserved, budget.spent) == (0, run.budget.spent)
        assert engine.ledger.batches.open_batches() == []


def test_the_more_calls_wait_the_earlier_they_go_online(
    provider: BatchStandin, tmp_path: Path
) -> None:
    """One call at a time: thirty take minutes, so that a minute before the deadline is too late."""
    one_at_once = f"{PRICE}\n    concurrency: 1"
    root = batch_project(tmp_path / "project", provider.url, price=one_at_once)
    provider.turnaround_s = DAY_S
    with opened(root) as engine:
        run = engine.start_run("letters", transport="batch", deadline=time.time() + 302)
        assert classified(engine, run, letters(30)) == ["accepted"] * 30
        sent = list(engine.ledger.runs.attempts(run.id))
        assert {attempt.transport for attempt in sent} == {"online"}
        assert micros(engine) == provider.billed


def test_a_late_answer_is_recorded_as_cost_and_used_by_nobody(
    provider: BatchStandin, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "cancel", lambda _: None)  # it goes on
    provider.turnaround_s = DAY_S
    with opened(root) as engine:
        run = engine.start_run(
            "letters",
            transport="batch",
            deadline=time.time() + 62,
            budget_usd=Decimal(1),
        )
        assert classified(engine, run, letters(3)) == ["accepted"] * 3
        engine.finish_run(run, "completed")
        (row,) = engine.ledger.batches.open_batches()
        assert row.open == 3
        (budget,) = engine.ledger.budgets.states()
        assert budget.reserved > 0  # it may still be billed
    provider.finish()
    with opened(root) as engine:
        later = engine.start_run("other")
        until(lambda: not engine.ledger.batches.open_batches())
        engine.finish_run(later, "completed")
        late = list(engine.ledger.runs.attempts(later.id))
        assert [attempt.error for attempt in late] == ["AnsweredLate"] * 3
        assert micros(engine) == provider.billed
        (budget,) = engine.ledger.budgets.states()
        assert (budget.reserved, budget.spent * 1_000_000) == (0, provider.billed)
        assert engine.ledger.seals.is_sound(run.id)
        # What the document's answer is stays as it was.
        again = engine.start_run("letters", transport="batch")
        assert classified(engine, again, letters(3)) == ["accepted"] * 3
        reused = engine.ledger.runs.attempts(again.id)
        assert {attempt.reused for attempt in reused} == {True}


# ---- money


def test_two_runs_on_one_budget_online_and_in_batches_never_pass_it(
    provider: BatchStandin, root: Path
) -> None:
    limit = Decimal("0.012")
    with opened(root) as engine, ThreadPoolExecutor(2) as pool:
        runs = [
            engine.start_run(
                "letters",
                transport=transport,
                budget_usd=limit,
                budget_name="shared",
            )
            for transport in ("batch", "online")
        ]
        works = [
            pool.submit(classified, engine, run, letters(40, name=run.id))
            for run in runs
        ]
        statuses = Counter(status for work in works for status in work.result())
        for run in runs:
            engine.finish_run(run, "completed")
        for change in engine.ledger.budgets.history("shared"):
            assert change.spent + change.reserved <= limit
        (budget,) = engine.ledger.budgets.states()
        assert budget.reserved == 0
        assert budget.spent * 1_000_000 == provider.billed == micros(engine)
    assert statuses["deferred"]
    assert statuses["accepted"]
    assert provider.batches


# ---- guards


@pytest.mark.parametrize("seed", range(3))
def test_confidential_documents_are_in_no_batch_of_a_provider(
    seed: int, provider: BatchStandin, tmp_path: Path
) -> None:
    chosen = random.Random(seed)
    rules = """
    version: 1
    guards:
      - {name: stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
      - {name: stays-online, when: {sensitivity_min: internal}, allow_transports: [online]}
    routes: [{name: default, try: [small, large, house]}]
    """
    root = batch_project(tmp_path / "project", provider.url, rules=rules)
    levels: list[Sensitivity] = ["public", "internal", "confidential", "restricted"]
    documents: list[Document] = []
    for place in range(12):
        level = chosen.choice(levels)
        documents += letters(1, level, name=f"{level}-{place}")

    def answer_or_fail(request: Request) -> str:
        """Some answers fail their check, so that documents escalate to other models."""
        if chosen.random() < 0.3:
            return json.dumps({"evidence": "invented", "label": "billing"})
        return answer(request)

    provider.answer(answer_or_fail)
    with opened(root) as engine:
        run = engine.start_run("letters", transport="batch")
        two_steps(engine, run, tuple(documents))
        sent = list(engine.ledger.runs.attempts(run.id))
    in_batches = [
        json.dumps(item.body)
        for batch in provider.batches.values()
        for item in batch.items
    ]
    for level in levels[1:]:
        assert not any(f"of {level}-" in body for body in in_batches)
    for attempt in sent:
        if attempt.document_id.startswith(("confidential", "restricted")):
            assert attempt.tier == "local"


def test_a_guard_is_asked_again_just_before_the_upload(
    provider: BatchStandin, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "batch_refusal", lambda *_: "guard late: no")
    with opened(root) as engine:
        run = engine.start_run("letters", transport="batch", budget_usd=Decimal(1))
        with pytest.raises(GuardViolation):
            classified(engine, run, letters(2))
        assert provider.batches == {}
        # The first one ends the run; the other's claim is given up at the same time.
        until(lambda: engine.ledger.budgets.states()[0].reserved == 0)
        assert engine.ledger.budgets.states()[0].spent == 0


# ---- the process ends


def test_a_detached_run_pays_each_call_once_under_its_own_id(
    provider: BatchStandin, tmp_path: Path, database: str
) -> None:
    root = batch_project(
        tmp_path / "project", provider.url, ledger=migrated_url(database, tmp_path)
    )
    provider.turnaround_s = DAY_S
    run_id = None
    statuses = []
    for _ in range(3):
        with opened(root) as engine:
            run = engine.start_run(
                "letters",
                transport="batch",
                detached=True,
                continues=run_id,
                budget_usd=Decimal(1),
            )
            run_id = run.id
            done = two_steps(engine, run, letters(5))
            statuses.append(
                {name: outcome.status for name, outcome in done[0].outcomes.items()}
            )
            is_done = statuses[-1]["summarize"] == "accepted"
            engine.finish_run(run, "completed" if is_done else "detached")
            if is_done:
                assert engine.ledger.seals.is_sound(run.id)
                assert micros(engine, run.id) == provider.billed
                sent = list(engine.ledger.runs.attempts(run.id))
                assert not any(attempt.reused for attempt in sent)
                (budget,) = engine.ledger.budgets.states()
                assert budget.reserved == 0
        provider.finish()
    assert statuses == [
        {"classify": "waiting", "summarize": "waiting"},
        {"classify": "accepted", "summarize": "waiting"},
        {"classify": "accepted", "summarize": "accepted"},
    ]
    assert len(provider.batches) == 2
    assert set(provider.billed_items().values()) == {1}


def test_a_stopped_run_leaves_its_batch_and_the_next_one_uses_it(
    provider: BatchStandin, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provider.turnaround_s = DAY_S
    with opened(root) as engine, ThreadPoolExecutor(1) as pool:
        run = engine.start_run("letters", transport="batch")
        work = pool.submit(classified, engine, run, letters(3))
        until(lambda: engine.ledger.batches.open_batches()[:1])
        until(lambda: engine.ledger.batches.open_batches()[0].submitted_at)
        engine.stop_run(run)
        with pytest.raises(RunStopped):
            work.result()
        engine.finish_run(run, "cancelled")
        assert engine.ledger.runs.resolve(run.id).cost == 0
    provider.finish()
    provider.turnaround_s = 0.0
    with opened(root) as engine:
        again = engine.start_run("letters", transport="online")
        with caplog.at_level("WARNING", logger="tierwise"):
            assert classified(engine, again, letters(3)) == ["accepted"] * 3
        # The run goes online, and says once that its calls are in a batch.
        [batch_id] = {row.id for row in engine.ledger.batches.newest(10)}
        said = [record for record in caplog.records if batch_id in record.getMessage()]
        assert len(said) == 1
        engine.finish_run(again, "completed")
        assert micros(engine, again.id) == provider.billed
        assert all(engine.ledger.seals.is_sound(each.id) for each in (run, again))
    assert len(provider.batches) == 1


def test_two_processes_with_the_same_documents_pay_them_once(
    provider: BatchStandin, root: Path
) -> None:
    provider.turnaround_s = 60.0
    provider.clock.run_at(60)
    barrier = threading.Barrier(2)

    def work(_: int) -> tuple[str, list[str]]:
        with opened(root) as engine:
            run = engine.start_run("letters", transport="batch")
            barrier.wait(20)
            statuses = classified(engine, run, letters(6))
            engine.finish_run(run, "completed")
            return run.id, statuses

    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(work, range(2)))
    assert [statuses for _, statuses in done] == [["accepted"] * 6] * 2
    assert set(provider.billed_items().values()) == {1}
    with opened(root) as engine:
        assert micros(engine) == provider.billed


def test_an_item_that_failed_is_not_asked_again_by_each_start(
    provider: BatchStandin, root: Path
) -> None:
    """The provider refuses one request of the small model for good: it escalates once."""

    def refused_once(request: Request) -> str | Fault:
        if "number 1 of" in request.document and request.model == "small":
            return status(400, "ordered fault")
        return answer(request)

    provider.answer(refused_once)
    provider.turnaround_s = DAY_S
    run_id = None
    for _ in range(4):
        with opened(root) as engine:
            run = engine.start_run(
                "letters",
                transport="batch",
                detached=True,
                continues=run_id,
                budget_usd=Decimal(1),
            )
            run_id = run.id
            statuses = classified(engine, run, letters(3))
            is_done = "waiting" not in statuses
            engine.finish_run(run, "completed" if is_done else "detached")
            if is_done:
                break
        provider.finish()
    assert statuses == ["accepted"] * 3
    with opened(root) as engine:
        sent = Counter(
            (attempt.model, attempt.kind, attempt.error)
            for attempt in engine.ledger.runs.attempts(run.id)
        )
        assert sent == {
            ("small", "first", None): 2,
            ("small", "first", "BadRequest"): 1,
            ("large", "fallback", None): 1,
        }
        assert micros(engine, run.id) == provider.billed
    assert [len(batch.items) for batch in provider.batches.values()] == [3, 1]
