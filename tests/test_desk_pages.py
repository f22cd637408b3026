"""The desk's pages over a socket: their figures, what they withhold, and hostile texts in them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.desk import Browser, ServedDesk, desk_at
from tests.kit.ledgers import DATABASES, DOCUMENT, RUN, migrated_url
from tests.kit.old_project import restore
from tests.kit.projects import make_project, model
from tests.kit.reported_runs import CENT, LARGE, SMALL, Page, record
from tests.test_report_hostile import BREAKOUTS, CONTROLS, NAMES, story
from tierwise.desk.addresses import document_path, from_parameter, to_parameter
from tierwise.desk.figures import by_day, documents_done, progress, waiting_by_age
from tierwise.desk.marks import marked
from tierwise.desk.navigation import NAVIGATION
from tierwise.desk.pages.run import STATUSES
from tierwise.desk.server import warm_up
from tierwise.ledger import Decision, Ledger
from tierwise.ledger.views.waiting import WaitingRow
from tierwise.policy.desk_settings import Sees
from tierwise.records import Document, Outcome, Rejection, Route, Verdict
from tierwise.report.interval import interval
from tierwise.report.markup import share
from tierwise.text.amounts import usd

SECRET = "Ada Lovelace, account DE89 3704"
NOW = time.time()
PAGES = ("/", "/?days=90", "/runs", "/alerts", "/metrics")


def project_at(folder: Path) -> Path:
    """A project whose ledger is new."""
    models = (model(name, "http://127.0.0.1:1") for name in ("small", "large"))
    root = make_project(folder / "project", *models)
    (root / ".tierwise").mkdir(mode=0o700)
    migrated_url("sqlite", root / ".tierwise")
    return root


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedDesk]:
    """Two ended runs and one under way, with a confidential document."""
    root = project_at(tmp_path_factory.mktemp("desk"))
    with Ledger.open(root=root) as ledger:
        for number, state in enumerate(("completed", "failed")):
            info = replace(
                RUN,
                id=f"ended-{number}",
                started_at=NOW - 86_400 * (2 - number),
                tags={"team": "claims"},
                budget_usd=Decimal(1),
            )
            ledger.start_run(info)
            at = {"started_at": info.started_at}
            record(ledger, "a.txt", {**SMALL, **at}, run_id=info.id)
            record(
                ledger,
                "b.txt",
                {**SMALL, **at, "verdicts": (Verdict("grounding", False, SECRET),)},
                {**LARGE, **at, "kind": "escalation"},
                run_id=info.id,
                model="large",
                value={"quote": "money back", "name": SECRET},
                sensitivity="confidential",
                reason=SECRET,
                route=Route(
                    step="classify",
                    rule="default",
                    models=("small", "large"),
                    rejected=(Rejection("huge", "too expensive", "cost"),),
                    features={"tags": {"incomplete": SECRET}},
                ),
            )
            failed = {**SMALL, **at, "usage": None, "cost": None, "error": "Timeout"}
            record(
                ledger,
                "c.txt",
                {**failed, "error_text": SECRET},
                run_id=info.id,
                status="deferred",
                value=None,
                cause="outage",
                reason=SECRET,
                model=None,
                sensitivity="restricted",
            )
            ledger.finish_run(info.id, state)
        note = Decision(
            run_id="ended-0",
            document_id="b.txt",
            document_hash=DOCUMENT.hash,
            step="classify",
            question=None,
            decision="edited",
            value={"name": SECRET, "quote": "my money back"},
            sensitivity="confidential",
            reviewer="ann",
            reviewed_at=NOW,
            note=SECRET,
        )
        ledger.reviews.decide(note)
        ledger.retention.keep([DOCUMENT])
    with desk_at(root) as served:
        plan = {
            "documents": 10.0,
            "expected": "0.05",
            "expected_unknown": 0,
            "rows": [
                {
                    "step": "classify",
                    "tier": "local",
                    "model": "small",
                    "documents": 10.0,
                    "calls": 10.0,
                    "expected": "0.05",
                    "expected_unknown": 0,
                }
            ],
        }
        live = replace(
            RUN, id="live", started_at=NOW - 60, plan=plan, flow_run_id="f-1"
        )
        served.ledger.start_run(live)
        for number in range(4):
            record(
                served.ledger,
                f"{number}.txt",
                {**SMALL, "started_at": NOW},
                run_id="live",
            )
        yield served


def text_of(html: str) -> str:
    """The text of a page, with single spaces."""
    found: list[str] = []

    class Reader(Page):
        def handle_data(self, data: str) -> None:
            found.append(data)

    Reader(html)
    return " ".join(" ".join(found).split())


def test_the_overview_shows_what_the_ledger_has(desk: ServedDesk) -> None:
    text = text_of(desk.signed_in("viewer").get("/").text)
    assert "4 of 10" in text
    cost = sum((row.cost_known for row in desk.ledger.overview.spending()), Decimal(0))
    assert cost == 8 * CENT + 2 * 10 * CENT
    assert usd(cost, 2) in text
    for words in ("small", "large", "local", "proprietary", "classify", "team=claims"):
        assert words in text
    # Of eight answers, a person changed one; two calls ended without an answer.
    low, high = interval(7, 8) or (0, 0)
    assert f"87.5% ({share(low)} to {share(high)})" in text


def test_figures_of_ended_runs_are_those_of_the_ledger(desk: ServedDesk) -> None:
    """What is kept in memory never differs from the ledger's own totals."""
    newest = {run.id: run for run in desk.ledger.runs.newest(20)}
    for run, counts in desk.ledger.overview.runs():
        assert run == newest[run.id]
        assert counts == desk.ledger.runs.outcome_counts(run.id)


