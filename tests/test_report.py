"""The report: figures from a real ledger whose every number is known, and the page that shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.ledgers import DATABASES, RUN, migrated_url
from tests.kit.letters import classify, letter
from tests.kit.projects import make_project, model
from tests.kit.reported_runs import (
    CENT,
    CHAIN,
    LARGE,
    SMALL,
    TODAY,
    Page,
    proof,
    record,
)
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise.ledger import Ledger
from tierwise.policy.catalog import load_catalog
from tierwise.policy.certificates import lower_bound
from tierwise.records import Rejection, Route, Usage, Verdict
from tierwise.report.build import RunReport, build_report
from tierwise.report.document_rows import document_rows
from tierwise.report.figures import CertificateState, ProjectFacts
from tierwise.report.interval import interval
from tierwise.report.page import render_page
from tierwise.text.tokens import count_tokens

BAD, GOOD = (
    Verdict("length", False, "the secret is 41 words long"),
    Verdict("length", True),
)
BARRED = Route(
    step="classify",
    rule="r",
    models=("small",),
    rejected=(
        Rejection(
            "large", "guard stays-local: only local", "guard", detail="stays-local"
        ),
    ),
)
ON_SQLITE = pytest.mark.parametrize(
    "ledger", ["sqlite"], indirect=True
)  # what no database could change


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(migrated_url(request.param, tmp_path), root=tmp_path) as opened:
        yield opened


def record_a_run(ledger: Ledger, run_id: str = RUN.id, **changes: Any) -> None:
    """One answer at once, one after an escalation, one that a guard keeps at home, one reused, one failed call."""
    ledger.start_run(replace(RUN, id=run_id, **changes))
    record(ledger, "a", {**SMALL, "verdicts": (GOOD,)}, run_id=run_id)
    escalated = (
        {**SMALL, "verdicts": (BAD,)},
        {**LARGE, "kind": "escalation", "verdicts": (GOOD,)},
    )
    record(ledger, "b", *escalated, run_id=run_id, model="large")
    record(
        ledger,
        "c",
        {**SMALL, "verdicts": (GOOD,)},
        run_id=run_id,
        route=BARRED,
        sensitivity="confidential",
    )
    record(ledger, "d", {**SMALL, "reused": True, "cost": Decimal(0)}, run_id=run_id)
    failed = {
        **SMALL,
        "error": "RateLimited",
        "usage": None,
        "cost": Decimal(0),
        "error_text": "small: slow down",
    }
    record(ledger, "e", failed, {**SMALL, "kind": "retry"}, run_id=run_id)


@pytest.fixture
def facts(tmp_path: Path) -> ProjectFacts:
    """`small` at 1 and 2 USD for a million tokens, `large` at 10 and 50, `mystery` stronger and without a price."""
    dear = "{input: 10, output: 50, source: test, date: 2026-11-01}"
    root = make_project(
        tmp_path / "project",
        model("small", "http://127.0.0.1:1"),
        model("large", "http://127.0.0.1:1", strength=50, price=dear),
        model("mystery", "http://127.0.0.1:1", strength=90, price="unknown"),
    )
    return ProjectFacts(catalog=load_catalog(root / "routing_rules" / "catalog.yaml"))


def gathered(ledger: Ledger, facts: ProjectFacts, *run_ids: str) -> RunReport:
    return build_report(
        ledger,
        [ledger.runs.resolve(run_id) for run_id in run_ids or (RUN.id,)],
        facts,
        TODAY,
    )


# ---- figures ------------------------------------------------------------------------------------


def test_savings_price_each_needed_call_once_at_the_strongest_model_with_a_price(
    ledger: Ledger, facts: ProjectFacts
) -> None:
    """Escalations, reused answers and failed calls are not priced again; what a guard keeps home costs the same."""
    record_a_run(ledger)
    report = gathered(ledger, facts)
    [row] = report.savings
    one = (1000 * 10 + 100 * 50) / Decimal(1_000_000)
    assert report.best == "large"
    assert row.cost == 14 * CENT  # four answers of small, one of large
    assert row.best_cost == 3 * one + CENT  # a, b and e there; c stays at home
    assert (row.calls, row.barred, row.uncounted) == (4, 1, 0)
    assert row.saved == row.best_cost - row.cost
    assert report.saving is not None
    assert report.saving.saved == row.saved


def test_where_a_classifier_was_asked_first_the_call_that_followed_is_the_needed_one(
    ledger: Ledger, facts: ProjectFacts
) -> None:
    """Its own answers took no tokens, so what it kept is not priced anywhere else, and is said to be missing."""
    ledger.start_run(RUN)
    words = {
        "model": "words",
        "tier": "local",
        "usage": Usage(0, 0),
        "cost": Decimal(0),
    }
    record(ledger, "kept", words)
    record(
        ledger,
        "handed-on",
        words,
        {**SMALL, "kind": "escalation"},
        {**LARGE, "kind": "escalation"},
    )
    [row] = gathered(ledger, facts).savings
    assert row.best_cost == (1000 * 10 + 100 * 50) / Decimal(1_000_000)
    assert (row.calls, row.uncounted) == (1, 1)


def test_what_a_classifier_kept_is_estimated_from_the_prompt_and_the_answer(
    ledger: Ledger, facts: ProjectFacts
) -> None:
    """By the tokens on record in its route and those of the answer; what a guard keeps at home or is gone is not."""
    ledger.start_run(RUN)
    words = {
        "model": "words",
        "tier": "local",
        "usage": Usage(0, 0),
        "cost": Decimal(0),
    }
    known = replace(CHAIN, features={"prompt_tokens": 700})
    value = {"label": "billing", "evidence": "my invoice is wrong"}
    record(ledger, "kept", words, value=value, route=known)
    record(ledger, "kept too", words, value=value, route=known)
    record(
        ledger,
        "at home",
        words,
        value=value,
        route=replace(BARRED, features={"prompt_tokens": 700}),
    )
    record(ledger, "gone", words, value=None, route=known)
    record(ledger, "handed-on", words, {**LARGE, "kind": "escalation"})
    [row] = gathered(ledger, facts).savings
    answer = count_tokens(json.dumps(value))
    one = Decimal(700 * 10 + answer * 50) / 1_000_000
    assert row.best_cost == 2 * one + Decimal(1000 * 10 + 100 * 50) / 1_000_000
    assert (row.calls, row.estimated, row.uncounted) == (1, 2, 1)
    assert row.saved == row.best_cost - 10 * CENT
    html = shown(ledger, facts)
    assert "about 0.0" in html
    assert "2 documents have no token counts" in html
    assert "1 calls have no token counts and are missing there" in html


def test_a_saving_is_unknown_where_a_cost_is(
    ledger: Ledger, facts: ProjectFacts
) -> None:
    record_a_run(ledger)
    record(ledger, "f", {**SMALL, "cost": None})
    [row] = gathered(ledger, facts).savings
    assert row.cost is None
    assert row.saved is None
    assert row.share is None


@ON_SQLITE
@pytest.mark.parametrize(
    ("proofs", "quality", "evidence"),
    [
        ((), None, "no certificate in force for large"),
        ((proof("large", errors=2),), None, "no certificate in force for small"),
        (
            (proof("large", errors=2), proof("small", errors=7, void="it expired")),
            None,
            "no certificate in force",
        ),
        (
            (proof("large", errors=2), proof("small", errors=7, golden="h" * 64)),
            None,
            "on different examples",
        ),
        (
            (proof("large", errors=2), proof("small", errors=7)),
            -0.05 * 4 / 5,
            "large 98.0% of 100; small 93.0% of 100",
        ),
    ],
)
def test_the_quality_that_a_saving_costs_is_known_only_from_certificates_in_force(
    ledger: Ledger,
    facts: ProjectFacts,
    proofs: tuple[CertificateState, ...],
    quality: float | None,
    evidence: str,
) -> None:
    """An answer of the strongest model is as good as its own; the others count by their certified accuracies."""
    record_a_run(ledger)
    [row] = gathered(ledger, replace(facts, certificates=proofs)).savings
    assert row.quality == (None if quality is None else pytest.approx(quality))
    assert evidence in row.evidence


def test_check_rates_have_exact_intervals(ledger: Ledger, facts: ProjectFacts) -> None:
    """Clopper and Pearson for 2 of 3: 9.4 to 99.2 %."""
    record_a_run(ledger)
    small, large = gathered(ledger, facts).checks
    assert (small.model, small.passed, small.scored) == ("small", 2, 3)
    assert small.interval == pytest.approx((0.0943, 0.9916), abs=1e-4)
    assert (large.model, large.passed, large.scored) == ("large", 1, 1)
    assert interval(0, 0) is None
    assert interval(10, 10) == pytest.approx((0.6915, 1.0), abs=1e-4)


@pytest.mark.parametrize("n", [1, 7, 100, 5000])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.97, 1])
def test_intervals_agree_with_those_of_certificates(n: int, share: float) -> None:
    """Reports compute them without SciPy."""
    passed = round(share * n)
    low = lower_bound(n - passed, n, alpha=0.025)
    high = 1 - lower_bound(passed, n, alpha=0.025)
    assert interval(passed, n) == pytest.approx((low, high), abs=1e-10)


def test_several_runs_add_up_and_are_charged_to_their_tags(
    ledger: Ledger, facts: ProjectFacts
) -> None:
    """A document counts once a run, and a run under each of its tags."""
    record_a_run(ledger, "one", tags={"team": "claims"})
    record_a_run(
        ledger,
        "two",
        tags={"team": "claims", "site": "Oslo"},
        started_at=RUN.started_at + 60,
    )
    record_a_run(ledger, "three", started_at=RUN.started_at + 120)
    report = gathered(ledger, facts, "three", "two", "one")
    small, large = report.rows
    assert (small.documents, small.cost_known, large.escalations) == (15, 12 * CENT, 0)
    assert small.escalations == 3
    assert small.errors == {"RateLimited": 3}
    assert [(c.tag, c.value, c.runs, c.cost_known) for c in report.charges] == [
        ("site", "Oslo", 1, 14 * CENT),
        ("team", "claims", 2, 28 * CENT),
        ("", "", 1, 14 * CENT),
    ]
    assert [point.run_id for point in report.trend] == ["one", "two", "three"]
    assert [r.id for r in ledger.runs.since(RUN.started_at + 60)] == ["three", "two"]


def test_the_trend_of_a_run_is_that_of_its_flow_until_then(
    ledger: Ledger, facts: ProjectFacts
) -> None:
    record_a_run(ledger, "one")
    ledger.start_run(
        replace(RUN, id="other", flow="contracts", started_at=RUN.started_at + 1)
    )
    record_a_run(ledger, "two", started_at=RUN.started_at + 60)
    record_a_run(ledger, "later", started_at=RUN.started_at + 120)
    points = gathered(ledger, facts, "two").trend
    assert [point.run_id for point in points] == ["one", "two"]
    assert points[0].cost == 14 * CENT / 5
    assert points[0].passed == pytest.approx(3 / 4)


def test_what_needs_attention_comes_with_its_command(
    ledger: Ledger, facts: ProjectFacts
) -> None:
    """A stopped run, money, a person, setup, evidence, labels."""
    parameters = {"source": "my inbox", "budget_usd": "0.1", "only": "None"}
    ledger.start_run(
        replace(
            RUN,
            flow="support-inbox",
            flow_run_id="f",
            parameters=parameters,
            budget_usd=Decimal("0.1"),
        )
    )
    away = {**SMALL, "error": "AuthenticationFailed", "usage": None, "cost": Decimal(0)}
    record(
        ledger,
        "a",
        {**SMALL, "cost": None},
        away,
        status="deferred",
        cause="budget",
        reason="small is out of money",
    )
    record(
        ledger,
        "b",
        {**LARGE},
        status="deferred",
        cause="failed_checks",
        reason="small: length",
    )
    wanted = replace(facts, floors={"classify": 0.9, "draft": 0.9}, labels_wanted=2)
    found = {item.text: item.command for item in gathered(ledger, wanted).attention}
    again = "tierwise run support_inbox --source 'my inbox' --budget-usd"
    assert found == {
        f"run {RUN.id} has not ended: it still runs, or it was stopped; what was paid is reused": f"{again} 0.1",
        "No money left: 1 document in classify": f"{again} 0.2",
        "No allowed model answered well: 1 document in classify": f"tierwise review {RUN.id}",
        "1 call of unknown cost: sent, then failed or cut off, or without token counts": f"tierwise show {RUN.id}",
        "0.100000 USD of a budget of 0.100000 USD are spent": f"{again} 0.2",
        "1 call to small ended in AuthenticationFailed": "tierwise doctor",
        "no certificate is in force for classify": "tierwise certify classify",
        "waiting for a label: 2 answers": "tierwise label",
    }


def test_documents_that_wait_for_a_review_are_listed_with_all_their_steps(
    ledger: Ledger, facts: ProjectFacts
) -> None:
    ledger.start_run(RUN)
    waits = {"status": "deferred", "cause": "review", "reason": "waits for a person"}
    record(ledger, "a", **waits)
    record(ledger, "b", step="draft", **waits)
    texts = [item.text for item in gathered(ledger, facts).attention]
    assert "For a person's review: 2 documents in classify, draft" in texts


# ---- the page -----------------------------------------------------------------------------------


def shown(ledger: Ledger, facts: ProjectFacts, **options: Any) -> str:
    runs = [ledger.runs.resolve(RUN.id)]
    return render_page(
        build_report(ledger, runs, facts, TODAY), document_rows(ledger, runs, **options)
    )


@ON_SQLITE
def test_the_page_loads_nothing_and_its_policy_forbids_it(
    ledger: Ledger, facts: ProjectFacts
) -> None:
    record_a_run(ledger)
    found = Page(shown(ledger, facts))
    [policy] = [
        a["content"]
        for tag, a in found.tags
        if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-\S{44}'; script-src 'sha256-\S{44}'; "
        r"base-uri 'none'; form-action 'none'",
        str(policy),
    )
    assert {
        tag
        for tag, a in found.tags
        if "src" in a or tag in ("link", "img", "iframe", "base", "object")
    } == set()
    assert all(str(a["href"]).startswith("#") for tag, a in found.tags if "href" in a)
    assert not [
        a
        for _, a in found.tags
        if "style" in a or any(name.startswith("on") for name in a)
    ]


@ON_SQLITE
def test_what_looks_like_markup_stays_text(ledger: Ledger, facts: ProjectFacts) -> None:
    """In a flow's name, a tag, a document's id and an answer; a lone surrogate does not stop the page."""
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    ledger.start_run(replace(RUN, flow=attack, tags={attack: attack}))
    record(
        ledger,
        f"{attack}\udcff",
        {**SMALL, "verdicts": (Verdict("length", False, attack),)},
        value={"a": attack},
    )
    html = shown(ledger, facts)
    html.encode()
    found = Page(html)
    assert sum(tag == "script" for tag, _ in found.tags) == 2
    assert "img" not in {tag for tag, _ in found.tags}
    assert found.data["documents"][0][0].startswith(attack)
    assert json.dumps({"a": attack}) in found.data["texts"]


@ON_SQLITE
@pytest.mark.parametrize("level", ["confidential", "restricted"])
def test_what_may_quote_a_confidential_document_is_left_out_unless_asked_for(
    ledger: Ledger, facts: ProjectFacts, level: str
) -> None:
    """The id, the route, the model and the checks' names stay; answers and reasons go."""
    ledger.start_run(RUN)
    failed = {"error": "BadReply", "error_text": "small: said my secret"}
    tried = ({**SMALL, "verdicts": (BAD,)}, {**SMALL, "kind": "retry", **failed})
    record(
        ledger,
        "memo",
        *tried,
        sensitivity=level,
        value="my secret",
        reason="small: length: the secret is long",
    )
    record(ledger, "open", {**SMALL, "verdicts": (GOOD,)}, value="not hidden")
    html = shown(ledger, facts)
    assert "secret" not in html
    for kept in ("memo", "length", "BadReply", "not hidden", level):
        assert kept in html
    everything = shown(ledger, facts, with_answers=True)
    assert all(
        part in everything
        for part in ("my secret", "the secret is 41 words long", "the secret is long")
    )


