"""Outcomes by field on record, from a flow to a person and back, on both databases."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kit.batch_runs import batch_project, opened, priced
from tests.kit.batch_standin import BatchStandin
from tests.kit.by_field import (
    ALL_RIGHT,
    RECEIPT,
    RIGHT,
    answer,
    asked_of,
    described_in,
    extract,
)
from tests.kit.desk import desk_at
from tests.kit.ledgers import DATABASES, migrated_url
from tests.kit.projects import ROOT, make_project, model
from tests.kit.standin import Fault, Request, Standin
from tests.kit.terminal import Terminal
from tests.test_desk_review import form_of, send
from tierwise.audit.verify import verify_ledger
from tierwise.cascade.known_outcomes import Retry
from tierwise.engine import Engine
from tierwise.errors import Misuse
from tierwise.export.answers import (
    ExportFilter,
    Judgements,
    choose_answers,
    read_answers,
)
from tierwise.project import Project
from tierwise.records import FieldSource, Outcome
from tierwise.review.queue import approve, edit, find_item, reopen, send_again

TOTAL = {"total": RIGHT["total"]}


@pytest.fixture
def small() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(answer("company", "day", wrong=("total",)))
        yield server


@pytest.fixture
def large() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(answer(wrong=("total",)))
        yield server


@pytest.fixture(params=DATABASES)
def project(
    request: pytest.FixtureRequest, tmp_path: Path, small: Standin, large: Standin
) -> Path:
    """A project whose models agree that the total is hard."""
    root = make_project(
        tmp_path, model("small", small.url), model("large", large.url, strength=20)
    )
    (root / "pyproject.toml").write_text(
        f'[tool.tierwise]\nledger_url = "{migrated_url(request.param, tmp_path)}"\n'
    )
    (root / "inbox").mkdir()
    (root / "inbox" / RECEIPT.id).write_text(RECEIPT.text)
    return root


def run(project: Path, retry: Retry | None = None) -> tuple[str, Outcome]:
    """A run over the receipt: its id, and the outcome."""
    with Engine(Project(project), env={}) as engine:
        engine.retry = retry
        context = engine.start_run("receipts", parameters={"source": "inbox"})
        outcome = extract(engine, run=context)
        engine.finish_run(context, "completed")
        return context.id, outcome


def on_record(project: Path, run_id: str) -> Outcome:
    with Engine(Project(project), env={}) as engine:
        return find_item(engine.ledger, run_id, RECEIPT.id).outcome


def sources(outcome: Outcome) -> dict[str, str]:
    return {name: source.model for name, source in outcome.sources.items()}


def test_a_person_fills_in_the_open_field_alone(
    project: Path, terminal: Terminal, large: Standin
) -> None:
    run_id, outcome = run(project)
    recorded = on_record(project, run_id)
    assert recorded.sources == outcome.sources
    assert recorded.open_fields == ("total",)
    assert recorded.attempts[0].verdicts == outcome.attempts[0].verdicts
    assert recorded.attempts[1].verdicts == outcome.attempts[1].verdicts

    [listed] = json.loads(terminal("review", "--json", cwd=project).out)
    assert listed["open_fields"] == ["total"]
    assert listed["sources"] == {
        "company": {"model": "small"},
        "day": {"model": "small"},
    }
    shown = terminal("review", run_id, RECEIPT.id, cwd=project).out
    assert "open fields" in shown
    assert "small: company, day" in shown
    explained = terminal("explain", RECEIPT.id, "--run", run_id, cwd=project).out
    assert "company from small" in explained

    mine = json.dumps(TOTAL)
    done = terminal(
        *("review", run_id, RECEIPT.id, "--edit", mine, "--by", "ada"), cwd=project
    )
    assert done.code == 0, done.err
    decided = on_record(project, run_id)
    assert (decided.status, decided.value) == ("accepted", RIGHT)
    assert decided.open_fields == ()
    assert sources(decided) == {"company": "small", "day": "small", "total": "ada"}
    assert decided.sources["total"].is_reviewer
    assert not decided.sources["day"].is_reviewer
    shown = json.loads(terminal("show", run_id, "-d", "--json", cwd=project).out)
    assert shown["documents"][0]["model"] == "small: company, day; ada: total"

    # The next run asks no model, and knows who gave what.
    calls = large.count
    _, again = run(project)
    assert again.value == RIGHT
    assert again.sources == decided.sources
    assert large.count == calls
    with Engine(Project(project), env={}) as engine:
        assert not verify_ledger(engine.ledger.seals).faults


def test_a_person_may_change_a_kept_field_and_take_it_back(project: Path) -> None:
    run_id, _ = run(project)
    with Engine(Project(project), env={}) as engine:
        item = find_item(engine.ledger, run_id, RECEIPT.id)
        other = {"quote": "12 March 2026", "value": "12 March"}
        with pytest.raises(Misuse):
            edit(engine.ledger, item, json.dumps({"day": other}), by="ada")
        edit(engine.ledger, item, json.dumps({**TOTAL, "day": other}), by="ada")
        item = find_item(engine.ledger, run_id, RECEIPT.id)
        assert item.outcome.value["day"] == other
        assert sources(item.outcome) == {
            "company": "small",
            "day": "ada",
            "total": "ada",
        }
        reopen(engine.ledger, item, by="ada")
        item = find_item(engine.ledger, run_id, RECEIPT.id)
        assert item.outcome.open_fields == ("total",)
        assert sources(item.outcome) == {"company": "small", "day": "small"}


def test_an_approval_takes_the_open_field_of_the_last_answer(project: Path) -> None:
    run_id, outcome = run(project)
    with Engine(Project(project), env={}) as engine:
        item = find_item(engine.ledger, run_id, RECEIPT.id)
        approve(engine.ledger, item, None, by="ada")
        approved = find_item(engine.ledger, run_id, RECEIPT.id).outcome
    assert approved.status == "accepted"
    assert approved.value == {**RIGHT, "total": {"quote": "made up", "value": "99"}}
    assert sources(approved)["total"] == "large"
    assert approved.sources["total"].attempt == outcome.attempts[1].id


def test_a_retry_pays_for_the_open_field_alone(
    project: Path, small: Standin, large: Standin
) -> None:
    run_id, _ = run(project)
    large.answer(ALL_RIGHT)
    with Engine(Project(project), env={}) as engine:
        item = find_item(engine.ledger, run_id, RECEIPT.id)
        send_again(engine.ledger, item, by="ada")
    again = frozenset({RECEIPT.id})
    _, outcome = run(project, Retry(run_id, again, again))
    # Sent again: paid answers are not reused.
    assert (small.count, large.count) == (2, 2)
    assert asked_of(large.last) == ["total"]
    assert outcome.value == RIGHT


def test_a_deletion_leaves_no_words_in_the_verdicts_by_field(project: Path) -> None:
    run_id, _ = run(project)
    with Engine(Project(project), env={}) as engine:
        engine.ledger.retention.forget_document(RECEIPT.id, by="ada")
        outcome = find_item(engine.ledger, run_id, RECEIPT.id).outcome
        [failed] = [each for each in outcome.attempts[0].verdicts if not each.passed]
        assert (failed.field, failed.reason) == ("total", "")
        assert outcome.value is None
        assert outcome.open_fields == ("total",)
        assert not verify_ledger(engine.ledger.seals).faults
        item = find_item(engine.ledger, run_id, RECEIPT.id)
        with pytest.raises(Misuse):  # the kept fields are gone: all have to be given
            edit(engine.ledger, item, json.dumps(TOTAL), by="ada")


_JOB = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.kit.by_field import EXTRACT, FIELDS, RECEIPT
from tierwise.engine import Engine
from tierwise.project import Project
from tierwise.records import Batch

with Engine(Project(Path(sys.argv[1])), env={}) as engine:
    run = engine.start_run("receipts")
    engine.run_batch(run, EXTRACT, Batch((RECEIPT,)), FIELDS)
"""


