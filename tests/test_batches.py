"""The batch lane: documents wait for provider batches, and all else is as with calls online."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from tests.kit.batch_kills import Moment, killed_once
from tests.kit.batch_runs import (
    answer,
    batch_project,
    letters,
    micros,
    opened,
    priced,
    two_steps,
)
from tests.kit.batch_standin import BatchStandin, StandinPrice
from tests.kit.standin import Request
from tierwise.records import Batch


@pytest.fixture
def provider() -> Iterator[BatchStandin]:
    """The stand-in of batch APIs, with prices and answers."""
    with BatchStandin() as standin:
        yield priced(standin)


@pytest.fixture
def root(provider: BatchStandin, tmp_path: Path) -> Path:
    """A project whose models have batches."""
    return batch_project(tmp_path / "project", provider.url)


def test_ten_documents_go_through_two_steps_in_two_batches_at_half_the_price(
    provider: BatchStandin, root: Path
) -> None:
    with opened(root) as engine:
        run = engine.start_run("letters", transport="batch")
        done = two_steps(engine, run, letters(10))
        engine.finish_run(run, "completed")
        assert [document.outcomes["summarize"].status for document in done] == [
            "accepted"
        ] * 10
        assert len(provider.batches) == 2
        assert set(provider.billed_items().values()) == {1}
        assert micros(engine) == provider.billed
        batched = provider.billed
        attempts = list(engine.ledger.runs.attempts(run.id))
        assert {attempt.transport for attempt in attempts} == {"batch"}
        assert engine.ledger.batches.open_batches() == []
        assert engine.ledger.seals.is_sound(run.id)
    other = batch_project(root.parent / "other", provider.url)
    with opened(other) as engine:
        run = engine.start_run("letters", transport="online")
        online = two_steps(engine, run, letters(10))
    assert [d.value("summarize") for d in online] == [
        d.value("summarize") for d in done
    ]
    assert provider.billed == 3 * batched
    assert Decimal(0) < batched


def test_escalations_repairs_and_caches_cost_about_half_and_answer_the_same(
    provider: BatchStandin, tmp_path: Path
) -> None:
    """Each joins a later batch; the ledger's sum is the invoice, cached tokens included."""
    provider.caches_prefixes = True
    write = StandinPrice(input=1, output=2, cached=0.1, cache_write=1.25)
    price = "{input: 1, output: 2, cached_input: 0.1, cache_write: 1.25, "
    price += "source: test, date: 2026-11-01}"
    for name in ("small", "large"):
        provider.prices[name] = write

    def answer_of_many(request: Request) -> str:
        """One in five fails its check on the small model, one in twenty is malformed at first."""
        messages = request.body["messages"]
        is_first = len(messages) == 2
        asked = replace(request, body={**request.body, "messages": messages[:2]})
        number = int(asked.document.split()[3])
        if "label" in ((request.schema or {}).get("properties") or {}):
            if number % 5 == 0 and request.model == "small":
                return json.dumps({"evidence": "invented", "label": "billing"})
            if number % 20 == 1 and is_first:
                return "no JSON"
        return answer(asked)

    provider.answer(answer_of_many)
    results = {}
    bills = {}
    for transport in ("online", "batch"):
        root = batch_project(tmp_path / transport, provider.url, price=price)
        provider._prefixes.clear()
        before = provider.billed
        with opened(root) as engine:
            run = engine.start_run("letters", transport=transport)
            done = two_steps(engine, run, letters(40))
            engine.finish_run(run, "completed")
            bills[transport] = provider.billed - before
            assert micros(engine) == bills[transport]
            kinds = Counter(a.kind for a in engine.ledger.runs.attempts(run.id))
            out = engine.write_documents([Batch(done)], Path("out"), keep=False)
        results[transport] = {
            path.name: path.read_bytes()
            for path in out.parent.iterdir()
            if path.name != "outcomes.jsonl"
        }
        assert (kinds["escalation"], kinds["repair"]) == (8, 2)
    assert results["batch"] == results["online"]
    assert bills["batch"] <= Decimal("0.52") * bills["online"]


def test_a_plan_knows_the_latency_of_calls_online_alone(
    provider: BatchStandin, root: Path
) -> None:
    with opened(root) as engine:
        run = engine.start_run("letters", transport="batch")
        two_steps(engine, run, letters(2))
        engine.finish_run(run, "completed")
        past = engine.ledger.history.past()
        assert {each.latency_s for each in past.values()} == {None}
        rows = engine.ledger.runs.summary(run.id)
        assert {row.latency_p50_s for row in rows} == {None}


@pytest.mark.parametrize(
    "moment",
    # The upload of the first batch, the request that makes it, and its results.
    [Moment(0.0, 1), Moment(0.0, 2), Moment(0.02, 4)],
    ids=str,
)
def test_a_job_that_is_killed_pays_each_item_once(
    moment: Moment, database: str, tmp_path: Path
) -> None:
    report = killed_once(database, tmp_path, documents=4, moment=moment)
    assert report.was_alive
    assert report.again <= report.under_way
    assert report.same_results
    assert report.same_sum
