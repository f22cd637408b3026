"""Rates stay shares, and "latest" stays useful, whatever runs, retries, judges and crashes there were."""

from __future__ import annotations

import asyncio
import datetime
import tempfile
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.ledgers import DOCUMENT, RUN, attempt
from tierwise.errors import Misuse
from tierwise.ledger import Ledger
from tierwise.ledger.people.reviews import Decision
from tierwise.orchestrate.artifacts import table
from tierwise.records import Outcome, Verdict
from tierwise.report.build import build_report
from tierwise.report.figures import ProjectFacts
from tierwise.report.interval import interval
from tierwise.report.summary import summarize_run

MODELS = ("small", "medium", "large")
KINDS = ("first", "retry", "fallback", "escalation", "repair", "judge", "shadow")
STATUSES = ("accepted", "deferred", "skipped")


@dataclass(frozen=True)
class Story:
    """What happened to one document in one step of one run."""

    document: str
    step: str
    # (model, tier, kind, reused, passed) of each attempt; none where the outcome was taken over
    attempts: tuple[tuple[str, str, str, bool, bool | None], ...]
    status: str
    model: str | None
    decision: str | None


stories = st.builds(
    Story,
    document=st.sampled_from("abcd"),
    step=st.sampled_from(("classify", "draft")),
    attempts=st.lists(
        st.tuples(
            st.sampled_from(MODELS),
            st.sampled_from(("local", "clarifai")),
            st.sampled_from(KINDS),
            st.booleans(),
            st.sampled_from((True, False, None)),
        ),
        max_size=4,
    ).map(tuple),
    status=st.sampled_from(STATUSES),
    model=st.sampled_from((None, *MODELS)),
    decision=st.sampled_from((None, "approved", "edited", "rejected", "reopened")),
)
histories = st.lists(st.lists(stories, max_size=8), min_size=1, max_size=4)


def run_id(number: int) -> str:
    return f"run-{number}"


async def record(ledger: Ledger, run: str, story: Story) -> None:
    """Put a story on record, as a run does."""
    for model, tier, kind, reused, passed in story.attempts:
        made = attempt(
            document_id=story.document,
            step=story.step,
            model=model,
            tier=tier,
            kind=kind,
            reused=reused,
            cost=Decimal("0.01"),
        )
        await ledger.settle(run, made, None)
        await ledger.record_verdicts(run, made.id, [Verdict("length", passed)])
    outcome: dict[str, Any] = {"value": {"label": "x"}, "model": story.model}
    await ledger.record_outcome(
        run,
        replace(DOCUMENT, id=story.document),
        Outcome(step=story.step, status=story.status, **outcome),  # type: ignore[arg-type]
    )


def decide(ledger: Ledger, run: str, story: Story) -> None:
    """Have a person decide on an outcome."""
    if story.decision is None:
        return
    decision = Decision(
        run_id=run,
        document_id=story.document,
        document_hash=DOCUMENT.hash,
        step=story.step,
        question=None,
        decision=story.decision,  # type: ignore[arg-type]
        value={"label": "y"},
        model=story.model,
        reviewer="ada",
        reviewed_at=1.0,
    )
    ledger.reviews.decide(decision)


def assert_share(value: float | None) -> None:
    assert value is None or 0 <= value <= 1


@settings(max_examples=40, deadline=None)
@given(histories)
def test_every_rate_is_a_share_for_any_runs_and_retries(
    history: list[list[Story]],
) -> None:
    """In the summary, its intervals, Prefect's table, the checks, the trend and a plan's history."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(None, root=Path(folder)) as ledger,
    ):
        for number, told in enumerate(history):
            ledger.start_run(replace(RUN, id=run_id(number), started_at=1.0 + number))
            for story in told:
                asyncio.run(record(ledger, run_id(number), story))
            for story in told:
                decide(ledger, run_id(number), story)
            ledger.finish_run(run_id(number), "completed")
        runs = ledger.runs.newest()
        for run in runs:
            summary = summarize_run(ledger.runs, run.id)
            for row in summary.rows:
                assert_share(row.pass_rate)
                assert row.deferred <= row.documents
                assert row.escalations <= row.documents
                interval(row.accepted, row.documents)
            table(summary)
            assert run.accepted + run.deferred <= run.documents
        report = build_report(ledger, runs, ProjectFacts(), datetime.date.today())
        for row in report.rows:
            assert_share(row.pass_rate)
        for check in report.checks:
            assert_share(check.rate)
        for point in report.trend:
            assert_share(point.deferred)
            assert_share(point.passed)
        for past in ledger.history.past().values():
            assert_share(past.pass_rate)
            assert_share(past.cached_share)


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    with Ledger.open(None, root=tmp_path) as ledger:
        yield ledger


def begin(ledger: Ledger, name: str, started_at: float) -> None:
    ledger.start_run(replace(RUN, id=name, started_at=started_at))


WORK = Story(
    "a",
    "classify",
    (("small", "local", "first", False, True),),
    "accepted",
    "small",
    None,
)


def test_a_run_that_ended_before_its_first_document_is_not_the_latest(
    opened: Ledger,
) -> None:
    """A misspelt folder, or Ctrl-C at once, does not hide the run before; its id still names it."""
    begin(opened, "worked", 1.0)
    asyncio.run(record(opened, "worked", WORK))
    opened.finish_run("worked", "completed")
    for number, state in enumerate(("failed", "cancelled")):
        begin(opened, state, 2.0 + number)
        opened.finish_run(state, state)  # type: ignore[arg-type]
        assert opened.runs.resolve("latest").id == "worked"
        assert opened.runs.resolve(state).id == state
    begin(opened, "under-way", 5.0)
    assert opened.runs.resolve("latest").id == "under-way"


def test_a_run_that_failed_after_its_first_document_is_the_latest(
    opened: Ledger,
) -> None:
    begin(opened, "stopped", 2.0)
    asyncio.run(record(opened, "stopped", WORK))
    opened.finish_run("stopped", "failed")
    assert opened.runs.resolve("latest").id == "stopped"


def test_where_no_run_started_the_error_says_so(opened: Ledger) -> None:
    with pytest.raises(Misuse, match="the ledger has no runs yet"):
        opened.runs.resolve("latest")
    begin(opened, "failed", 2.0)
    opened.finish_run("failed", "failed")
    with pytest.raises(Misuse, match="no run has reached a document yet"):
        opened.runs.resolve("latest")


def test_a_judge_has_a_row_of_its_own_without_a_pass_rate(opened: Ledger) -> None:
    """Else a strong judge would look like a model that fails every document."""
    begin(opened, "judged", 1.0)
    judged = (*WORK.attempts, ("large", "clarifai", "judge", False, None))
    asyncio.run(record(opened, "judged", replace(WORK, attempts=judged)))
    asyncio.run(
        record(
            opened,
            "judged",
            Story(
                "b",
                "classify",
                (("large", "clarifai", "first", False, True),),
                "accepted",
                "large",
                None,
            ),
        )
    )
    rates = {row.model: row.pass_rate for row in opened.runs.summary("judged")}
    assert rates == {"small": 1.0, "large": 1.0, "large (judge)": None}
