"""Plans: what a run would do and cost, without a call; held against what the engine then does."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow

from tasks.classify import classify
from tasks.draft import draft
from tasks.summarize import summarize
from tests.kit.ledgers import (
    DATABASES,
    DOCUMENT,
    REPLY,
    RUN,
    attempt,
    migrated_url,
    run,
)
from tests.kit.projects import ROOT, make_project, model
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise import Document, read_documents, recorded_run, redact, write_documents
from tierwise.engine import Engine
from tierwise.errors import TierwiseError
from tierwise.ledger import Ledger
from tierwise.orchestrate.dry_run import dry_run
from tierwise.plan import Plan, Planner, Sampler, choose, save_plan, take_plan
from tierwise.plan.sampler import whole_batch
from tierwise.project import Project
from tierwise.records import Batch, Outcome
from tierwise.report import summarize_run

LABELS = ["delivery", "praise"]
TEXTS = {
    "a.txt": "The parcel with my desk has not arrived, the tracking page says nothing since Monday.",
    "b.txt": "Thank you for the lovely chair, it is the best thing in my whole office. No need to answer.",
    "c.txt": "The lamp came without its bulb, so I am sitting in the dark and cannot read your manual.",
}
PICK = """
    version: 1
    floors: {classify: 0.9}
    routes: [{name: proven, pick: cheapest_capable}]
"""


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def root(tmp_path: Path, standin: Standin) -> Path:
    standin.answer(answered("delivery"))
    return make_project(
        tmp_path / "project",
        model("small", standin.url),
        model("large", standin.url, strength=20),
    )


def answered(label: str) -> Callable[[Any], str]:
    """A provider that classifies as told and otherwise answers with words of the document."""

    def reply(request: Any) -> str:
        words = " ".join(request.document.split()[:6])
        return json.dumps(
            {
                name: label if name == "label" else words
                for name in request.schema["properties"]
            }
        )

    return reply


def planned(
    root: Path, job: Any, *, budget: float | None = None, **parameters: Any
) -> Plan:
    """The plan of a flow function that takes a source."""
    with closing(Planner(Project(root), env={})) as planner:
        dry_run(_flow(job, budget), parameters, planner)
        return planner.plan("test", {})


def sampled(root: Path, job: Any, *ids: str, **parameters: Any) -> Any:
    """What a flow costs for real over some documents."""
    with closing(Sampler(Project(root), "test", ids, env={})) as sampler:
        dry_run(_flow(job, None), parameters, sampler)
        return sampler.sample(of=10)


def _flow(job: Callable[..., Any], budget: float | None) -> Any:
    def test_flow(source: Path) -> Any:
        with recorded_run(budget_usd=budget) as run:
            job(read_documents(source, sensitivity="internal"))
        return run.summary()

    return flow(test_flow)


def sort(inbox: list[Batch]) -> Any:
    return classify.map(inbox, labels=LABELS)


def needs_reply(message: Document) -> bool:
    return bool(message.value("classify")["label"] != "praise")


def sort_and_answer(inbox: list[Batch]) -> Any:
    return draft.map(
        sort(inbox),
        sender="us",
        max_words=50,
        only=needs_reply,
    )


# ---- the command line --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source", "calls"),
    [("support_inbox", "inbox", 36), ("contract_intake", "contracts", 12)],
)
def test_a_shipped_flow_is_planned_without_a_call_a_run_or_a_result(
    terminal: Terminal, root: Path, standin: Standin, name: str, source: str, calls: int
) -> None:
    done = terminal(
        "plan",
        name,
        "--source",
        ROOT / "examples" / source,
        "--out",
        root / "out",
        "--json",
        cwd=root,
    )
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert plan["documents"] == calls / 3
    assert sum(row["documents"] for row in plan["routes"]) == calls
    assert sum(row["calls"] for row in plan["rows"]) == calls
    assert {row["model"] for row in plan["routes"]} == {"small"}
    assert Decimal(plan["expected"]) < Decimal(plan["most"])
    assert standin.count == 0
    assert not (root / "out").exists()
    with Ledger.open(root=root) as ledger:
        assert ledger.runs.newest() == []


def test_the_table_says_where_documents_go_and_what_they_cost(
    terminal: Terminal, root: Path, inbox: Path
) -> None:
    (inbox / "empty.txt").write_text("")
    done = terminal("plan", "support_inbox", "--source", inbox, cwd=root)
    assert done.code == 0, done.err
    assert "plan for 4 documents" in done.out
    assert re.search(r"classify +default +small +3 ", done.out)
    assert "half of the limit of 60 tokens" in done.out
    assert (
        "Assumed for 3 documents: that draft applies (needs_reply is not known yet)"
        in done.out
    )
    assert re.search(r"read +1 +empty.txt +the file is empty", done.out)
    assert "Always the strongest that is allowed and available (large)" in done.out
    assert re.search(
        r"4 documents, about 9 calls; expected cost 0\.00\d+ USD, at most 0\.0\d+ USD",
        done.out,
    )


def test_wrong_options_are_told_as_run_tells_them(
    terminal: Terminal, root: Path
) -> None:
    assert terminal("plan", "support_inbox", "--sauce", "x", cwd=root).code == 2
    assert (
        "did you mean 'support_inbox'" in terminal("plan", "support_inbx", cwd=root).err
    )
    assert "--budget-usd" in terminal("plan", "support_inbox", "--help", cwd=root).out
    assert (
        "no/such"
        in terminal("plan", "support_inbox", "--source", "no/such", cwd=root).err
    )


def test_a_sample_asks_first_and_then_runs_so_many_documents_and_no_others(
    terminal: Terminal,
    root: Path,
    inbox: Path,
    standin: Standin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the sample paid is reused afterwards: the plan that follows counts it."""
    command = ("plan", "support_inbox", "--source", inbox, "--sample", 2)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    refused = terminal(*command, cwd=root)
    assert refused.code == 1
    assert "2 documents for real: about 0.00" in refused.err
    assert standin.count == 0
    done = terminal(*command, "--yes", "--json", cwd=root)
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert standin.count == 6
    assert len({request.document for request in standin.requests}) == 2
    assert plan["sample"]["documents"] == 2
    assert 0 < Decimal(plan["sample"]["p50"]) <= Decimal(plan["sample"]["p95"])
    assert sum(row["reused"] for row in plan["rows"]) == 6
    assert sum(row["calls"] for row in plan["rows"]) == 9
    assert "earlier calls" in plan["rows"][0]["basis"]
    assert plan["seconds_most"] > 0
    again = json.loads(terminal(*command, "--yes", "--json", cwd=root).out)
    assert again["sample"]["paid"] == "0"
    assert Decimal(again["sample"]["mean"]) == Decimal(plan["sample"]["mean"])
    assert standin.count == 6


