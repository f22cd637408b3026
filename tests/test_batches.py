"""The batch lane: documents wait for provider batches, and all else is as with calls online."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.kit.batch_kills import Moment, killed_once
from tests.kit.batch_runs import (
    batch_project,
    letters,
    micros,
    opened,
    priced,
    two_steps,
)
from tests.kit.batch_standin import BatchStandin


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


@pytest.mark.parametrize(
    "moment",
    # The upload of the first batch, the request that makes it, and its results.
    [Moment(0.0, 1), Moment(0.01, 2), Moment(0.02, 4)],
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