@pytest.mark.parametrize("database", DATABASES)
def test_new_attempts_and_decisions_count_at_once(
    tmp_path: Path, database: str
) -> None:
    with Ledger.open(migrated_url(database, tmp_path), root=tmp_path) as ledger:
        ledger.start_run(RUN)
        record(ledger, "a.txt", SMALL)
        assert [row.calls for row in ledger.overview.spending()] == [1]
        record(ledger, "b.txt", SMALL, {**LARGE, "kind": "shadow"}, status="deferred")
        spending = ledger.overview.spending()
        assert {(row.model, row.role): row.calls for row in spending} == {
            ("small", "used"): 2,
            ("large", "shadow"): 1,
        }
        ledger.finish_run(RUN.id, "completed")
        assert ledger.overview.runs()[0][0].deferred == 1
        decision = Decision(
            run_id=RUN.id,
            document_id="b.txt",
            document_hash=DOCUMENT.hash,
            step="classify",
            question=None,
            decision="rejected",
            reviewer="ann",
            reviewed_at=NOW,
        )
        ledger.reviews.decide(decision)
        run, counts = ledger.overview.runs()[0]
        assert {row.day for row in spending} == {(1_790_000_001 // 86_400)}
        rows = ledger.overview.documents(RUN.id, status="rejected", part_of_id="b")
        assert [row.document_id for row in rows] == ["b.txt"]
        assert [call.model for call in ledger.overview.calls_after(0)] == [
            "small",
            "small",
            "large",
        ]
        assert ledger.overview.newest_call() == 3
        assert ledger.overview.labels() == []
        assert ledger.overview.running() == {}
        assert run.deferred == 0
        assert counts["classify"] == {"accepted": 1, "rejected": 1}


def test_the_desk_reads_ahead_what_its_pages_show(tmp_path: Path) -> None:
    with desk_at(project_at(tmp_path), keep_s=60.0) as served:
        warm_up(served.app)
        served.ledger.start_run(RUN)
        page = served.signed_in().get("/runs")
        assert page.status_code == 200
        assert f"/runs/{RUN.id}" not in page.text


def test_a_run_page_lists_its_documents(desk: ServedDesk) -> None:
    browser = desk.signed_in("viewer")
    page = browser.get("/runs/ended-1")
    assert page.status_code == 200
    for name in ("a.txt", "b.txt", "c.txt"):
        assert document_path("ended-1", name).replace("&", "&amp;") in page.text
    only = browser.get("/runs/ended-1?status=deferred").text
    assert "c.txt</a>" in only
    assert "a.txt</a>" not in only
    assert "b.txt</a>" in browser.get("/runs/ended-1?find=b.").text
    assert "b.txt</a>" not in browser.get("/runs/ended-1?after=b.txt").text
    assert browser.get("/runs/none").status_code == 404
    past_the_end = browser.get("/runs?page=999").text
    assert "/runs/ended-1" in past_the_end
    assert "No run" in browser.get("/runs?flow=other").text
    assert browser.get("/runs/ended-1?status=x").status_code == 400
    assert browser.get("/runs/ended-1/document?id=z").status_code == 404


@pytest.mark.parametrize("database", DATABASES)
def test_a_document_has_one_status_as_a_whole(tmp_path: Path, database: str) -> None:
    """In the list, its filter, and the counts of its run; a later step may be rejected."""
    statuses = {
        "both.txt": ("accepted", "accepted"),
        "later.txt": ("accepted", "rejected"),
        "open.txt": ("accepted", "deferred"),
        "refused and open.txt": ("rejected", "deferred"),
        "sent.txt": ("accepted", "waiting"),
        "none.txt": ("skipped", "skipped"),
    }
    wanted = {
        "both.txt": "accepted",
        "later.txt": "rejected",
        "open.txt": "deferred",
        "refused and open.txt": "deferred",
        "sent.txt": "waiting",
        "none.txt": "skipped",
    }
    with Ledger.open(migrated_url(database, tmp_path), root=tmp_path) as ledger:
        ledger.start_run(RUN)
        for name, of_steps in statuses.items():
            for number, status in enumerate(of_steps):
                record(ledger, name, step=f"step {number}", status=status)
        ledger.finish_run(RUN.id, "completed")
        rows = ledger.overview.documents(RUN.id)
        assert {row.document_id: row.status for row in rows} == wanted
        for status in STATUSES:
            only = ledger.overview.documents(RUN.id, status=status)
            fitting = sorted(name for name, of in wanted.items() if of == status)
            assert [row.document_id for row in only] == fitting
        run = ledger.runs.resolve(RUN.id)
        assert (run.documents, run.accepted) == (6, 1)
        assert (run.deferred, run.in_batches) == (2, 1)
        # A reviewer's decision about a later step counts as well.
        ledger.reviews.decide(
            Decision(
                run_id=RUN.id,
                document_id="both.txt",
                document_hash=DOCUMENT.hash,
                step="step 1",
                question=None,
                decision="rejected",
                reviewer="ann",
                reviewed_at=NOW,
            )
        )
        assert ledger.runs.resolve(RUN.id).accepted == 0
        assert ledger.overview.documents(RUN.id, status="accepted") == []


def test_any_status_can_be_selected_again(desk: ServedDesk) -> None:
    browser = desk.signed_in("viewer")
    page = browser.get("/runs/ended-1?status=deferred").text
    form = page[page.index('<form method="get"') :]
    assert '<option value="">any</option>' in form
    assert "disabled" not in form[: form.index("</form>")]
    for name in ("a.txt", "c.txt"):
        assert f"{name}</a>" in browser.get("/runs/ended-1?find=&status=").text


def test_a_text_without_a_mark_says_nothing_of_marks(tmp_path: Path) -> None:
    root = project_at(tmp_path)
    with Ledger.open(root=root) as ledger:
        ledger.start_run(RUN)
        record(ledger, "a.txt", SMALL, value={"label": "other"})
        record(ledger, "b.txt", SMALL, value={"quote": DOCUMENT.text[:20]})
        ledger.retention.keep([DOCUMENT])
    with desk_at(root) as served:
        browser = served.signed_in()
        plain = browser.get(document_path(RUN.id, "a.txt")).text
        quoted = browser.get(document_path(RUN.id, "b.txt")).text
        assert ("<mark" in plain, "<mark" in quoted) == (False, True)
        assert ("Marked:" in plain, "Marked:" in quoted) == (False, True)


@pytest.mark.parametrize("role", ["viewer", "reviewer", "admin"])
@pytest.mark.parametrize("document", ["b.txt", "c.txt"])
def test_a_document_is_shown_to_those_who_may_see_it(
    desk: ServedDesk, role: Any, document: str
) -> None:
    browser = desk.signed_in(role, f"the {role}")
    path = document_path("ended-0", document)
    page = browser.get(path)
    level = "confidential" if document == "b.txt" else "restricted"
    may_see = Sees().may_see(role, level)
    assert (SECRET in page.text) == may_see
    for other in (*PAGES, "/runs/ended-0", "/runs/ended-1", "/runs/live"):
        assert SECRET not in browser.get(other).text
    assert ("<mark" in page.text) == (may_see and document == "b.txt")


def test_a_setting_says_what_a_role_may_see(desk: ServedDesk) -> None:
    for sees, is_shown in ((Sees(viewer="confidential"), True), (Sees(), False)):
        with desk_at(desk.project.root, sees=sees) as other:
            page = other.signed_in("viewer").get(document_path("ended-0", "b.txt"))
            assert (SECRET in page.text) == is_shown


def test_alerts_are_listed_and_acknowledged(desk: ServedDesk) -> None:
    viewer = desk.signed_in("viewer")
    page = viewer.get("/alerts").text
    assert "ended failed" in page
    assert "/runs/ended-1" in page
    assert "Acknowledge" not in page
    form = {"alert": "failed: ended-1"}
    assert viewer.post("/alerts/acknowledge", form).status_code == 403
    reviewer = desk.signed_in("reviewer", "rita")
    assert reviewer.post("/alerts/acknowledge", {"alert": "x"}).status_code == 404
    assert reviewer.post("/alerts/acknowledge", form).status_code == 303
    # A second person who presses at the same time does not replace the first.
    assert (
        desk.signed_in("reviewer", "bob").post("/alerts/acknowledge", form).status_code
        == 303
    )
    page = reviewer.get("/alerts").text
    assert "rita" in text_of(page)
    forms = page.split("<form ")
    of_alert = [form for form in forms if 'value="failed: ended-1"' in form]
    assert all("/alerts/withdraw" in form for form in of_alert)


def test_metrics_are_the_ledgers_figures(desk: ServedDesk) -> None:
    stranger = desk.browser()
    assert stranger.get("/metrics").status_code == 401
    wrong = {"authorization": f"Bearer {desk.access.link_token}"}
    assert stranger.get("/metrics", headers=wrong).status_code == 401
    token = {"authorization": f"Bearer {desk.access.metrics_token}"}
    assert stranger.get("/", headers=token).status_code == 401
    answer = stranger.get("/metrics", headers=token)
    assert answer.status_code == 200
    samples: Counter[str] = Counter()
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            samples[sample.name] += sample.value
    runs = desk.ledger.runs.newest(20)
    cost = sum((run.cost_known for run in runs), Decimal(0))
    assert Decimal(str(round(samples["tierwise_cost_usd_total"], 9))) == cost
    calls = sum(run.attempts - run.reused for run in runs)
    assert samples["tierwise_calls_total"] == calls
    unknown = sum(run.cost_unknown for run in runs)
    assert samples["tierwise_calls_of_unknown_cost_total"] == unknown
    assert samples["tierwise_outcomes_total"] == 10
    assert samples["tierwise_runs"] == 3
    assert samples["tierwise_run_documents_done"] == 4


def test_the_pages_link_to_prefect_only_where_it_is(desk: ServedDesk) -> None:
    assert "flow-run" not in desk.signed_in().get("/runs/live").text


def test_no_hostile_text_adds_an_element_or_an_attribute(tmp_path: Path) -> None:
    """Every page has the same elements and attributes as one in harmless words."""
    shapes = []
    for kind in ("harmless", "hostile"):
        root = project_at(tmp_path / kind)
        with desk_at(root) as served:
            for number, text in enumerate(BREAKOUTS):
                words = {name: f"some {name} {number}" for name in NAMES}
                if kind == "hostile":
                    words = dict.fromkeys(NAMES, f"{text}{number}")
                    if not text.isprintable():
                        # YAML has no such characters, and these are names of its files.
                        words |= dict.fromkeys(("step", "tier", "model"), f"x{number}")
                story(served.ledger, words, f"run-{number}")
            shapes.append(shape_of_pages(served, served.signed_in()))
    harmless, hostile = shapes
    assert harmless.keys() == hostile.keys()
    for page, elements in harmless.items():
        more = hostile[page] - elements
        fewer = elements - hostile[page]
        assert (page, more, fewer) == (page, Counter(), Counter())


def shape_of_pages(desk: ServedDesk, browser: Browser) -> dict[str, Any]:
    """The number of elements with their attributes on every page."""
    found: dict[str, Any] = {}
    paths = [path for path in PAGES if path != "/metrics"]
    paths += [entry.path for entry in NAVIGATION]
    for number in range(len(BREAKOUTS)):
        run_id = f"run-{number}"
        paths.append(f"/runs/{run_id}")
        rows = desk.ledger.overview.documents(run_id)
        assert len(rows) == 3
        # The first one of the story has no number of its own.
        endings = ("#2", "#3")
        ids = sorted(
            (row.document_id for row in rows),
            key=lambda each: each[-2:] if each.endswith(endings) else "",
        )
        for place, document_id in enumerate(ids):
            answer = browser.get(document_path(run_id, document_id))
            assert answer.status_code == 200
            found[f"{run_id} {place}"] = shape_of(answer.text)
    for path in paths:
        answer = browser.get(path)
        assert answer.status_code == 200, path
        found[path] = shape_of(answer.text)
    metrics = browser.get("/metrics").text
    assert list(text_string_to_metric_families(metrics))
    return found


def shape_of(html: str) -> Counter[Any]:
    """The elements of a page, each with the names of its attributes."""
    assert not CONTROLS.search(html)
    tags = Page(html).tags
    for name, attributes in tags:
        assert not any(key.startswith("on") for key in attributes), name
        assert "style" not in attributes
        address = attributes.get("href") or attributes.get("src") or "/"
        assert address.startswith(("/", "#")), address
    return Counter((name, *sorted(attributes)) for name, attributes in tags)


@pytest.mark.parametrize(
    "name",
    ["a.txt", "ä b&c.txt", "=x", "a/b//c#1?d=e", "\ud800.txt", "=", "a\x00\r\u202eb"],
)
def test_every_id_has_an_address(name: str) -> None:
    assert from_parameter(to_parameter(name)) == name
    document_path("r", name).encode("ascii")


def test_quotes_are_marked_also_across_lines() -> None:
    text = "I want my  money\nback, please. No."
    parts = marked(text, {"s": {"quote": "my money back", "other": ["please", "No"]}})
    assert "".join(part.text for part in parts) == text
    assert [part.text for part in parts if part.quoted_by] == [
        "my  money\nback",
        "please",
    ]
    assert marked("", {"s": None}) == []
    regex = marked("a.*b (c", {"s": "a.*b (c"})
    assert regex[0].quoted_by == ("s",)


def test_progress_is_that_of_the_slowest_step() -> None:
    counts: Any = {
        "a": {"accepted": 10, "deferred": 2},
        "b": {"accepted": 5, "waiting": 3},
    }
    assert documents_done(counts, ["a", "b"]) == 5
    assert documents_done({"a": {"accepted": 3}}, ["a", "b"]) == 0
    assert documents_done({}, []) == 0
    # Of reading, only failures are on record.
    unread: Any = {"read": {"deferred": 1}, "a": {"accepted": 4, "skipped": 1}}
    assert documents_done(unread, []) == 5
    assert documents_done(unread, ["read", "a"]) == 5
    assert documents_done({"read": {"deferred": 1}}, []) == 1


def test_progress_says_why_no_end_is_expected(desk: ServedDesk) -> None:
    run = replace(desk.ledger.runs.resolve("live"), plan={"documents": 10})
    start = run.started_at

    def made(done: int, sign: Any = "alive", **changes: Any) -> Any:
        counts: Any = {"classify": {"accepted": done}}
        return progress(replace(run, **changes), counts, [], sign, start + 600)

    assert made(4).expected_end == pytest.approx(start + 600 + 900)
    assert (made(4).done_text, made(4).pace_text) == ("4 of 10 done", "0.4")
    for other in (
        made(4, sign="dead"),
        made(0),
        made(10),
        made(12),
        made(4, plan=None),
    ):
        assert other.expected_end is None
        assert "expected end 2" not in other.end_text
    assert made(12).done_text == "12 done, 10 planned"
    assert made(600).pace_text == "60"
    assert made(4, sign="dead").end_text == "its process died"


def test_a_run_without_a_plan_has_no_expected_end(desk: ServedDesk) -> None:
    run = desk.ledger.runs.resolve("ended-0")
    counts: Any = {"classify": {"accepted": 3}}
    made = progress(run, counts, [], "alive", run.started_at + 60)
    assert made.total is None
    assert made.expected_end is None
    assert made.per_minute == pytest.approx(3)
    planned = progress(
        replace(run, plan={"documents": 6}), counts, [], "alive", run.started_at + 60
    )
    assert planned.expected_end == pytest.approx(run.started_at + 120)


def test_every_day_of_a_span_is_there() -> None:
    days = by_day([], 10, 12)
    assert [day.name for day in days] == ["1970-01-11", "1970-01-12", "1970-01-13"]


def test_waiting_documents_are_counted_once_and_by_age() -> None:
    row = WaitingRow(
        run_id="r",
        run_started_at=0,
        flow="f",
        source=None,
        document_id="a",
        document_hash="h",
        step="s",
        cause=None,
        reason="",
        question=None,
        waits_since=1000.0,
        is_decided=False,
    )
    rows = [row, replace(row, step="t", waits_since=500.0)]
    rows += [replace(row, document_id="b", is_decided=True)]
    rows += [replace(row, document_id="c", waits_since=90_000.0)]
    [found] = waiting_by_age(rows, 90_100.0)
    assert list(found.counts) == [1, 0, 1, 0]
    assert found.since == 500.0


def test_an_old_ledger_has_pages(tmp_path: Path) -> None:
    root = tmp_path / "old"
    restore(root)
    with desk_at(root) as served:
        browser = served.signed_in()
        for path in PAGES:
            assert browser.get(path).status_code == 200, path
        for run, _ in served.ledger.overview.runs():
            assert browser.get(f"/runs/{run.id}").status_code == 200
            for row in served.ledger.overview.documents(run.id, limit=5):
                path = document_path(run.id, row.document_id)
                assert browser.get(path).status_code == 200, path


def test_a_wheel_has_templates_and_static_files() -> None:
    from importlib.resources import files

    names = {entry.name for entry in (files("tierwise.desk") / "templates").iterdir()}
    assert "base.html.j2" in names
    assert (files("tierwise.desk") / "static" / "desk.js").is_file()


def test_a_document_has_its_text_from_the_runs_source(tmp_path: Path) -> None:
    """As a reviewer's page has it; and an id leads to no file outside of the source."""
    root = project_at(tmp_path)
    text = "I want my money back, says the letter."
    outside = Document(id="x", text="outside of the source", sensitivity="internal")
    inside = Document(id="a.txt", text=text, sensitivity="internal")
    (root / "inbox").mkdir()
    (root / "inbox" / "a.txt").write_text(text)
    (root / "outside.txt").write_text(outside.text)
    with Ledger.open(root=root) as ledger:
        ledger.start_run(replace(RUN, parameters={"source": "inbox"}))
        for document in (inside, replace(outside, id="../outside.txt")):
            for level in ("internal", "restricted"):
                suffix = "" if level == "internal" else f"#{level}"
                own = replace(document, id=f"{document.id}{suffix}")
                made = Outcome(
                    step="classify",
                    status="accepted",
                    value={"quote": "money back"},
                    model="small",
                    sensitivity=level,
                )
                asyncio.run(ledger.record_outcome(RUN.id, own, made))
    with desk_at(root) as served:
        viewer = served.signed_in("viewer")
        words = "says the letter"  # those around a mark are apart
        page = viewer.get(document_path(RUN.id, "a.txt")).text
        assert words in page
        assert "<mark" in page
        admin = served.signed_in()
        for name in ("a.txt#restricted", "../outside.txt#restricted"):
            hidden = text_of(viewer.get(document_path(RUN.id, name)).text)
            assert words not in hidden
        assert words in admin.get(document_path(RUN.id, "a.txt#restricted")).text
        other = text_of(admin.get(document_path(RUN.id, "../outside.txt")).text)
        assert outside.text not in other
