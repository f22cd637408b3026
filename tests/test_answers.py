"""One observation of quality is a distinct answer: the same figures wherever a rate is shown."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.desk import ServedDesk, desk_at
from tests.kit.ledgers import DATABASES, DOCUMENT, RUN, migrated_url
from tests.kit.projects import make_project, model
from tests.kit.reported_runs import CENT, LARGE, SMALL, TODAY, record
from tests.kit.samples import documents, opened
from tests.kit.terminal import Terminal
from tests.test_desk_pages import text_of
from tests.test_desk_review import form_of
from tierwise.desk.figures import quality, rate_of, today
from tierwise.desk.server import warm_up
from tierwise.ledger import Decision, Ledger
from tierwise.ledger.views.answers import DAY_S, Tally
from tierwise.report.build import build_report
from tierwise.report.figures import ProjectFacts
from tierwise.report.interval import interval
from tierwise.report.markup import share
from tierwise.text.amounts import usd

DAY = 20_000
RUNS = ("monday", "thursday")
CHECKED = "try: [dear], review: human"


def story(ledger: Ledger, day: int = DAY) -> None:
    """Two runs of the same folder, whose right figures are in `test_…_by_hand`.

    On Monday, `a` and `b` pass. `copy` has the text of `a`, so its answer is reused. `c`
    escalates and passes at the large model. `d` fails there, too. `e` ends in an error. `f`, `g`
    and `h` pass and wait by their route: a person approves `f`, edits `g`, and leaves `h`. `i` and
    `j` could not be read. On Thursday everything is run again: what was paid is reused, and `k` is
    new and fails.
    """
    first = day * DAY_S + 100.0
    for name, at in zip(RUNS, (first, first + 3 * DAY_S), strict=True):
        again: dict[str, Any] = {"reused": True, "cost": CENT * 0}
        again = again if name == "thursday" else {}
        ledger.start_run(replace(RUN, id=name, started_at=at))
        small = {**SMALL, **again, "started_at": at}
        large = {**LARGE, **again, "started_at": at, "kind": "escalation"}
        for document in ("a", "b"):
            record(ledger, document, {**small, "call_hash": document}, run_id=name)
        reused = {**small, "call_hash": "a", "reused": True, "cost": CENT * 0}
        record(ledger, "copy", reused, run_id=name)
        chain = ({**small, "call_hash": "c1"}, {**large, "call_hash": "c2"})
        record(ledger, "c", *chain, run_id=name, model="large")
        chain = ({**small, "call_hash": "d1"}, {**large, "call_hash": "d2"})
        failed: dict[str, Any] = {"status": "deferred", "value": None, "model": None}
        failed["cause"] = "failed_checks"
        record(ledger, "d", *chain, run_id=name, **failed)
        error = {**small, "call_hash": "e", "error": "CallTimeout", "cost": None}
        outage = {**failed, "cause": "outage"}
        record(ledger, "e", error, run_id=name, **outage)
        waits = {"status": "deferred", "cause": "review"}
        for document in ("f", "g", "h"):
            made = {**small, "call_hash": document}
            record(ledger, document, made, run_id=name, **waits)
        for document in ("i", "j"):
            unreadable = {**failed, "cause": "unreadable", "step": "read"}
            record(ledger, document, run_id=name, **unreadable)
        if name == "thursday":
            new = {**SMALL, "started_at": at, "call_hash": "k"}
            record(ledger, "k", new, run_id=name, **failed)
        ledger.finish_run(name, "completed")
    decide(ledger, "f", "approved", "small")
    decide(ledger, "g", "edited", None)


def decide(ledger: Ledger, document: str, word: Any, model_name: str | None) -> None:
    """A decision about Monday's outcome: Thursday's still waits on record."""
    decision = Decision(
        run_id="monday",
        document_id=document,
        document_hash=DOCUMENT.hash,
        step="classify",
        question=None,
        decision=word,
        value="?",
        model=model_name,
        reviewer="ann",
        reviewed_at=DAY * DAY_S,
    )
    ledger.reviews.decide(decision)


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(migrated_url(request.param, tmp_path), root=tmp_path) as opened:
        story(opened)
        yield opened


def test_answers_are_counted_once_by_hand(ledger: Ledger) -> None:
    found = ledger.overview.answers()
    # Passed: a, b, c, f. Failed: d, k, and g, which a person changed. h waits.
    monday = Tally(passed=4, failed=2, waiting=1)
    thursday = Tally(passed=0, failed=1, waiting=0)
    assert found.by_day == {
        ("classify", DAY): monday,
        ("classify", DAY + 3): thursday,
    }
    assert found.by_step == {"classify": Tally(4, 3, 1)}
    # small: a, b and f passed; c, d, g and k did not. large: c passed, d did not.
    assert found.by_model == {
        ("classify", "local", "small"): Tally(3, 4, 1),
        ("classify", "proprietary", "large"): Tally(1, 1, 0),
    }
    assert ledger.summaries.answers(RUNS) == found
    # A decision counts at once.
    decide(ledger, "h", "rejected", None)
    assert ledger.overview.answers().by_step == {"classify": Tally(4, 4, 0)}


def test_a_run_has_the_rates_of_its_own_answers(ledger: Ledger) -> None:
    small, large = ledger.runs.summary("thursday")
    # Of Thursday alone, f, g and h wait; the others are as on Monday, and k is new.
    assert (small.passed, small.answers, small.unreviewed) == (2, 5, 3)
    assert (large.passed, large.answers, large.unreviewed) == (1, 2, 0)
    assert small.pass_rate == 2 / 5
    both = {row.model: row for row in ledger.summaries.of_runs(RUNS)}
    assert (both["small"].passed, both["small"].answers) == (3, 7)
    assert both["small"].documents == 9 + 10


def test_answers_that_all_wait_have_no_rate(tmp_path: Path) -> None:
    with Ledger.open(migrated_url("sqlite", tmp_path), root=tmp_path) as ledger:
        ledger.start_run(RUN)
        record(ledger, "a", SMALL, status="deferred", cause="review")
        record(ledger, "b", SMALL, status="deferred", cause="review")
        [row] = ledger.runs.summary(RUN.id)
        assert row.pass_rate is None
        assert row.unreviewed == 2


def test_rates_over_time_are_those_of_the_day_of_the_answer(ledger: Ledger) -> None:
    answers = ledger.overview.answers().by_day
    [step] = quality(answers, [], DAY, 1)
    assert [(point.day, point.rate.good, point.rate.n) for point in step.points] == [
        (DAY, 4, 6),
        (DAY + 3, 0, 1),
    ]
    assert (step.passed.good, step.passed.n, step.waiting) == (4, 7, 1)
    assert sum(point.rate.n for point in step.points) == step.passed.n
    assert step.passed.bounds == interval(4, 7)
    [later] = quality(answers, [], DAY + 1, 7)
    assert (later.passed.good, later.passed.n) == (0, 1)
    assert rate_of(Tally()).bounds is None


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedDesk]:
    root = tmp_path_factory.mktemp("answers")
    models = (model(name, "http://127.0.0.1:1") for name in ("small", "large"))
    make_project(root, *models)
    (root / ".tierwise").mkdir(mode=0o700, exist_ok=True)
    migrated_url("sqlite", root / ".tierwise")
    with Ledger.open(root=root) as ledger:
        story(ledger, today() - 10)
    with desk_at(root) as served:
        yield served


def test_pages_metrics_and_report_show_the_same_rate(desk: ServedDesk) -> None:
    low, high = interval(4, 7) or (0, 0)
    words = f"{share(4 / 7)} ({share(low)} to {share(high)})"
    browser = desk.signed_in()
    overview = text_of(browser.get("/").text)
    assert f"classify 7 {words} 1" in overview
    # Documents that could not be read are no answers of a step.
    assert "read" not in overview.partition("Quality by step")[2].split()
    runs = [desk.ledger.runs.resolve(name) for name in RUNS]
    report = build_report(desk.ledger, runs, ProjectFacts(), TODAY)
    [row] = report.steps
    assert (row.step, row.passed, row.answers, row.waiting) == ("classify", 4, 7, 1)
    assert row.interval == (low, high)
    assert report.data()["quality"] == [
        {
            "step": "classify",
            "passed": 4,
            "answers": 7,
            "waiting": 1,
            "rate": 4 / 7,
            "interval": (low, high),
        }
    ]
    metrics = browser.get("/metrics").text
    numbers = {
        (sample.labels["step"], sample.labels["result"]): sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "tierwise_answers"
    }
    assert numbers == {
        ("classify", "passed"): 4,
        ("classify", "failed"): 3,
        ("classify", "waiting"): 1,
    }


def test_a_decision_is_in_the_figures_of_who_made_it(tmp_path: Path) -> None:
    """Figures are kept for a minute here, but not from before one's own decision."""
    with opened(tmp_path) as office:
        office.made()
        rules = tmp_path / "routing_rules" / "rules.yaml"
        rules.write_text(rules.read_text().replace("try: [dear]", CHECKED))
        office.run(documents(3))
    with desk_at(tmp_path, keep_s=60.0) as served:
        warm_up(served.app)
        ada = served.signed_in("reviewer", "ada")
        page = ada.get("/review")
        before = text_of(ada.get("/").text)
        assert "classify 0 – 3" in before
        assert "test 3 0 0 0 3" in before
        [item] = re.findall(r'href="(/review/item\?[^"]*)"', page.text)[:1]
        form = form_of(ada.get(item.replace("&amp;", "&")), "/review/decide")
        done = ada.post("/review/decide", {**form, "word": "approve"})
        assert done.status_code == 303, done.text
        after = text_of(ada.get("/").text)
        low, high = interval(1, 1) or (0, 0)
        rate = f"{share(1.0)} ({share(low)} to {share(high)})"
        assert f"classify 1 {rate} 2" in after
        assert "test 2 0 0 0 2" in after
        undo = form_of(ada.get(done.headers["location"]), "/review/undo")
        assert ada.post("/review/undo", undo).status_code == 303
        assert "classify 0 – 3" in text_of(ada.get("/").text)
        assert "test 3 0 0 0 3" in text_of(ada.get("/").text)


