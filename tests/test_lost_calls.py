"""Calls that were lost in a kill: of unknown cost, wherever a cost is shown."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path

import pytest

from tests.kit.ledgers import migrated_url, python
from tests.kit.projects import make_project, model
from tests.kit.standin import Fault, Request, Standin
from tests.kit.steps import CLASSIFY, GOOD, LABELS, TEXT
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.orchestrate.artifacts import table
from tierwise.project import Project
from tierwise.records import Batch, Document
from tierwise.report import summarize_run

DOCUMENTS = 12
ANSWERED = 4
JOB = """
    import sys
    from decimal import Decimal
    from pathlib import Path
    from tests.test_lost_calls import batch
    from tests.kit.steps import CLASSIFY, LABELS
    from tierwise.engine import Engine
    from tierwise.project import Project
    engine = Engine(Project(Path(sys.argv[1])), env={})
    run = engine.start_run("inbox", budget_usd=Decimal(1) if sys.argv[2] else None)
    engine.run_batch(run, CLASSIFY, batch(), LABELS).load()
"""


def batch() -> Batch:
    documents = (
        Document(id=f"{n}.txt", text=f"{TEXT} Number {n}.", sensitivity="internal")
        for n in range(DOCUMENTS)
    )
    return Batch(tuple(documents))


def number(request: Request) -> int:
    return int(request.document.rpartition("Number ")[2].rstrip("."))


def hanging(request: Request) -> Fault:
    """The first documents get an answer, the others wait for ever."""
    if number(request) < ANSWERED:
        return Fault(text=GOOD)
    return Fault(trickle=True)


def killed_run(project: Path, provider: Standin, budget: str) -> int:
    """Kill a job while its last documents wait for an answer; return the number of those calls."""
    provider.answer(hanging)
    before = provider.count
    job = python(JOB, str(project), budget)
    deadline = time.monotonic() + 60
    while provider.count < before + DOCUMENTS and time.monotonic() < deadline:
        assert job.poll() is None, job.communicate()[1]
        time.sleep(0.02)
    # The answers are on record a moment after they came.
    with Engine(Project(project), env={}) as engine:
        while (
            engine.ledger.runs.newest()[0].attempts < ANSWERED
            and time.monotonic() < deadline
        ):
            time.sleep(0.02)
    job.kill()
    job.communicate()
    return DOCUMENTS - ANSWERED


@pytest.fixture
def project(
    tmp_path: Path, standin: Standin, database: str, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TIERWISE_LEDGER_URL", migrated_url(database, tmp_path))
    entries = [
        model("small", standin.url, tier="proprietary").replace(
            "timeout_s: 20", "timeout_s: 20\n    lane: lean\n    concurrency: 32"
        ),
        model("large", standin.url, strength=50, tier="proprietary"),
    ]
    return make_project(tmp_path / "p", *entries)


def test_calls_lost_in_a_kill_are_shown_wherever_a_cost_is(
    project: Path, standin: Standin, terminal: Terminal, database: str
) -> None:
    budget = "1" if database == "sqlite" else ""
    lost = killed_run(project, standin, budget)
    words = f"USD + {lost} of unknown cost"

    def said(*command: object) -> str:
        done = terminal(*command, cwd=project)
        assert done.code == 0, done.err
        return " ".join(done.out.split())

    assert words in said("runs")
    shown = said("show")
    assert shown.count(words) >= 3  # the model, the savings, the headline
    data = json.loads(terminal("show", "--json", cwd=project).out)
    assert data["run"]["cost_unknown"] == lost
    assert data["run"]["attempts"] == DOCUMENTS
    assert data["savings"]["total"]["saved"] is None
    assert data["savings"]["total"]["cost_unknown"] == lost
    assert {"error": "CallLost", "calls": lost}.items() <= data["errors"][0].items()
    rows = list(csv.DictReader(io.StringIO(terminal("show", "--csv", cwd=project).out)))
    assert [words in row["cost"] for row in rows] == [True]
    said("report", "--out", "page.html")
    page = (project / "page.html").read_text()
    assert page.count(f"+ {lost} of unknown cost") >= 3
    assert "what was saved is unknown" in page

    # Who runs it again pays again; what was lost stays with the run that lost it.
    standin.answer(GOOD)
    with Engine(Project(project), env={}) as engine:
        run = engine.start_run("inbox")
        engine.run_batch(run, CLASSIFY, batch(), LABELS).load()
        engine.finish_run(run, "completed")
        again, killed = engine.ledger.runs.newest()
        assert (again.cost_unknown, killed.cost_unknown) == (0, lost)
        summary = summarize_run(engine.ledger.runs, killed.id)
        assert f"+ {lost} of unknown cost" in str(table(summary))
        assert words in summary.headline()
        attempts = list(engine.ledger.runs.attempts(killed.id))
    assert len({attempt.id for attempt in attempts}) == DOCUMENTS
    assert sum(attempt.error == "CallLost" for attempt in attempts) == lost


@pytest.mark.parametrize("database", ["sqlite"])
def test_a_process_that_still_works_has_lost_nothing(
    project: Path, standin: Standin
) -> None:
    standin.answer(hanging)
    job = python(JOB, str(project), "1")
    try:
        deadline = time.monotonic() + 60
        while standin.count < DOCUMENTS and time.monotonic() < deadline:
            assert job.poll() is None, job.communicate()[1]
            time.sleep(0.02)
        with Engine(Project(project), env={}) as engine:
            assert engine.ledger.runs.newest()[0].cost_unknown == 0
    finally:
        job.kill()
        job.communicate()