def test_the_next_run_shows_the_plan_beside_what_came_of_it(
    prefect_server: str, terminal: Terminal, root: Path, inbox: Path
) -> None:
    """The plan goes to one run, of the same flow with the same parameters."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter

    options = (
        "support_inbox",
        "--source",
        inbox,
        "--out",
        root / "out",
        "--budget-usd",
        2,
    )
    plan = json.loads(terminal("plan", *options, "--json", cwd=root).out)
    other = terminal("run", *options[:-1], 1, "--json", "--fresh", cwd=root)
    assert json.loads(other.out)["against_plan"] == []
    done = json.loads(terminal("run", *options, "--fresh", "--json", cwd=root).out)
    *rows, total = done["against_plan"]
    assert (rows[0]["step"], rows[0]["model"]) == ("classify", "small")
    assert total["planned_documents"] == total["documents"] == 3
    assert total["planned_calls"] == total["calls"] == 9
    assert total["planned_cost"] == plan["expected"]
    assert total["deviation"] == pytest.approx(
        float(Decimal(total["cost"]) / Decimal(plan["expected"])) - 1
    )
    shown = terminal("show", done["run"]["id"], cwd=root).out
    assert "Planned, and what came of it" in shown
    assert f"{total['deviation']:+.0%}" in shown
    assert (
        json.loads(terminal("run", *options, "--json", cwd=root).out)["against_plan"]
        == []
    )
    chosen = FlowRunFilter(id={"any_": [done["run"]["flow_run_id"]]})  # type: ignore[arg-type]
    with get_client(sync_client=True) as client:
        keys = {
            artifact.key for artifact in client.read_artifacts(flow_run_filter=chosen)
        }
    assert keys >= {"support-inbox-summary", "support-inbox-plan"}


# ---- what is planned -----------------------------------------------------------------------------


def test_a_plan_says_of_each_document_what_the_engine_then_does(
    root: Path, inbox: Path
) -> None:
    """The same routes, calls and prompts; costs within the error of counting tokens."""
    plan = planned(root, sort, source=inbox)
    with Engine(Project(root), env={}) as engine:
        context = engine.start_run("test")
        documents = tuple(
            Document(id=name, text=text, sensitivity="internal")
            for name, text in TEXTS.items()
        )
        engine.run_batch(context, classify.spec, Batch(documents), {"labels": LABELS})
        [row] = summarize_run(engine.ledger.runs, context.id).rows
    [mine, *_] = plan.rows
    assert (mine.step, mine.tier, mine.model, mine.calls) == (
        row.step,
        row.tier,
        row.model,
        row.attempts,
    )
    assert mine.prompt_tokens == pytest.approx(row.prompt_tokens, rel=0.25)
    assert row.cost_known < plan.most


def test_paid_answers_cost_nothing_and_their_outcomes_are_known(
    root: Path, inbox: Path, standin: Standin
) -> None:
    """Two are praise by the ledger, so nobody has to assume that they need a reply."""
    standin.answer(answered("praise"))
    sampled(root, sort, "a.txt", "b.txt", source=inbox)
    plan = planned(root, sort_and_answer, source=inbox)
    assert plan.skipped == {"draft": 2}
    assert plan.assumed == {"that draft applies (needs_reply is not known yet)": 1}
    first, *_ = plan.rows
    assert (first.calls, first.reused) == (3, 2)
    sampled(root, sort, *TEXTS, source=inbox)
    assert planned(root, sort, source=inbox).expected == 0


def test_equal_documents_are_paid_once(root: Path, inbox: Path) -> None:
    (inbox / "z.txt").write_text(TEXTS["a.txt"])
    [row, *_] = planned(root, sort, source=inbox).rows
    assert (row.calls, row.reused) == (4, 1)


def test_failed_answers_in_the_ledger_are_expected_to_escalate(
    root: Path, inbox: Path, standin: Standin
) -> None:
    """Half of small's earlier answers failed, so half of the documents should reach large."""
    for number in range(4):
        (inbox / f"{number}.txt").write_text(
            f"Where is parcel number {number}? I have waited for {number} weeks."
        )
    good, bad = answered("delivery"), answered("nonsense")
    standin.answer(
        lambda request: (
            bad if "parcel" in request.document and request.model == "small" else good
        )(request)
    )
    sampled(root, sort, *TEXTS, *(f"{n}.txt" for n in range(3)), source=inbox)
    (inbox / "new.txt").write_text(
        "A chair with three legs has come instead of one with four."
    )
    small, large = planned(root, sort, source=inbox).rows
    # asked again: new.txt and 3.txt; a.txt and 0 to 2 have failed on small and went on to large
    assert small.calls - small.reused == 2
    assert large.calls - large.reused == pytest.approx(2 * 4 / 6)
    assert "33% passed" in small.basis


