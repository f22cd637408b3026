"""Re-asking: before a document escalates, the same model is shown the words of the failed check."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from tests.kit.golden_sets import RULES as CERTIFIED_RULES
from tests.kit.golden_sets import certify, golden_rows, right, route_one, write_golden
from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import OK, Request, Standin, status
from tests.kit.steps import (
    CLASSIFY,
    GOOD,
    INVENTED,
    LABELS,
    SUMMARIZE,
    TEXT,
    classify,
    kinds,
)
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.project import Project
from tierwise.records import Batch, Document
from tierwise.steps.checks import at_most_words

WRONG_LABEL = json.dumps({"evidence": "has not arrived", "label": "complaint"})
LONG_ANSWER = json.dumps({"evidence": "never came " * 300, "label": "delivery"})
FIRST = ("small", "first", None)
REASK = ("small", "reask", None)
ESCALATION = ("large", "escalation", None)

MakeEngine = Callable[..., Engine]


@pytest.fixture
def small() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(INVENTED, GOOD)
        yield server


@pytest.fixture
def large() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(GOOD)
        yield server


@pytest.fixture
def engine_with(tmp_path: Path, small: Standin, large: Standin) -> Iterator[MakeEngine]:
    """Make an engine whose rules have these words under `escalate`."""
    with ExitStack() as stack:

        def make(escalate: str = "{reask: 1}", *, context: int = 8000) -> Engine:
            root = make_project(
                tmp_path / "project",
                model("small", small.url, context=context),
                model("large", large.url, strength=20),
                rules=f"{RULES}escalate: {escalate}\n",
            )
            return stack.enter_context(Engine(Project(root), env={}))

        yield make


def test_no_model_is_asked_again_unless_the_rules_say_so(
    engine_with: MakeEngine,
) -> None:
    [outcome] = classify(engine_with("{}"))
    assert kinds(outcome) == [FIRST, ESCALATION]


def test_the_same_model_is_asked_again_with_its_answer_and_the_failed_check(
    engine_with: MakeEngine, small: Standin, large: Standin
) -> None:
    [outcome] = classify(engine_with())
    assert kinds(outcome) == [FIRST, REASK]
    assert (outcome.status, outcome.model, outcome.escalated) == (
        "accepted",
        "small",
        False,
    )
    *question, answer, request = small.last.body["messages"]
    assert question == small.requests[0].body["messages"]
    assert (answer["role"], answer["content"]) == ("assistant", INVENTED)
    assert request["content"] == (
        "That answer failed a check (grounding: `evidence` quotes words that are not in the "
        "document: 'it never came'). Answer again with the corrected JSON object only."
    )
    assert large.count == 0


def test_an_answer_that_fails_again_escalates(
    engine_with: MakeEngine, small: Standin
) -> None:
    small.answer(INVENTED, WRONG_LABEL)
    [outcome] = classify(engine_with())
    assert kinds(outcome) == [FIRST, REASK, ESCALATION]
    assert (outcome.model, outcome.escalated) == ("large", True)


def test_the_last_model_is_asked_again_too(
    engine_with: MakeEngine, small: Standin, large: Standin
) -> None:
    """What is certified for one model is thereby what it does anywhere in a route."""
    small.answer(INVENTED)
    large.answer(INVENTED, GOOD)
    [outcome] = classify(engine_with())
    assert kinds(outcome) == [FIRST, REASK, ESCALATION, ("large", "reask", None)]
    assert outcome.status == "accepted"


def test_a_model_may_be_asked_again_more_than_once(
    engine_with: MakeEngine, small: Standin
) -> None:
    small.answer(INVENTED, WRONG_LABEL, GOOD)
    [outcome] = classify(engine_with("{reask: 2}"))
    assert kinds(outcome) == [FIRST, REASK, REASK]
    contents = [message["content"] for message in small.last.body["messages"]]
    assert INVENTED in contents
    assert WRONG_LABEL in contents


def test_a_check_that_does_not_escalate_is_not_asked_about(
    engine_with: MakeEngine,
) -> None:
    [outcome] = classify(engine_with("{on: [label], reask: 1}"))
    assert kinds(outcome) == [FIRST]
    assert (outcome.status, outcome.cause) == ("deferred", "failed_checks")


def test_a_low_confidence_is_nothing_to_ask_about(engine_with: MakeEngine) -> None:
    """The stand-in reports no confidence, so it is unknown, which fails."""
    engine = engine_with()
    done = engine.run_batch(
        engine.start_run("test"),
        CLASSIFY,
        Batch((Document(id="a", text=TEXT, sensitivity="internal"),)),
        LABELS,
        models=("large", "small"),
        thresholds={"large": 0.9},
    )
    outcome = done.load()[0].outcomes["classify"]
    assert kinds(outcome)[:2] == [
        ("large", "first", None),
        ("small", "escalation", None),
    ]


def test_a_malformed_answer_is_repaired_and_then_asked_about(
    engine_with: MakeEngine, small: Standin
) -> None:
    small.answer("It is plain.", INVENTED, GOOD)
    [outcome] = classify(engine_with())
    assert kinds(outcome) == [FIRST, ("small", "repair", None), REASK]
    assert len(small.last.body["messages"]) == 6


def test_a_malformed_answer_to_a_re_ask_escalates(
    engine_with: MakeEngine, small: Standin
) -> None:
    small.answer(INVENTED, "It is plain.")
    [outcome] = classify(engine_with())
    assert kinds(outcome) == [FIRST, REASK, ESCALATION]


def test_a_fault_of_the_provider_ends_the_re_ask_and_the_document_escalates(
    engine_with: MakeEngine, small: Standin
) -> None:
    small.faults([OK, status(400)])
    [outcome] = classify(engine_with())
    assert kinds(outcome) == [FIRST, ("small", "reask", "BadRequest"), ESCALATION]
    assert outcome.status == "accepted"


def test_a_conversation_that_does_not_fit_the_window_is_not_sent(
    engine_with: MakeEngine, small: Standin
) -> None:
    small.answer(LONG_ANSWER, GOOD)
    [outcome] = classify(engine_with(context=700))
    assert kinds(outcome) == [FIRST, ESCALATION]


def test_the_parts_of_a_long_document_are_not_asked_about_but_the_whole_is(
    engine_with: MakeEngine, small: Standin
) -> None:
    """Only the last answer's checks decide."""
    words = {"summary": "one two three four five"}
    small.answer(json.dumps(words))
    engine = engine_with(context=1200)
    text = "\n\n".join(
        f"Paragraph {number}: the desk was delivered late and one leg was missing."
        for number in range(150)
    )
    step = replace(SUMMARIZE, checks=(at_most_words("summary"),))
    done = engine.run_batch(
        engine.start_run("test"),
        step,
        Batch((Document(id="a", text=text, sensitivity="internal"),)),
        {"max_words": 3},
        models=("small",),
    )
    made = [kind for _, kind, _ in kinds(done.load()[0].outcomes["summarize"])]
    assert made.count("reask") == 1
    assert made[-1] == "reask"