def test_the_desks_figures_are_those_of_the_commands(
    desk: ServedDesk, terminal: Terminal
) -> None:
    """Runs, cost, calls and quality: the pages, `/metrics`, `runs`, `show` and the report agree."""
    root = desk.project.root
    browser = desk.signed_in()
    listed = json.loads(terminal("runs", "--json", cwd=root).out)
    assert {run["id"] for run in listed} == set(RUNS)
    cost = sum((Decimal(run["cost_known"]) for run in listed), Decimal(0))
    # Local calls for a, b, c, d, f, g, h and k; c and d at the large model, too.
    assert cost == 8 * CENT + 2 * 10 * CENT
    overview = text_of(browser.get("/").text)
    unknown = sum(run["cost_unknown"] for run in listed)
    assert f"Cost in 30 days {usd(cost, unknown)}" in overview
    calls = sum(run["attempts"] - run["reused"] for run in listed)
    assert f"Calls {calls}" in overview
    sums: Counter[str] = Counter()
    for family in text_string_to_metric_families(browser.get("/metrics").text):
        for sample in family.samples:
            sums[sample.name] += sample.value
    assert Decimal(str(round(sums["tierwise_cost_usd_total"], 9))) == cost
    assert sums["tierwise_calls_total"] == calls
    for run in listed:
        page = text_of(browser.get(f"/runs/{run['id']}").text)
        spent = usd(Decimal(run["cost_known"]), run["cost_unknown"])
        assert f"Documents {run['documents']} {run['accepted']} accepted" in page
        assert f"Deferred {run['deferred']}" in page
        assert f"Cost {spent}" in page
        shown = json.loads(terminal("show", run["id"], "--json", cwd=root).out)
        tally = desk.ledger.summaries.answers([run["id"]]).by_step["classify"]
        [quality_row] = shown["quality"]
        assert (quality_row["passed"], quality_row["answers"]) == (
            tally.passed,
            tally.n,
        )
        assert shown["run"]["cost_known"] == run["cost_known"]
        path = root / "report.html"
        assert terminal("report", run["id"], "--out", path, cwd=root).code == 0
        row = f"classify {tally.n} {tally.passed} {tally.waiting} "
        assert row in text_of(path.read_text())