def test_re_asks_are_part_of_what_a_plan_expects_and_of_the_most_it_can_cost(
    root: Path, inbox: Path, standin: Standin
) -> None:
    """Two of three earlier answers were asked for again, so two of three new ones should be."""

    def reply(request: Any) -> str:
        is_first = len(request.body["messages"]) == 2
        has_failed = is_first and "lamp" not in request.document
        return answered("nonsense" if has_failed else "delivery")(request)

    standin.answer(reply)
    rules = root / "routing_rules" / "rules.yaml"
    without = rules.read_text()
    rules.write_text(without + "escalate: {reask: 1}\n")
    sampled(root, sort, *TEXTS, source=inbox)
    (inbox / "new.txt").write_text("A chair with three legs has come, not four.")
    [small, *_] = planned(root, sort, source=inbox).rows
    assert small.calls - small.reused == pytest.approx(1 + 2 / 3)
    rules.write_text(without)
    [unasked, *_] = planned(root, sort, source=inbox).rows
    assert unasked.calls - unasked.reused == pytest.approx(1)
    assert small.most > unasked.most


def test_a_condition_on_what_is_known_is_not_assumed(root: Path, inbox: Path) -> None:
    plan = planned(
        root,
        lambda batches: summarize.map(
            sort(batches),
            max_words=30,
            only=lambda message: message.id != "a.txt",
        ),
        source=inbox,
    )
    assert plan.skipped == {"summarize": 1}
    assert plan.assumed == {}


