"""What a run's artifacts say, from its summary alone; tests/ui opens them in Prefect's pages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin, unused_address
from tests.kit.steps import CLASSIFY, LABELS
from tierwise.engine import Engine
from tierwise.orchestrate.artifacts import attention, table
from tierwise.project import Project
from tierwise.records import Batch, Document, Outcome
from tierwise.report import RunSummary, summarize_run

NOT_READ = Outcome(
    step="read",
    status="deferred",
    reason="the file is empty",
    cause="unreadable",
    sensitivity="internal",
)


def answered(request: Request) -> str:
    """The small model is wrong about four documents, the large one about one of them."""
    number = int(request.document.split()[1])
    right = number >= (4 if request.model == "small" else 1)
    return json.dumps(
        {
            "label": "delivery",
            "evidence": "has not arrived" if right else "words of its own",
        }
    )


def summary_of(project: Path, *, runs: int = 1) -> RunSummary:
    """The last of some runs over the same ten documents, after one that could not be read."""
    documents = tuple(
        Document(
            id=f"{n}.txt", text=f"Parcel {n} has not arrived", sensitivity="internal"
        )
        for n in range(10)
    )
    with Engine(Project(project), env={}) as engine:
        for _ in range(runs):
            run = engine.start_run("inbox")
            engine.record(
                run, Document(id="empty.txt", text="", sensitivity="internal"), NOT_READ
            )
            engine.run_batch(run, CLASSIFY, Batch(documents), LABELS)
            engine.finish_run(run, "completed")
        return summarize_run(engine.ledger.runs, run.id)


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    standin.answer(answered)
    return make_project(
        tmp_path / "p",
        model("small", standin.url),
        model("large", standin.url, price="unknown"),
    )


def test_each_model_has_its_pass_rate_with_the_exact_interval_and_what_waits_since_it_was_asked(
    project: Path,
) -> None:
    """6 of 10 and 3 of 4 with the bounds of Clopper and Pearson; what was never asked has a row of its own."""
    rows = table(summary_of(project))
    assert [
        (row["step"], row["model"], row["pass rate"], row["deferred"]) for row in rows
    ] == [
        ("classify", "small", "60% (26–88%)", 0),
        ("classify", "large", "75% (19–99%)", 1),
        ("read", "none was asked", "", 1),
    ]
    assert [row["escalations"] for row in rows] == [4, 0, ""]
    assert all(row.keys() == rows[0].keys() for row in rows), (
        "a table needs the same columns in each row"
    )


def test_reused_answers_and_unknown_costs_are_told(project: Path) -> None:
    first, again = table(summary_of(project)), table(summary_of(project, runs=2))
    assert first[1]["cost, USD"] == "0.000000 + 4 of unknown cost"
    assert first[0]["attempts"] == "10"
    assert again[0]["attempts"] == "10, 10 reused"


def test_each_kind_of_waiting_has_its_remedy_and_the_rest_its_command(
    project: Path,
) -> None:
    summary = summary_of(project)
    page = attention(summary)
    for part in (
        "# 2 of 11 documents wait",
        "## Could not be read, or only in part: 1",
        "`empty.txt` in `read`: `the file is empty`",
        "## No allowed model answered well: 1",
        f"`tierwise review {summary.run.id}`",
        "4 calls of unknown cost: a price is missing: `tierwise models`",
        f"`tierwise report {summary.run.id} --open`",
    ):
        assert part in page


def test_a_server_that_is_away_is_worth_a_look(tmp_path: Path) -> None:
    away = make_project(
        tmp_path / "p",
        model("small", unused_address()),
        model("large", unused_address()),
    )
    assert "ended in Unreachable: `tierwise doctor`" in attention(summary_of(away))