def test_an_undo_brings_an_item_back_after_the_queue_was_read_again(
    tmp_path: Path,
) -> None:
    """Its run has no other item, so the new read has neither its row nor its tags."""
    with opened(tmp_path) as office:
        office.made()
        rules = tmp_path / "routing_rules" / "rules.yaml"
        rules.write_text(rules.read_text().replace("try: [dear]", CHECKED))
        office.run(documents(1))
    with desk_at(tmp_path) as served:
        queue = served.app.state.desk.queue
        [row] = queue.rows(served.app.state.desk).rows
        ada = served.signed_in("reviewer", "ada")
        [item] = re.findall(r'href="(/review/item\?[^"]*)"', ada.get("/review").text)[
            :1
        ]
        form = form_of(ada.get(item.replace("&amp;", "&")), "/review/decide")
        done = ada.post("/review/decide", {**form, "word": "reject"})
        assert not queue.rows(served.app.state.desk).rows
        queue._read_again(served.app.state.desk)
        assert not queue.rows(served.app.state.desk).rows
        undo = form_of(ada.get(done.headers["location"]), "/review/undo")
        assert ada.post("/review/undo", undo).status_code == 303
        found = queue.rows(served.app.state.desk)
        assert list(found.rows) == [row]
        assert row.run_id in found.tags