def test_a_condition_that_fails_over_what_is_known_is_the_flows_error(
    root: Path, inbox: Path
) -> None:
    def broken(message: Document) -> bool:
        return bool(message.metadata["no such key"])

    with pytest.raises(
        TierwiseError, match=r"raised KeyError: 'no such key' \(.*test_plan.py:\d+\)"
    ):
        planned(
            root,
            lambda b: summarize.map(sort(b), max_words=30, only=broken),
            source=inbox,
        )


def test_an_unknown_price_is_counted_and_never_zero(
    tmp_path: Path, inbox: Path, standin: Standin
) -> None:
    root = make_project(
        tmp_path / "p",
        model("small", standin.url, price="unknown"),
        model("large", standin.url),
    )
    plan = planned(root, sort, source=inbox)
    assert (plan.expected, plan.unknown) == (0, 3)
    assert "expected cost unknown (3 calls)" in plan.headline()
    assert plan.rows[0].cells()["expected"] == "unknown (3 calls)"


def test_a_budget_that_runs_out_defers_the_rest(root: Path, inbox: Path) -> None:
    whole = planned(root, sort, source=inbox)
    plan = planned(root, sort, source=inbox, budget=float(whole.most) / 6)
    [waiting] = plan.waiting
    assert 0 < waiting.documents < 3
    assert "the budget has" in waiting.reason
    assert plan.most <= plan.budget_usd


def test_a_limit_that_runs_share_holds_for_a_plan_too(root: Path, inbox: Path) -> None:
    most = planned(root, sort, source=inbox).most
    rules = root / "routing_rules" / "rules.yaml"
    rules.write_text(
        f"{rules.read_text()}budget: {{limits: [{{usd: {most / 6:f}, per: day}}]}}\n"
    )
    [waiting] = planned(root, sort, source=inbox).waiting
    assert 0 < waiting.documents < 3
    assert "the budget has" in waiting.reason


def test_what_no_model_may_see_is_deferred_with_the_reason(
    tmp_path: Path, inbox: Path, standin: Standin
) -> None:
    """A guard, a variable that is not set, and a window that is too small."""
    keyed = model("large", standin.url).replace(
        "api_key: test", 'api_key: "${NO_SUCH_KEY}"'
    )
    root = make_project(
        tmp_path / "p", model("small", standin.url, tier="proprietary"), keyed
    )
    (inbox / "secret.md").write_text(
        "---\nsensitivity: confidential\n---\nAfter my operation I cannot lift the desk."
    )
    [waiting] = planned(root, sort, source=inbox).waiting
    assert (waiting.step, waiting.documents, waiting.first) == (
        "classify",
        1,
        ("secret.md",),
    )
    assert "guard confidential-stays-local" in waiting.reason
    assert "set NO_SUCH_KEY" in waiting.reason


def test_a_review_holds_a_document_back_and_later_steps_skip_it(
    tmp_path: Path, inbox: Path, standin: Standin
) -> None:
    rules = """
        version: 1
        routes: [{name: careful, when: {step: classify}, try: [small], review: human}, {name: rest, try: [small]}]
    """
    root = make_project(tmp_path / "p", model("small", standin.url), rules=rules)
    plan = planned(root, sort_and_answer, source=inbox)
    assert [(w.documents, w.reason) for w in plan.waiting] == [
        (3, "waits for a person's review (route careful)")
    ]
    assert plan.skipped == {"draft": 3}
    assert [row.step for row in plan.rows] == ["classify"]


def test_a_route_that_looks_at_unknown_outcomes_is_named(
    tmp_path: Path, inbox: Path, standin: Standin
) -> None:
    rules = """
        version: 1
        routes:
          - {name: thanks, when: {step: draft, outcomes: {classify.label: [delivery]}}, try: [large]}
          - {name: rest, try: [small]}
    """
    root = make_project(
        tmp_path / "p",
        model("small", standin.url),
        model("large", standin.url),
        rules=rules,
    )
    standin.answer(answered("delivery"))
    plan = planned(root, sort_and_answer, source=inbox)
    assert (
        plan.assumed[
            "that no rule about outcomes holds for draft (they are not known yet)"
        ]
        == 3
    )
    sampled(root, sort, *TEXTS, source=inbox)
    plan = planned(root, sort_and_answer, source=inbox)
    assert plan.assumed == {}
    assert {(row.step, row.route, row.model) for row in plan.routes} == {
        ("classify", "rest", "small"),
        ("draft", "thanks", "large"),
    }


