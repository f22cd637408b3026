"""A step by field, through real sockets: fields that pass are kept, the others go up alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.by_field import (
    ALL_RIGHT,
    EXTRACT,
    RIGHT,
    answer,
    asked_of,
    described_in,
    extract,
)
from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import Fault, Standin, status
from tests.kit.steps import kinds
from tierwise import check
from tierwise.cascade import cascade as cascade_module
from tierwise.engine import Engine
from tierwise.errors import ConfigError, Misuse
from tierwise.project import Project
from tierwise.records import Document, FieldSource, Outcome, Route
from tierwise.steps.step import Step


@pytest.fixture
def small() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(answer("company", "day", wrong=("total",)))
        yield server


@pytest.fixture
def large() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(answer("total"))
        yield server


def project(
    root: Path,
    small: Standin,
    large: Standin,
    *,
    rules: str = RULES,
    sure: bool = False,
) -> Path:
    """A project with two models; where it is `sure`, the small one says how sure it is."""
    entry = model("small", small.url)
    if sure:
        entry += "    confidence: true\n"
    return make_project(
        root, entry, model("large", large.url, strength=20), rules=rules
    )


@pytest.fixture
def engine(tmp_path: Path, small: Standin, large: Standin) -> Iterator[Engine]:
    with Engine(Project(project(tmp_path, small, large)), env={}) as made:
        yield made


def models_of(outcome: Outcome) -> dict[str, str]:
    return {name: source.model for name, source in outcome.sources.items()}


def test_the_next_model_is_asked_for_the_open_field_alone(
    engine: Engine, small: Standin, large: Standin
) -> None:
    outcome = extract(engine)
    assert (outcome.status, outcome.model, outcome.value) == (
        "accepted",
        "large",
        RIGHT,
    )
    assert kinds(outcome) == [("small", "first", None), ("large", "escalation", None)]
    assert asked_of(small.last) == described_in(small.last) == list(RIGHT)
    assert asked_of(large.last) == described_in(large.last) == ["total"]
    first, second = outcome.attempts
    assert outcome.sources == {
        "company": FieldSource("small", first.id),
        "day": FieldSource("small", first.id),
        "total": FieldSource("large", second.id),
    }
    assert outcome.open_fields == ()
    [failed] = [each for each in first.verdicts if each.passed is False]
    assert (failed.check, failed.field) == ("grounding", "total")
    assert first.call_hash != second.call_hash


def test_a_model_that_answers_more_than_it_is_asked_changes_no_kept_field(
    engine: Engine, large: Standin
) -> None:
    large.answer(answer("total", wrong=("company", "day")))
    outcome = extract(engine)
    assert outcome.value == RIGHT
    assert models_of(outcome)["company"] == "small"


def test_a_document_whose_route_ends_is_deferred_with_the_kept_fields(
    engine: Engine, large: Standin
) -> None:
    large.answer(answer(wrong=("total",)))
    outcome = extract(engine)
    assert (outcome.status, outcome.cause) == ("deferred", "failed_checks")
    kept = {name: RIGHT[name] for name in ("company", "day")}
    assert outcome.value == kept
    assert outcome.open_fields == ("total",)
    assert models_of(outcome) == {"company": "small", "day": "small"}


def test_a_malformed_answer_keeps_nothing_and_takes_nothing_away(
    engine: Engine, small: Standin, large: Standin
) -> None:
    large.answer("no idea", "still none")
    outcome = extract(engine)
    assert outcome.open_fields == ("total",)
    assert [kind for _, kind, _ in kinds(outcome)] == ["first", "escalation", "repair"]
    # the repair is for the open field, too
    assert asked_of(large.last) == ["total"]

    small.answer("nothing at all")
    large.answer(ALL_RIGHT)
    other = Document(
        id="b", text="Order 2. " + "ACME Trading, 12 March 2026. Total due: 41.50 EUR."
    )
    outcome = extract(engine, document=other)
    assert set(models_of(outcome).values()) == {"large"}


def test_a_failure_of_the_whole_output_keeps_no_field(
    engine: Engine, small: Standin, large: Standin
) -> None:
    @check("grounding")
    def adds_up(output: Any, document: Document) -> str | None:
        return "does not add up" if output.total.value != "41.50" else None

    large.answer(ALL_RIGHT)
    outcome = extract(engine, adds_up)
    assert asked_of(large.last) == list(RIGHT)
    assert set(models_of(outcome).values()) == {"large"}


def test_checks_of_the_whole_output_see_the_merged_one(
    engine: Engine, large: Standin
) -> None:
    seen = []

    @check("length")
    def looks(output: Any, document: Document, *, fields: Mapping[str, str]) -> None:
        seen.append((sorted(fields), output.model_dump()))

    outcome = extract(engine, looks)
    assert outcome.status == "accepted"
    names, merged = seen[-1]
    assert merged == RIGHT
    assert names == sorted(RIGHT)  # its parameters are those of the whole step


def test_a_check_of_one_field_may_open_a_kept_one_again(
    engine: Engine, small: Standin, large: Standin
) -> None:
    """Two fields that do not go together are known only once both are there."""

    @check("grounding")
    def together(output: Any, document: Document) -> dict[str, str | None]:
        wrong = output.total.quote == "41.50" and output.company.value != "ACME"
        return {"company": "not the seller of this total" if wrong else None}

    large.answer(json.dumps({"total": {"quote": "41.50", "value": "41.50"}}))
    outcome = extract(engine, together)
    assert outcome.status == "deferred"
    assert outcome.open_fields == ("company",)
    assert models_of(outcome) == {"day": "small", "total": "large"}


def test_a_null_that_passes_its_check_is_kept(
    engine: Engine, small: Standin, large: Standin
) -> None:
    small.answer(json.dumps({**RIGHT, "day": {"quote": None, "value": None}}))
    outcome = extract(engine)
    assert outcome.model == "small"
    assert outcome.value["day"] == {"quote": None, "value": None}
    assert large.count == 0


def test_a_reask_is_for_the_fields_that_failed(
    tmp_path: Path, small: Standin, large: Standin
) -> None:
    rules = f"{RULES}escalate: {{reask: 1}}\n"
    small.answer(answer("company", "day", wrong=("total",)), answer("total"))
    with Engine(Project(project(tmp_path, small, large, rules=rules)), env={}) as made:
        outcome = extract(made)
        assert kinds(outcome) == [("small", "first", None), ("small", "reask", None)]
        assert outcome.value == RIGHT
        assert asked_of(small.last) == ["total"]
        first, second = outcome.attempts
        assert outcome.sources["day"].attempt == first.id
        assert outcome.sources["total"].attempt == second.id

        # A re-ask that helps nothing loses nothing.
        small.answer(answer("company", wrong=("day", "total")), "nothing")
        large.answer(answer("day", "total"))
        other = Document(
            id="b", text="Order 2. ACME Trading, 12 March 2026. Total due: 41.50 EUR."
        )
        outcome = extract(made, document=other)
        assert asked_of(large.last) == ["day", "total"]
        assert outcome.sources["company"].model == "small"


def with_keeps(
    monkeypatch: pytest.MonkeyPatch, keeps: Mapping[str, Mapping[str, float | None]]
) -> None:
    """Let each route keep these fields of these models."""
    route_for = cascade_module.route_for

    def with_them(*of: Any) -> Route:
        return replace(route_for(*of), keeps=keeps)

    monkeypatch.setattr(cascade_module, "route_for", with_them)


def test_a_route_keeps_only_the_fields_that_it_names(
    engine: Engine, small: Standin, large: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.answer(ALL_RIGHT)
    large.answer(answer("company", "day"))
    with_keeps(monkeypatch, {"small": {"total": None}})
    outcome = extract(engine)
    assert outcome.value == RIGHT
    assert models_of(outcome) == {"company": "large", "day": "large", "total": "small"}
    failed = {each.field for each in outcome.attempts[0].verdicts if not each.passed}
    assert failed == {"company", "day"}
    assert outcome.route is not None
    assert outcome.route.keeps == {"small": {"total": None}}


def test_a_model_of_which_no_open_field_is_kept_is_not_asked(
    engine: Engine, small: Standin, large: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_keeps(monkeypatch, {"large": {"company": None}})
    outcome = extract(engine)
    assert (outcome.status, outcome.open_fields) == ("deferred", ("total",))
    assert large.count == 0


def test_a_field_needs_the_confidence_that_the_route_says(
    tmp_path: Path, small: Standin, large: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.answer(ALL_RIGHT)
    small.faults([Fault(probabilities={"company": 0.9, "day": 0.4, "total": 0.8})])
    large.answer(answer("day", "total"))
    keeps = {"small": {"company": 0.8, "day": 0.8, "total": 0.81}}
    with_keeps(monkeypatch, keeps)
    root = project(tmp_path, small, large, sure=True)
    with Engine(Project(root), env={}) as made:
        outcome = extract(made)
        assert asked_of(large.last) == ["day", "total"]
        assert models_of(outcome) == {
            "company": "small",
            "day": "large",
            "total": "large",
        }
        assert outcome.sources["company"].confidence == pytest.approx(0.9)
        assert outcome.sources["day"].confidence is None
        confidences = outcome.attempts[0].field_confidences
        assert confidences == pytest.approx({"company": 0.9, "day": 0.4, "total": 0.8})

        # A paid answer is as sure as it was.
        again = extract(made, run=made.start_run("again"))
        assert again.attempts[0].reused
        assert again.attempts[0].field_confidences == confidences
        assert models_of(again) == models_of(outcome)
        assert (small.count, large.count) == (1, 1)


def test_an_unknown_confidence_is_not_enough(
    engine: Engine, small: Standin, large: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.answer(ALL_RIGHT)
    large.answer(ALL_RIGHT)
    with_keeps(monkeypatch, {"small": {"company": 0.1, "day": None, "total": 0.1}})
    outcome = extract(engine)
    assert asked_of(large.last) == ["company", "total"]
    assert models_of(outcome) == {"company": "large", "day": "small", "total": "large"}


def test_a_threshold_of_whole_answers_does_not_hold_for_a_part(
    tmp_path: Path, small: Standin, large: Standin, monkeypatch: pytest.MonkeyPatch
) -> None:
    route_for = cascade_module.route_for

    def with_thresholds(*of: Any) -> Route:
        return replace(route_for(*of), thresholds={"small": 0.5, "large": 0.99})

    monkeypatch.setattr(cascade_module, "route_for", with_thresholds)
    small.faults([Fault(probability=0.6), Fault(probability=0.4)])
    with Engine(Project(project(tmp_path, small, large, sure=True)), env={}) as made:
        assert models_of(extract(made))["total"] == "large"
        small.answer(ALL_RIGHT)
        large.answer(ALL_RIGHT)
        other = Document(
            id="b", text="Order 2. ACME Trading, 12 March 2026. Total due: 41.50 EUR."
        )
        # The whole answer is not sure enough, so nothing of it is kept; the other model is asked
        # for the whole, and its threshold holds.
        outcome = extract(made, document=other)
        assert asked_of(large.last) == list(RIGHT)
        assert (outcome.status, outcome.value) == ("deferred", None)


def test_a_fallback_goes_on_with_the_open_fields(
    tmp_path: Path, small: Standin, large: Standin
) -> None:
    with Standin() as middle:
        middle.faults([status(400), status(400), status(400)])
        root = make_project(
            tmp_path,
            model("small", small.url),
            model("middle", middle.url, strength=15),
            model("large", large.url, strength=20),
            rules=RULES.replace("[small, large]", "[small, middle, large]"),
        )
        with Engine(Project(root), env={}) as made:
            outcome = extract(made)
        assert asked_of(middle.last) == ["total"]
        assert models_of(outcome)["total"] == "large"


def test_a_guard_holds_for_a_part_too(
    tmp_path: Path, small: Standin, large: Standin
) -> None:
    root = make_project(
        tmp_path,
        model("small", small.url),
        model("large", large.url, strength=20, tier="clarifai"),
    )
    secret = Document(
        id="a",
        text="ACME Trading, 12 March 2026. Total due: 41.50 EUR.",
        sensitivity="confidential",
    )
    with Engine(Project(root), env={}) as made:
        outcome = extract(made, document=secret)
    assert (outcome.status, outcome.open_fields) == ("deferred", ("total",))
    assert large.count == 0


def test_a_budget_that_ends_between_two_models_leaves_the_kept_fields(
    tmp_path: Path, small: Standin, large: Standin
) -> None:
    root = make_project(
        tmp_path,
        *(
            model(name, server.url).replace("output: 2", "output: 2000")
            for name, server in (("small", small), ("large", large))
        ),
    )
    with Engine(Project(root), env={}) as made:
        # Enough for the longest answer of either model, but not for both answers.
        run = made.start_run("test", budget_usd=Decimal("1.21"))
        outcome = extract(made, run=run)
        assert (outcome.status, outcome.cause) == ("deferred", "budget")
        assert outcome.open_fields == ("total",)
        # With money, nothing is asked twice.
        outcome = extract(made, run=made.start_run("again"))
    assert outcome.value == RIGHT
    assert (small.count, large.count) == (1, 1)


@pytest.mark.parametrize("setting", ["splits", "gathers"])
def test_a_step_by_field_answers_in_one_call(setting: str) -> None:
    values = {"splits": "total", "gathers": lambda outputs: outputs[0]}
    with pytest.raises(Misuse):
        Step(
            name="extract",
            returns=EXTRACT.returns,
            prompt="extract",
            by_field=True,
            **{setting: values[setting]},  # type: ignore[arg-type]
        )


def test_a_reason_for_a_field_that_is_not_there_stops_the_run(engine: Engine) -> None:
    @check("grounding")
    def misspelt(output: Any, document: Document) -> dict[str, str]:
        return {"totel[2].price": "wrong"}

    with pytest.raises(ConfigError):
        extract(engine, misspelt)