# ---- money --------------------------------------------------------------------------------------


def test_a_re_ask_is_counted_and_reserved_and_never_paid_twice(
    engine_with: MakeEngine, small: Standin
) -> None:
    engine = engine_with()
    run = engine.start_run("test", budget_usd=Decimal("0.01"))
    [outcome] = classify(engine, run=run)
    costs = [attempt.cost for attempt in outcome.attempts]
    assert all(costs)
    [budget] = engine.ledger.budgets.states()
    assert (budget.spent, budget.reserved) == (outcome.cost, 0)
    [again] = classify(engine)
    assert [attempt.reused for attempt in again.attempts] == [True, True]
    assert small.count == 2


def test_a_re_ask_that_the_budget_refuses_defers_for_want_of_money(
    engine_with: MakeEngine, small: Standin, large: Standin
) -> None:
    """The rest of the budget pays for no second call, here or elsewhere."""
    large.answer(INVENTED)
    engine = engine_with()
    run = engine.start_run("test", budget_usd=Decimal("0.00045"))
    [outcome] = classify(engine, run=run)
    assert kinds(outcome) == [FIRST]
    assert (outcome.status, outcome.cause) == ("deferred", "budget")
    assert small.count + large.count == 1


# ---- evidence -----------------------------------------------------------------------------------