def test_what_is_redacted_is_planned_as_what_it_becomes(
    tmp_path: Path, inbox: Path, standin: Standin
) -> None:
    """Redaction runs for real, since it asks no model; then a tier outside of the house may see the document."""
    hosted = model("small", standin.url, tier="proprietary")
    root = make_project(
        tmp_path / "p", hosted, model("large", standin.url, tier="proprietary")
    )
    (inbox / "secret.md").write_text(
        "---\nsensitivity: confidential\n---\nMy number is +49 30 901820, call me."
    )
    job = lambda batches: sort(redact.map(batches, to="internal"))  # noqa: E731
    [row] = planned(root, job, source=inbox).routes
    assert (row.model, row.documents) == ("small", 4)


def test_missing_proof_names_the_command(
    tmp_path: Path, inbox: Path, standin: Standin
) -> None:
    root = make_project(
        tmp_path / "p",
        model("small", standin.url),
        model("large", standin.url),
        rules=PICK,
    )
    [missing] = planned(root, sort, source=inbox).missing
    assert (
        "label examples in golden/classify.jsonl, then run `tierwise certify classify`"
        in missing
    )
    (root / "golden").mkdir()
    lines = [
        json.dumps({"id": str(n), "text": f"Parcel {n}", "label": "delivery"})
        for n in range(20)
    ]
    (root / "golden" / "classify.jsonl").write_text("\n".join(lines))
    (root / "golden" / "classify.yaml").write_text("parameters: {labels: [other]}")
    assert (
        "other parameters than this flow"
        in planned(root, sort, source=inbox).missing[0]
    )
    (root / "golden" / "classify.yaml").write_text(
        f"parameters: {{labels: {json.dumps(LABELS)}}}"
    )
    assert (
        planned(root, sort, source=inbox)
        .missing[0]
        .endswith("run `tierwise certify classify`")
    )


def test_a_long_document_is_planned_part_by_part(
    tmp_path: Path, inbox: Path, standin: Standin
) -> None:
    """As many calls as the engine then makes."""
    root = make_project(
        tmp_path / "p", model("small", standin.url, context=900), rules=PICK
    )
    text = " ".join(
        f"Sentence number {n} is about the delivery of a desk." for n in range(300)
    )
    (inbox / "a.txt").write_text(text)
    job = lambda batches: summarize.map(batches, max_words=30)  # noqa: E731
    [row] = planned(root, job, source=inbox).rows
    with Engine(Project(root), env={}) as engine:
        context = engine.start_run("test")
        document = Document(id="a", text=text, sensitivity="internal")
        engine.run_batch(context, summarize.spec, Batch((document,)), {"max_words": 30})
        calls = engine.ledger.runs.resolve(context.id).attempts
    assert row.calls - 2 == pytest.approx(calls, abs=1)
    assert calls > 5


def test_a_flow_may_submit_call_and_look_at_results(
    root: Path, inbox: Path, standin: Standin
) -> None:
    """Futures have results, also as arguments; a plain call gives a batch."""
    seen: list[int] = []

    def job(batches: list[Batch]) -> Path:
        future = classify.submit(batches[0], labels=LABELS)
        again = summarize.submit(future, max_words=30)
        seen.append(len(future.result().load()))
        seen.extend(len(batch.load()) for batch in sort(batches).result())
        answers = draft(again.result(), sender="us", max_words=40)
        seen.append(len(answers.load()))
        return write_documents([again, answers], Path("nowhere"))

    plan = planned(root, job, source=inbox)
    assert seen == [3, 3, 3]
    assert {row.step for row in plan.routes} == {"classify", "summarize", "draft"}
    assert standin.count == 0


def test_a_flow_that_raises_gives_its_error_and_its_place(
    root: Path, inbox: Path
) -> None:
    def job(_: list[Batch]) -> None:
        raise ValueError("no such colour")

    with pytest.raises(
        TierwiseError,
        match=r"flow test-flow raised ValueError: no such colour \(.*test_plan.py:\d+\)",
    ):
        planned(root, job, source=inbox)