@ON_SQLITE
def test_a_confidential_document_that_no_model_saw_still_says_why(
    ledger: Ledger, facts: ProjectFacts
) -> None:
    """The reason is then the router's own, which quotes nothing."""
    ledger.start_run(RUN)
    why = "no acceptable model is left (route r)"
    record(
        ledger,
        "memo",
        sensitivity="restricted",
        status="deferred",
        model=None,
        value=None,
        reason=why,
    )
    assert why in shown(ledger, facts)


@ON_SQLITE
def test_a_run_without_anything_has_a_page_that_says_so(ledger: Ledger) -> None:
    ledger.start_run(RUN)
    html = shown(ledger, ProjectFacts())
    for told in (
        "No model was called",
        "No answer was checked",
        "No call ended in an error",
        "Only one run so far",
    ):
        assert told in html


# ---- the commands -------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    """A project with one run on record: a document answered, and one that is confidential."""
    answer = json.dumps({"label": "billing", "evidence": "my invoice is wrong"})
    standin.answer(answer)
    root = make_project(
        tmp_path, model("small", standin.url), model("large", standin.url, strength=20)
    )
    classify(root, letter(), letter("memo.txt", sensitivity="confidential"))
    return root


def test_report_writes_one_file_and_prints_its_path(
    terminal: Terminal, project: Path
) -> None:
    done = terminal("report", cwd=project)
    assert done.code == 0, done.err
    path = Path(done.out.strip())
    assert path.parent == project / ".tierwise" / "reports"
    assert "mail-07.txt" in path.read_text()
    assert path.read_text().count("my invoice is wrong") == 1