def test_a_kill_between_two_models_pays_nothing_twice(
    project: Path, small: Standin, large: Standin
) -> None:
    large.answer(answer("total"))
    large.faults([Fault(delay_s=60)])
    job = subprocess.Popen(
        [sys.executable, "-c", _JOB, str(project), str(ROOT)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        deadline = time.monotonic() + 60
        while not large.count and time.monotonic() < deadline:
            time.sleep(0.05)
        assert large.count == 1
    finally:
        job.send_signal(signal.SIGKILL)
        job.wait()
    _, outcome = run(project)
    assert outcome.value == RIGHT
    assert sources(outcome) == {"company": "small", "day": "small", "total": "large"}
    assert outcome.attempts[0].reused
    assert (small.count, large.count) == (1, 2)
    assert asked_of(large.last) == ["total"]


TASK = """
from pydantic import BaseModel
from tierwise import step
from tierwise.steps.checks import each_field_is_quoted


class Quoted(BaseModel):
    quote: str | None
    value: str | None


class Receipt(BaseModel):
    company: Quoted
    day: Quoted
    total: Quoted


receipt = step(
    "receipt",
    returns=Receipt,
    prompt="extract",
    checks=[each_field_is_quoted],
    by_field=True,
)
"""
FLOW = '''
from pathlib import Path

from prefect import flow

from tasks.receipt import receipt
from tierwise import read_documents, recorded_run, task_runner, write_documents


@flow(name="receipts", task_runner=task_runner())
def receipts(source: Path = Path("inbox"), out: Path = Path("out")):
    """Read receipts."""
    with recorded_run() as run:
        batches = read_documents(source, sensitivity="internal")
        fields = {name: name for name in ("company", "day", "total")}
        write_documents(receipt.map(batches, fields=fields), out)
    return run.summary()
'''


def test_a_flow_writes_the_source_of_each_field(
    tmp_path: Path,
    terminal: Terminal,
    small: Standin,
    large: Standin,
    own_modules: None,
    prefect_server: str,
) -> None:
    large.answer(
        lambda request: (
            answer("total")
            if "ACME" in request.document
            else answer(wrong=("company", "day", "total"))
        )
    )
    root = make_project(
        tmp_path, model("small", small.url), model("large", large.url, strength=20)
    )
    (root / "pyproject.toml").write_text("[tool.tierwise]\n")
    (root / "tasks" / "receipt.py").write_text(TASK)
    (root / "flows" / "receipts.py").write_text(FLOW)
    (root / "inbox").mkdir()
    (root / "inbox" / "a.txt").write_text(RECEIPT.text)
    (root / "inbox" / "b.txt").write_text("Nothing that anyone has paid for.")
    done = terminal("run", "receipts", cwd=root)
    assert done.code in (0, 1), done.out + done.err
    asked = {tuple(asked_of(request)) for request in large.requests}
    assert asked == {("total",), ("company", "day", "total")}
    assert all(described_in(each) == asked_of(each) for each in large.requests)
    lines = (root / "out" / "outcomes.jsonl").read_text().splitlines()
    by_id = {each["id"]: each["outcomes"]["receipt"] for each in map(json.loads, lines)}
    first, second = by_id["a.txt"], by_id["b.txt"]
    assert first["value"] == RIGHT
    assert first["sources"] == {
        "company": {"model": "small"},
        "day": {"model": "small"},
        "total": {"model": "large"},
    }
    assert second["status"] == "deferred"
    assert second["open_fields"] == ["company", "day", "total"]
    assert "sources" not in second
    page = next((root / "out").glob("a*.md")).read_text()
    assert "`total` is from `large`" in page
    report = terminal("report", cwd=root)
    assert report.code == 0, report.err


def test_the_desk_shows_open_fields_first_and_takes_them_alone(
    tmp_path: Path, small: Standin, large: Standin
) -> None:
    root = make_project(
        tmp_path, model("small", small.url), model("large", large.url, strength=20)
    )
    (root / "pyproject.toml").write_text('[tool.tierwise]\nkeep_text = "all"\n')
    small.answer(answer("company", wrong=("day", "total")))
    large.answer(answer("day", wrong=("total",)))
    run_id, _ = run(root)
    with desk_at(root) as desk:
        ada = desk.signed_in("reviewer", "ada")
        page = ada.get(f"/review/item?run={run_id}&document={RECEIPT.id}&at=extract")
        assert page.status_code == 200, page.text
        shown = re.findall(r'name="field\.(\w+)"', page.text)
        assert shown == ["total", "company", "day"]
        form = form_of(page, "/review/decide")
        # What the last model said of it is there to be corrected.
        assert json.loads(form["field.total"]) == {"quote": "made up", "value": "99"}
        total = json.dumps(RIGHT["total"])
        saved = send(ada, page, "edit", **{"field.total": total})
        assert saved.status_code == 303, saved.text
        document = ada.get(f"/runs/{run_id}/document?id={RECEIPT.id}")
        assert "small: company; large: day; ada: total" in document.text
    assert sources(on_record(root, run_id)) == {
        "company": "small",
        "day": "large",
        "total": "ada",
    }


def test_the_open_fields_go_in_a_batch_of_their_own(tmp_path: Path) -> None:
    def in_batch(request: Request) -> str:
        asked = asked_of(request)
        return (
            answer("company", "day", wrong=("total",))
            if len(asked) > 1
            else answer("total")
        )

    with BatchStandin() as provider:
        priced(provider).answer(in_batch)
        root = batch_project(tmp_path / "project", provider.url)
        with opened(root) as engine:
            context = engine.start_run("receipts", transport="batch")
            outcome = extract(engine, run=context)
        assert outcome.value == RIGHT
        assert [each.transport for each in outcome.attempts] == ["batch", "batch"]
        assert sources(outcome) == {
            "company": "small",
            "day": "small",
            "total": "large",
        }


def test_an_export_knows_all_models_that_an_answer_is_from(
    tmp_path: Path, small: Standin, large: Standin
) -> None:
    large.answer(answer("total"))
    root = make_project(
        tmp_path, model("small", small.url), model("large", large.url, strength=20)
    )
    run(root)
    loaded = Project(root)
    with Engine(loaded, env={}) as engine:
        records = read_answers(engine.ledger, loaded, "extract")
        judgements = Judgements(engine.ledger, "extract", "", records.answers)
        [[accepted]] = records.answers.values()
        assert accepted.models == {"small", "large"}
        question = accepted.question or ""
        for names, count in ((("large",), 0), (("small", "large"), 1)):
            wanted = ExportFilter(models=names)
            chosen, _ = choose_answers(records, judgements, wanted, question)
            assert len(chosen) == count
    person = replace(
        accepted, sources={**accepted.sources, "total": FieldSource("ada")}
    )
    assert person.models == {"small"}