def test_a_document_that_could_not_be_read_reaches_no_step(
    root: Path, inbox: Path
) -> None:
    (inbox / "empty.txt").write_text("")
    plan = planned(root, sort, source=inbox)
    assert [(w.step, w.documents) for w in plan.waiting] == [("read", 1)]
    assert plan.documents == 4
    assert plan.routes[0].documents == 3


# ---- evidence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", DATABASES)
def test_the_ledger_tells_how_a_step_went_before(database: str, tmp_path: Path) -> None:
    """Failed, reused and shadow calls say nothing of lengths; an outcome of another model is no pass."""
    with Ledger.open(migrated_url(database, tmp_path), root=tmp_path) as ledger:
        ledger.start_run(RUN)

        async def fill() -> None:
            await ledger.settle(RUN.id, attempt(call_hash="1"), REPLY)
            await ledger.settle(
                RUN.id, attempt(call_hash="2", kind="repair", latency_s=0.75), REPLY
            )
            await ledger.settle(
                RUN.id, attempt(call_hash="3", error="CallTimeout", usage=None), None
            )
            await ledger.settle(
                RUN.id, attempt(call_hash="4", kind="shadow", latency_s=99.0), REPLY
            )
            await ledger.settle(
                RUN.id, attempt(call_hash="1", document_id="b.txt", reused=True), None
            )
            await ledger.record_outcome(
                RUN.id,
                DOCUMENT,
                Outcome(step="classify", status="accepted", model="small"),
            )

        run(fill())
        [past] = ledger.history.past().values()
        assert (
            past.calls,
            past.repairs,
            past.documents,
            past.passed,
            past.pass_rate,
        ) == (
            2,
            1,
            2,
            1,
            0.5,
        )
        assert (past.completion_tokens, past.latency_s) == (50, 0.5)
        assert past.cached_share == pytest.approx(20 / 700)
        assert ledger.history.paid_calls("classify", "small") == {"1", "2", "4"}
        assert ledger.history.paid_calls("classify", "large") == frozenset()


def test_a_plan_waits_for_one_run_with_its_parameters(tmp_path: Path) -> None:
    plan = Plan(
        flow="inbox",
        parameters={"source": "a"},
        policy_hash="",
        made_at=0,
        documents=1,
        budget_usd=None,
        routes=(),
        rows=(),
        waiting=(),
    )
    path = save_plan(tmp_path, plan)
    assert take_plan(tmp_path, "inbox", {"source": "b"}) is None
    assert take_plan(tmp_path, "other", {"source": "a"}) is None
    assert take_plan(tmp_path, "inbox", {"source": "a"})["documents"] == 1  # type: ignore[index]
    assert take_plan(tmp_path, "inbox", {"source": "a"}) is None
    path.write_text("half a pl")
    assert take_plan(tmp_path, "inbox", {"source": "a"}) is None


amounts = st.lists(st.decimals(0, 1, places=6), min_size=1, max_size=20)


@given(amounts, st.integers(0, 200))
def test_the_whole_batch_costs_no_less_and_no_more_than_its_documents_can(
    costs: list[Decimal], more: int
) -> None:
    p50, p95 = whole_batch(costs, len(costs) + more)
    assert p50 is not None
    assert p95 is not None
    paid, slack = sum(costs), Decimal("1e-6")
    assert (
        paid + more * min(costs) - slack
        <= p50
        <= p95
        <= paid + more * max(costs) + slack
    )


def test_a_sample_of_everything_leaves_no_doubt() -> None:
    assert whole_batch([Decimal("0.25"), Decimal("0.5")], 2) == (
        Decimal("0.75"),
        Decimal("0.75"),
    )
    assert whole_batch([], 5) == (None, None)


@given(st.sets(st.text(min_size=1), max_size=30), st.integers(1, 40), st.integers(0, 5))
def test_the_same_seed_takes_the_same_documents(
    ids: set[str], number: int, seed: int
) -> None:
    chosen = choose(ids, number, seed)
    assert chosen == choose(sorted(ids, reverse=True), number, seed)
    assert chosen <= ids
    assert len(chosen) == min(number, len(ids))