def test_answers_of_confidential_documents_come_with_with_answers(
    terminal: Terminal, project: Path
) -> None:
    out = project / "r.html"
    terminal("report", "latest", "-o", out, "--with-answers", cwd=project)
    memo = next(
        d for d in Page(out.read_text()).data["documents"] if d[0] == "memo.txt"
    )
    assert memo[3][0][8] >= 0
    terminal("report", "latest", "-o", out, cwd=project)
    memo = next(
        d for d in Page(out.read_text()).data["documents"] if d[0] == "memo.txt"
    )
    assert memo[3][0][8] == -2


def test_report_since_takes_all_runs_of_a_span(
    terminal: Terminal, project: Path
) -> None:
    classify(project, letter("new.txt"))
    out = project / "week.html"
    done = terminal("report", "--since", "7d", "-o", out, cwd=project)
    assert done.code == 0, done.err
    assert len(Page(out.read_text()).data["runs"]) == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("--since", "a week"),
            "--since takes a span such as 12h, 7d or 4w; not 'a week'",
        ),
        (("latest", "--since", "7d"), "name a run or give --since, not both"),
        (("nothing",), "no run named 'nothing'"),
    ],
)
def test_a_wrong_report_command_says_what_is_right(
    terminal: Terminal, project: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = terminal("report", *arguments, cwd=project)
    assert done.code == 2
    assert told in done.err


def test_a_broken_catalog_takes_the_savings_not_the_past(
    terminal: Terminal, project: Path
) -> None:
    (project / "routing_rules" / "catalog.yaml").write_text("version: 1\n")
    done = terminal("show", "--json", cwd=project)
    assert done.code == 0
    assert "without savings and certificates:" in done.err
    data = json.loads(done.out)
    assert data["savings"]["steps"] == []
    assert data["run"]["documents"] == 2


def test_show_tells_checks_savings_and_what_needs_attention(
    terminal: Terminal, project: Path
) -> None:
    """In the terminal with intervals; as JSON with numbers."""
    text = terminal("show", cwd=project).out
    for part in (
        "95 % interval",
        "2 of 2",
        "16% to 100%",
        "Against always large",
        "unknown",
        "no certificate in force",
    ):
        assert part in text
    data = json.loads(terminal("show", "--json", cwd=project).out)
    assert data["checks"][0]["interval"] == pytest.approx([0.1581, 1.0], abs=1e-4)
    assert data["savings"]["against"] == "large"
    assert data["attention"]
    head = terminal("show", "--csv", cwd=project).out.splitlines()[0]
    assert ",pass rate,95 % interval," in head


def test_runs_gives_scripts_numbers(terminal: Terminal, project: Path) -> None:
    [row] = json.loads(terminal("runs", "--json", cwd=project).out)
    assert row["documents"] == 2
    assert Decimal(row["cost"]) == Decimal(row["cost_known"]) > 0
