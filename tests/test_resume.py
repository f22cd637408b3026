"""Detached runs: they end while calls are in batches, and go on under their own id."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.projects import make_project, model
from tests.kit.standin import Standin
from tests.kit.steps import CLASSIFY, GOOD, LABELS, TEXT
from tierwise.cascade.routing import waiting_outcome
from tierwise.cli.run_options import given_options, with_options
from tierwise.documents.writing import write_documents
from tierwise.engine import Engine, RunOptions
from tierwise.errors import Misuse
from tierwise.orchestrate.run_options import recorded_parameters, split_options
from tierwise.project import Project
from tierwise.records import Batch, Document
from tierwise.report import summarize_run

DOCUMENT = Document(id="one", text=TEXT, sensitivity="internal")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Standin() as provider:
        provider.answer(GOOD)
        root = make_project(
            tmp_path, model("small", provider.url), model("large", provider.url)
        )
        with Engine(Project(root)) as engine:
            yield engine


def waits(engine: Engine, run: Any, document: Document) -> Document:
    """The document with an outcome of CLASSIFY that waits for a batch, on record."""
    job = engine.job(run, CLASSIFY, LABELS)
    outcome = waiting_outcome(job, document, "in batch b1")
    engine.record(run, document, outcome)
    return document.with_outcome(outcome)


# ---- the run


def test_a_detached_run_goes_on_under_its_own_id_budget_and_tags(
    engine: Engine,
) -> None:
    first = engine.start_run(
        "inbox",
        budget_usd=Decimal("0.5"),
        parameters={"source": "in"},
        tags={"team": "claims"},
        detached=True,
    )
    waits(engine, first, DOCUMENT)
    engine.finish_run(first, "detached")

    row = engine.ledger.runs.resolve(first.id)
    assert (row.state, row.documents, row.in_batches) == ("detached", 1, 1)
    assert engine.ledger.detached.ids() == [first.id]
    assert engine.ledger.detached.ids("another") == []
    assert engine.ledger.detached.same("inbox", {"source": "in"}) == first.id
    assert engine.ledger.detached.same("inbox", {"source": "out"}) is None
    summary = summarize_run(engine.ledger.runs, first.id)
    assert summary.exit_code == 3
    assert summary.outcomes == {"classify": {"waiting": 1}}

    second = engine.start_run("inbox", continues=first.id, flow_run_id="flow-2")
    assert second.id == first.id
    assert [limit.usd for limit in second.budget.limits] == [Decimal("0.5")]
    done = engine.run_batch(second, CLASSIFY, Batch((DOCUMENT,)), LABELS)
    [outcome] = [each.outcomes["classify"] for each in done.load()]
    assert outcome.status == "accepted", outcome.reason
    engine.finish_run(second, "completed")

    row = engine.ledger.runs.resolve(first.id)
    assert (row.state, row.documents, row.accepted) == ("completed", 1, 1)
    assert (row.in_batches, row.tags, row.flow_run_id) == (
        0,
        {"team": "claims"},
        "flow-2",
    )
    assert summarize_run(engine.ledger.runs, first.id).exit_code == 0


def test_only_a_run_that_has_not_ended_is_resumed(engine: Engine) -> None:
    complete = engine.start_run("inbox")
    engine.finish_run(complete, "completed")
    under_way = engine.start_run("inbox")
    for run in (complete, under_way):
        with pytest.raises(Misuse):
            engine.start_run("inbox", continues=run.id)
    engine.finish_run(under_way, "cancelled")
    # Its records are sealed: the audit would call what is added to them a change.
    with pytest.raises(Misuse):
        engine.start_run("inbox", continues=under_way.id)
    assert engine.ledger.seals.is_sound(under_way.id)
    detached = engine.start_run("inbox", detached=True)
    engine.finish_run(detached, "detached")
    again = engine.start_run("inbox", continues=detached.id)
    # One process resumes a run, and not two.
    with pytest.raises(Misuse):
        engine.start_run("inbox", continues=detached.id)
    engine.finish_run(again, "completed")
    assert engine.ledger.seals.is_sound(detached.id)


# ---- a document that waits


def test_later_steps_pass_on_what_waits_and_no_result_is_written(
    engine: Engine, tmp_path: Path
) -> None:
    run = engine.start_run("inbox", detached=True)
    document = waits(engine, run, DOCUMENT)
    later = CLASSIFY.__class__(
        name="later", returns=CLASSIFY.returns, prompt="classify"
    )
    done = engine.run_batch(run, later, Batch((document,)), LABELS)
    [passed_on] = done.load()
    assert passed_on.outcomes["later"].status == "waiting"
    assert passed_on.outcomes["later"].cause == "batch"
    engine.finish_run(run, "detached")
    assert engine.ledger.runs.resolve(run.id).in_batches == 1

    lines = write_documents([done], tmp_path / "out")
    assert '"waiting"' in lines.read_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["outcomes.jsonl"]


# ---- what is said on the command line


def test_options_of_a_command_are_on_record_and_come_back() -> None:
    options = given_options("6h", "batch", detach=True)
    assert options == RunOptions(timedelta(hours=6), "batch", detach=True)
    on_record = recorded_parameters({"source": Path("in")}, options)
    assert split_options(on_record, {"source": None}) == ({"source": "in"}, options)
    # A flow's own parameter of the name stays one.
    own, others = split_options(on_record, {"source": None, "within": None})
    assert own["within"] == "PT21600S"
    assert others.within is None
    assert with_options({"within": None}, options) == {"within": timedelta(hours=6)}
    assert recorded_parameters({}, RunOptions()) == {}


@pytest.mark.parametrize(
    ("within", "transport"),
    [("6", None), ("soon", None), ("0 s", None), (None, "post")],
)
def test_a_time_or_transport_that_is_none_is_refused(
    within: str | None, transport: str | None
) -> None:
    with pytest.raises(Misuse):
        given_options(within, transport)


def test_the_time_of_a_run_does_not_begin_anew_when_it_goes_on(engine: Engine) -> None:
    first = engine.start_run("inbox", detached=True)
    engine.finish_run(first, "detached")
    began = engine.ledger.runs.resolve(first.id).started_at
    engine.finish_run(engine.start_run("inbox", continues=first.id), "completed")
    assert engine.ledger.runs.resolve(first.id).started_at == began <= time.time()