def corrected(request: Request) -> str:
    """A model whose quotations are wrong until it is asked again."""
    messages = request.body["messages"]
    question = messages[1]["content"].split(">\n", 1)[1]
    words = " ".join(question.split()[:6])
    label = "billing" if "invoice" in question else "delivery"
    evidence = words if len(messages) > 2 else "something else entirely, says it"
    return json.dumps({"label": label, "evidence": evidence})


@pytest.fixture
def certified(tmp_path: Path, small: Standin, terminal: Terminal) -> Path:
    """A project whose one cheap model is certified with `reask: 1`."""
    small.answer(corrected)
    with Standin() as strong:
        strong.answer(right)
        root = make_project(
            tmp_path / "project",
            model("cheap", small.url),
            model("dear", strong.url, strength=20),
            rules=CERTIFIED_RULES + "escalate: {reask: 1}\n",
        )
        write_golden(root, golden_rows())
        [row] = certify(terminal, root, "-m", "cheap")
        assert (row["right"], row["n"], small.count) == (60, 60, 120)
        yield root


def with_escalation(root: Path, words: str) -> Path:
    path = root / "routing_rules" / "rules.yaml"
    path.write_text(CERTIFIED_RULES + f"escalate: {words}\n")
    return root


def test_what_is_certified_with_re_asks_counts_with_them(certified: Path) -> None:
    outcome = route_one(certified)
    assert outcome.model == "cheap"
    assert kinds(outcome) == [("cheap", "first", None), ("cheap", "reask", None)]


@pytest.mark.parametrize("words", ["{}", "{reask: 2}", "{reask: 1, on: [grounding]}"])
def test_a_certificate_with_re_asks_is_void_under_any_others(
    certified: Path, words: str
) -> None:
    outcome = route_one(with_escalation(certified, words))
    assert outcome.model == "dear"
    assert outcome.route is not None
    reasons = {rejected.model: rejected.reason for rejected in outcome.route.rejected}
    shown = str(outcome.route.choices) + str(reasons)
    assert "its certificate is void: `escalate` in the rules changed" in shown


def test_a_certificate_without_re_asks_is_void_with_them(
    certified: Path, small: Standin, terminal: Terminal
) -> None:
    small.answer(right)
    root = with_escalation(certified, "{}")
    certify(terminal, root, "-m", "cheap", "--fresh")
    assert route_one(root).model == "cheap"
    assert route_one(with_escalation(root, "{reask: 1}")).model == "dear"
    # Without re-asks, the checks that escalate change nothing that was measured on one model.
    assert route_one(with_escalation(root, "{on: [label]}")).model == "cheap"


# ---- what is shown ------------------------------------------------------------------------------


def test_show_explain_and_report_name_the_re_asks(
    engine_with: MakeEngine, terminal: Terminal, tmp_path: Path
) -> None:
    engine = engine_with()
    run = engine.start_run("test")
    classify(engine, run=run)
    engine.finish_run(run, "completed")
    [row] = engine.ledger.runs.summary(run.id)
    assert (row.attempts, row.reasks, row.escalations) == (2, 1, 0)
    root = engine.project.root
    assert "re-asked" in terminal("show", run.id, cwd=root).out
    told = terminal("explain", "a", "classify", cwd=root).out
    assert "re-asked, with the failed check shown" in " ".join(told.split())
    page = tmp_path / "report.html"
    terminal("report", run.id, "--out", page, cwd=root)
    assert "Re-asked" in page.read_text()
