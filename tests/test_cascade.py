"""The cascade through a real socket: route, call, check, repair, escalate, fall back, defer; all on record."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import (
    CUT_OFF,
    NO_USAGE,
    NOT_JSON,
    OK,
    Fault,
    Standin,
    status,
    unused_address,
)
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
from tierwise.engine import Engine
from tierwise.errors import ConfigError
from tierwise.project import Project
from tierwise.records import Batch, Document, Outcome

WRONG_LABEL = json.dumps({"evidence": "has not arrived", "label": "complaint"})


Classify = Callable[..., Outcome]


@pytest.fixture
def small() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(GOOD)
        yield server


@pytest.fixture
def large() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(GOOD)
        yield server


@pytest.fixture
def engine(tmp_path: Path, small: Standin, large: Standin) -> Iterator[Engine]:
    root = make_project(
        tmp_path, model("small", small.url), model("large", large.url, strength=20)
    )
    with Engine(Project(root), env={}) as made:
        yield made


def test_a_good_answer_is_accepted_from_the_first_model(
    engine: Engine, small: Standin, large: Standin
) -> None:
    [outcome] = classify(engine)
    assert (outcome.status, outcome.model) == ("accepted", "small")
    assert outcome.value == {"evidence": "has not arrived", "label": "delivery"}
    assert kinds(outcome) == [("small", "first", None)]
    assert (small.count, large.count) == (1, 0)


def test_the_labels_reach_the_model_as_a_schema(engine: Engine, small: Standin) -> None:
    classify(engine)
    assert small.last.schema is not None
    assert small.last.schema["properties"]["label"]["enum"] == ["billing", "delivery"]


@pytest.mark.parametrize(
    ("answer", "check"),
    [(INVENTED, "grounding"), (WRONG_LABEL, "label")],
    ids=["invented", "unknown label"],
)
def test_a_failed_check_escalates_to_the_next_model(
    engine: Engine, small: Standin, answer: str, check: str
) -> None:
    small.answer(answer)
    [outcome] = classify(engine)
    assert (outcome.status, outcome.model, outcome.escalated) == (
        "accepted",
        "large",
        True,
    )
    assert kinds(outcome) == [("small", "first", None), ("large", "escalation", None)]
    assert [v.check for v in outcome.attempts[0].verdicts if v.passed is False] == [
        check
    ]


def test_an_answer_that_is_not_json_is_repaired_once_with_the_reason_shown(
    engine: Engine, small: Standin
) -> None:
    small.answer("I think it is about delivery.", GOOD)
    [outcome] = classify(engine)
    assert kinds(outcome) == [("small", "first", None), ("small", "repair", None)]
    assert outcome.status == "accepted"
    turns = small.last.body["messages"]
    assert turns[-2]["content"] == "I think it is about delivery."
    assert "not valid" in turns[-1]["content"]


def test_an_answer_that_stays_malformed_escalates(
    engine: Engine, small: Standin
) -> None:
    small.answer("no", "still no")
    [outcome] = classify(engine)
    assert kinds(outcome) == [
        ("small", "first", None),
        ("small", "repair", None),
        ("large", "escalation", None),
    ]


def test_an_answer_that_is_cut_off_is_not_repaired_but_escalated(
    engine: Engine, small: Standin
) -> None:
    small.faults([CUT_OFF])
    [outcome] = classify(engine)
    assert kinds(outcome) == [("small", "first", None), ("large", "escalation", None)]
    assert "cut off" in outcome.attempts[0].verdicts[0].reason


def test_a_document_that_no_model_answers_well_is_deferred_with_every_reason(
    engine: Engine, small: Standin, large: Standin
) -> None:
    small.answer(INVENTED)
    large.answer(WRONG_LABEL)
    [outcome] = classify(engine)
    assert outcome.status == "deferred"
    assert "small: grounding" in outcome.reason
    assert "large: label" in outcome.reason


def test_a_deferred_document_is_skipped_by_later_steps_and_costs_no_call(
    engine: Engine, small: Standin, large: Standin
) -> None:
    small.answer(INVENTED)
    large.answer(INVENTED)
    run = engine.start_run("test")
    batch = engine.run_batch(
        run,
        CLASSIFY,
        Batch((Document(id="a", text=TEXT, sensitivity="internal"),)),
        LABELS,
    )
    before = small.count + large.count
    done = engine.run_batch(run, SUMMARIZE, batch, {"max_words": 40})
    assert done.load()[0].outcomes["summarize"].status == "skipped"
    assert done.load()[0].outcomes["summarize"].reason == "classify was deferred"
    assert small.count + large.count == before


def test_a_passing_fault_is_retried_on_the_same_model_and_each_try_is_an_attempt(
    engine: Engine, small: Standin
) -> None:
    small.faults([status(503), status(429, retry_after=0)])
    [outcome] = classify(engine)
    assert kinds(outcome) == [
        ("small", "first", "Overloaded"),
        ("small", "retry", "RateLimited"),
        ("small", "retry", None),
    ]


def test_a_fault_that_stays_falls_back_to_the_next_model(
    engine: Engine, small: Standin
) -> None:
    small.faults([status(400)])
    [outcome] = classify(engine)
    assert kinds(outcome) == [
        ("small", "first", "BadRequest"),
        ("large", "fallback", None),
    ]
    assert not outcome.escalated


def test_a_rejected_key_stops_that_model_for_all_documents_but_not_the_run(
    engine: Engine, small: Standin, large: Standin
) -> None:
    small.faults([status(401)] * 50)
    [first] = classify(engine)
    assert kinds(first) == [
        ("small", "first", "AuthenticationFailed"),
        ("large", "fallback", None),
    ]
    [second] = classify(
        engine, Document(id="b", text=TEXT + " Please help.", sensitivity="internal")
    )
    assert kinds(second) == [("large", "first", None)]
    assert second.route is not None
    assert second.route.rejected[0].model == "small"
    assert small.count == 1


def test_a_server_that_refuses_connections_is_fallen_back_from(
    tmp_path: Path, large: Standin
) -> None:
    root = make_project(
        tmp_path, model("small", unused_address()), model("large", large.url)
    )
    with Engine(Project(root), env={}) as engine:
        [outcome] = classify(engine)
    assert kinds(outcome)[0] == ("small", "first", "Unreachable")
    assert kinds(outcome)[-1] == ("large", "fallback", None)


def test_an_identical_call_is_paid_once_within_a_batch_and_across_runs(
    engine: Engine, small: Standin
) -> None:
    twins = [Document(id=name, text=TEXT, sensitivity="internal") for name in "abc"]
    outcomes = [*classify(engine, *twins), *classify(engine, twins[0])]
    assert small.count == 1
    assert [o.status for o in outcomes] == ["accepted"] * 4
    assert sorted(o.attempts[0].reused for o in outcomes) == [False, True, True, True]
    assert all(o.attempts[0].cost == 0 for o in outcomes if o.attempts[0].reused)


def test_a_fresh_run_asks_again_but_still_pays_its_own_duplicates_once(
    engine: Engine, small: Standin
) -> None:
    classify(engine)
    twins = [Document(id=name, text=TEXT, sensitivity="internal") for name in "ab"]
    classify(engine, *twins, run=engine.start_run("test", fresh=True))
    assert small.count == 2


def test_what_a_call_cost_follows_from_the_catalogs_price_and_the_reported_usage(
    engine: Engine, small: Standin
) -> None:
    [outcome] = classify(engine)
    attempt = outcome.attempts[0]
    assert attempt.usage is not None
    expected = Decimal(attempt.usage.prompt_tokens) + 2 * Decimal(
        attempt.usage.completion_tokens
    )
    assert attempt.cost == expected / 1_000_000
    assert attempt.price_date == "2026-11-01"


def test_a_call_without_reported_usage_has_an_unknown_cost_not_zero(
    engine: Engine, small: Standin
) -> None:

    small.faults([NO_USAGE])
    [outcome] = classify(engine)
    assert outcome.status == "accepted"
    assert outcome.attempts[0].cost is None
    assert outcome.cost is None


def test_a_confidential_document_never_reaches_a_tier_outside_the_house(
    tmp_path: Path, small: Standin, large: Standin
) -> None:
    """Not by route, and not by fallback when the local model fails."""
    root = make_project(
        tmp_path,
        model("small", small.url),
        model("large", large.url, tier="proprietary"),
    )
    small.faults([status(500)] * 50)
    with Engine(Project(root), env={}) as engine:
        [outcome] = classify(
            engine, Document(id="a", text=TEXT, sensitivity="confidential")
        )
    assert outcome.status == "deferred"
    assert large.count == 0
    assert outcome.route is not None
    assert "confidential-stays-local" in outcome.route.rejected[0].reason


def test_a_document_without_a_sensitivity_counts_as_restricted(
    tmp_path: Path, small: Standin, large: Standin
) -> None:
    root = make_project(
        tmp_path,
        model("small", small.url),
        model("large", large.url, tier="proprietary"),
    )
    small.answer(INVENTED)
    with Engine(Project(root), env={}) as engine:
        [outcome] = classify(engine, Document(id="a", text=TEXT))
    assert (outcome.status, outcome.sensitivity, large.count) == (
        "deferred",
        "restricted",
        0,
    )


def test_a_budget_stops_calls_before_they_are_made(
    engine: Engine, small: Standin, large: Standin
) -> None:
    run = engine.start_run("test", budget_usd=Decimal("0.000001"))
    [outcome] = classify(engine, run=run)
    assert outcome.status == "deferred"
    assert "budget" in outcome.reason
    assert small.count + large.count == 0


def test_a_budget_is_never_exceeded_whatever_goes_at_once(
    engine: Engine, small: Standin
) -> None:
    documents = [
        Document(id=str(n), text=f"{TEXT} Number {n}.", sensitivity="internal")
        for n in range(40)
    ]
    run = engine.start_run("test", budget_usd=Decimal("0.004"))
    outcomes = classify(engine, *documents, run=run)
    spent = sum(o.cost or Decimal(0) for o in outcomes)
    assert 0 < sum(o.status == "accepted" for o in outcomes) < 40
    assert spent <= Decimal("0.004")
    [budget] = engine.ledger.budgets.states()
    assert (budget.name, budget.spent, budget.reserved) == (f"run {run.id}", spent, 0)
    assert run.budget.spent == spent


def test_a_model_of_unknown_price_is_refused_under_a_budget_unless_it_is_named(
    tmp_path: Path, small: Standin
) -> None:
    rules = RULES.replace("[small, large]", "[small]")
    root = make_project(
        tmp_path / "a", model("small", small.url, price="unknown"), rules=rules
    )
    with Engine(Project(root), env={}) as engine:
        [outcome] = classify(
            engine, run=engine.start_run("test", budget_usd=Decimal(1))
        )
    assert "allow_unpriced" in outcome.reason
    assert small.count == 0

    allowed = rules + "budget: {allow_unpriced: [small]}\n"
    root = make_project(
        tmp_path / "b", model("small", small.url, price="unknown"), rules=allowed
    )
    with Engine(Project(root), env={}) as engine:
        [outcome] = classify(
            engine, run=engine.start_run("test", budget_usd=Decimal(1))
        )
    assert (outcome.status, outcome.cost) == ("accepted", None)


def test_a_model_whose_key_is_not_set_is_left_out_with_the_variable_to_set(
    tmp_path: Path, small: Standin, large: Standin
) -> None:
    keyed = model("small", small.url).replace(
        "api_key: test", 'api_key: "${CLARIFAI_PAT|CLARIFAI_API_KEY}"'
    )
    root = make_project(tmp_path, keyed, model("large", large.url))
    with Engine(Project(root), env={}) as engine:
        [outcome] = classify(engine)
    assert outcome.model == "large"
    assert outcome.route is not None
    assert (
        outcome.route.rejected[0].reason
        == "unavailable: set CLARIFAI_PAT or CLARIFAI_API_KEY"
    )


def test_a_long_document_is_summarised_in_parts_and_then_as_a_whole(
    tmp_path: Path, small: Standin
) -> None:
    root = make_project(
        tmp_path, model("small", small.url, context=1200), model("large", small.url)
    )
    small.answer(
        lambda request: json.dumps(
            {"summary": f"{len(request.document.split())} words"}
        )
    )
    text = "\n\n".join(
        f"Paragraph {n}: the desk was delivered late and one leg was missing."
        for n in range(150)
    )
    with Engine(Project(root), env={}) as engine:
        run = engine.start_run("test")
        batch = Batch((Document(id="a", text=text, sensitivity="internal"),))
        done = engine.run_batch(run, SUMMARIZE, batch, {"max_words": 40})
    outcome = done.load()[0].outcomes["summarize"]
    assert outcome.status == "accepted"
    assert small.count == len(outcome.attempts) > 2
    assert any("part 1 of" in request.prompt for request in small.requests)
    shown = " ".join(request.document for request in small.requests)
    assert all(f"Paragraph {n}:" in shown for n in range(150))


def test_a_long_document_is_left_out_where_a_step_cannot_split(
    tmp_path: Path, small: Standin, large: Standin
) -> None:
    root = make_project(
        tmp_path, model("small", small.url, context=600), model("large", large.url)
    )
    with Engine(Project(root), env={}) as engine:
        [outcome] = classify(
            engine, Document(id="a", text=TEXT * 100, sensitivity="internal")
        )
    assert (outcome.status, outcome.model, small.count) == ("accepted", "large", 0)
    assert outcome.route is not None
    assert "its context window has 600" in outcome.route.rejected[0].reason


def test_a_route_with_human_review_waits_for_a_person(
    tmp_path: Path, small: Standin
) -> None:
    rules = RULES.replace("try: [small, large]", "try: [small], review: human")
    root = make_project(tmp_path, model("small", small.url), rules=rules)
    with Engine(Project(root), env={}) as engine:
        [outcome] = classify(engine)
    assert (outcome.status, outcome.model) == ("deferred", "small")
    assert outcome.value["label"] == "delivery"
    assert "review" in outcome.reason


def test_everything_is_on_record(engine: Engine, small: Standin) -> None:
    small.answer(INVENTED)
    run = engine.start_run("test")
    classify(engine, run=run)
    engine.finish_run(run, "completed")
    attempts = list(engine.ledger.runs.attempts(run.id))
    assert [(a.model, a.kind) for a in attempts] == [
        ("small", "first"),
        ("large", "escalation"),
    ]
    assert all(
        a.prompt == "classify v1" and a.policy_hash == engine.policy.hash
        for a in attempts
    )
    rows = engine.ledger.runs.summary(run.id)
    assert [(r.model, r.documents, r.escalations, r.pass_rate) for r in rows] == [
        ("small", 1, 1, 0.0),
        ("large", 1, 0, 1.0),
    ]
    assert rows[0].checks_failed == {"grounding": 1}


def test_a_garbled_body_is_retried_and_then_fallen_back_from(
    engine: Engine, small: Standin
) -> None:
    small.faults([NOT_JSON] * 3)
    [outcome] = classify(engine)
    assert outcome.status == "accepted"
    assert outcome.model == "large"
    assert {a.error for a in outcome.attempts[:-1]} <= {"BadReply", "ServerFault"}


def test_a_prompt_that_needs_a_missing_parameter_is_an_error_with_its_file(
    engine: Engine,
) -> None:
    with pytest.raises(ConfigError, match=r"summarize\.md\.j2"):
        engine.run_batch(
            engine.start_run("test"),
            SUMMARIZE,
            Batch((Document(id="a", text=TEXT),)),
            {},
        )


@pytest.fixture
def telling(tmp_path: Path, small: Standin, large: Standin) -> Iterator[Engine]:
    """A project whose small model says how likely its tokens were."""
    tells = model("small", small.url) + "    confidence: true\n"
    with Engine(
        Project(make_project(tmp_path, tells, model("large", large.url, strength=20))),
        env={},
    ) as made:
        yield made


def measured(engine: Engine, *models: str, min_confidence: float) -> Outcome:
    """What a chain delivers whose first model hands on what it is less sure of."""
    batch = Batch((Document(id="a", text=TEXT, sensitivity="internal"),))
    thresholds = {models[0]: min_confidence}
    done = engine.run_batch(
        engine.start_run("test"),
        CLASSIFY,
        batch,
        LABELS,
        models=models,
        thresholds=thresholds,
    )
    return done.load()[0].outcomes["classify"]


def test_an_answer_that_the_model_is_not_sure_of_goes_on_to_the_next(
    telling: Engine, small: Standin
) -> None:
    """Confidence is the probability of the least likely token; it stands on the attempt and in its verdict."""
    small.faults([Fault(probability=0.5)])
    outcome = measured(telling, "small", "large", min_confidence=0.8)
    assert (outcome.status, outcome.model) == ("accepted", "large")
    first, second = outcome.attempts
    assert first.confidence == pytest.approx(0.5)
    assert [(v.check, v.passed, v.reason) for v in first.verdicts if not v.passed] == [
        ("low_confidence", False, "confidence 0.500, 0.800 is needed")
    ]
    assert second.kind == "escalation"
    assert next(
        telling.ledger.runs.attempts(telling.ledger.runs.newest()[0].id)
    ).confidence == pytest.approx(0.5)


def test_an_answer_that_the_model_is_sure_of_stays(
    telling: Engine, small: Standin
) -> None:
    small.faults([OK])
    assert measured(telling, "small", "large", min_confidence=0.8).model == "small"


def test_a_model_that_does_not_say_how_sure_it_is_counts_as_not_sure(
    engine: Engine,
) -> None:
    outcome = measured(engine, "small", "large", min_confidence=0.1)
    assert outcome.model == "large"
    assert (
        outcome.attempts[0].verdicts[-1].reason
        == "an unknown confidence, 0.100 is needed"
    )


def test_without_another_model_an_unsure_answer_is_deferred(
    telling: Engine, small: Standin
) -> None:
    small.faults([Fault(probability=0.5)])
    outcome = measured(telling, "small", min_confidence=0.8)
    assert (outcome.status, outcome.reason) == (
        "deferred",
        "small: low_confidence: confidence 0.500, 0.800 is needed",
    )


def test_a_route_is_on_record_with_all_that_it_rested_on(engine: Engine) -> None:
    (outcome,) = classify(engine)
    route = next(
        engine.ledger.runs.outcomes(engine.ledger.runs.newest()[0].id)
    ).outcome.route
    assert route == outcome.route
    assert route is not None
    assert [choice.model for choice in route.choices] == ["small", "large"]
    assert route.features["sensitivity"] == "internal"
    assert route.features["prompt_tokens"] > route.features["tokens"] > 0
