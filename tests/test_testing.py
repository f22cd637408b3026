"""`tierwise.testing`, as the tests of a project use it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
from pydantic import BaseModel

from tests.kit.projects import ROOT, make_project, model
from tests.kit.standin import unused_address
from tierwise.errors import UnknownName
from tierwise.identity import current_of
from tierwise.orchestrate.process_state import engine, using
from tierwise.project import Project
from tierwise.records import Batch, Document
from tierwise.steps.step import Step
from tierwise.testing import Fault, Request, StandIn

TEXT = "The parcel with my desk has not arrived and nobody answers the phone."
LABELS = ["billing", "delivery"]


class Summary(BaseModel):
    summary: str


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose models nobody could reach."""
    rules = """
    version: 1
    guards:
      - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
    routes:
      - {name: all, try: [hosted, small]}
    """
    keyed = model("hosted", "https://api.example", tier="proprietary").replace(
        "api_key: test", 'api_key: "${NO_KEY}"'
    )
    root = make_project(
        tmp_path / "p", keyed, model("small", unused_address()), rules=dedent(rules)
    )
    (root / "golden").mkdir()
    (root / "golden/classify.yaml").write_text(
        "parameters: {labels: [praise, delivery]}"
    )
    return root


def test_a_step_gets_the_answer_that_is_given(root: Path) -> None:
    with StandIn(
        {"label": "delivery", "evidence": "has not arrived"}, root=root
    ) as models:
        [outcome] = models.ask("classify", TEXT, labels=LABELS)
    assert (outcome.status, outcome.model) == ("accepted", "hosted")
    assert outcome.value == {"label": "delivery", "evidence": "has not arrived"}


def test_what_was_asked_can_be_looked_at(root: Path) -> None:
    """The model by its name in the catalog, the prompt, the document and the schema."""
    with StandIn(root=root) as models:
        models.ask("classify", TEXT, labels=LABELS)
        [asked] = models.requests
    assert (asked.model, asked.document) == ("hosted", TEXT)
    assert "billing" in asked.system
    assert TEXT in asked.prompt
    assert asked.schema["properties"]["label"]["enum"] == LABELS


def test_without_parameters_those_of_the_golden_set_are_taken(root: Path) -> None:
    with StandIn(root=root) as models:
        models.ask("classify", TEXT)
    assert models.requests[0].schema["properties"]["label"]["enum"] == [
        "praise",
        "delivery",
    ]


def test_an_answer_may_depend_on_the_request(root: Path) -> None:
    def answer(request: Request) -> dict[str, str]:
        return {"label": "billing" if "invoice" in request.document else "delivery"}

    with StandIn(answer, root=root) as models:
        outcomes = models.ask(
            "classify", TEXT, "I never got an invoice.", labels=LABELS
        )
    assert [outcome.value["label"] for outcome in outcomes] == ["delivery", "billing"]


def test_guards_and_checks_hold_as_in_production(root: Path) -> None:
    """Every model is there, but what is confidential goes to the local one, and a wrong answer is not accepted."""
    with StandIn({"evidence": "words that nobody wrote"}, root=root) as models:
        [outcome] = models.ask(
            "classify", TEXT, labels=LABELS, sensitivity="confidential"
        )
    assert outcome.status == "deferred"
    assert "words that nobody wrote" in outcome.reason
    assert {request.model for request in models.requests} == {"small"}


def test_a_whole_document_can_be_asked_about(root: Path) -> None:
    document = Document(
        id="a", text=TEXT, sensitivity="public", metadata={"stakes": "high"}
    )
    with StandIn(root=root) as models:
        [outcome] = models.ask("summarize", document, max_words=20)
    assert (outcome.status, outcome.sensitivity) == ("accepted", "public")


def test_a_step_that_does_not_exist_is_an_error(root: Path) -> None:
    with (
        StandIn(root=root) as models,
        pytest.raises(UnknownName, match="did you mean 'classify'"),
    ):
        models.ask("clasify", TEXT)


def test_nothing_is_left_in_the_projects_own_ledger(root: Path) -> None:
    with StandIn(root=root) as models:
        models.ask("classify", TEXT, labels=LABELS)
    assert not (root / ".tierwise" / "ledger.db").exists()


def test_what_was_proven_of_a_model_holds_for_its_stand_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So tests see the route that production takes."""
    monkeypatch.chdir(ROOT)
    with StandIn():
        staged = engine().project
    step = Step(name="classify", returns=Summary, prompt="classify")
    here = current_of(Project(ROOT), os.environ, step, {}, "examples")
    there = current_of(staged, os.environ, step, {}, "examples")
    identities = {name: there.identities[name] for name in here.identities}
    assert here.identities == identities
    assert there == replace(
        here, identities=there.identities, calls=there.calls, unidentified={}
    )


def test_flows_take_the_stand_in_inside_the_block_and_their_own_engine_after_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    own = engine()
    with StandIn(), StandIn():
        assert engine() is not own
    assert engine() is own
    with pytest.raises(KeyError), using(own):
        raise KeyError
    assert engine() is own


def test_faults_come_in_the_order_in_which_they_are_given(root: Path) -> None:
    """A passing fault is retried, a lasting one falls back to the next model."""
    faults = [Fault(429, retry_after=0), Fault(401), None]
    with StandIn({"label": "delivery"}, faults=faults, root=root) as models:
        [outcome] = models.ask("classify", TEXT, labels=LABELS)
    assert (outcome.status, outcome.model) == ("accepted", "small")
    asked = [(each.model, each.kind, each.error) for each in outcome.attempts]
    assert asked == [
        ("hosted", "first", "RateLimited"),
        ("hosted", "retry", "AuthenticationFailed"),
        ("small", "fallback", None),
    ]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(0), "Unreachable"),
        (Fault(503, retry_after=120), "Overloaded"),
        (Fault(200, body="not JSON"), "BadReply"),
    ],
)
def test_a_model_may_fail_for_good(root: Path, fault: Fault, error: str) -> None:
    """A function decides by the request."""

    def faults(request: Request) -> Fault | None:
        return fault if request.model == "hosted" else None

    with StandIn({"label": "delivery"}, faults=faults, root=root) as models:
        [outcome] = models.ask("classify", TEXT, labels=LABELS)
    assert (outcome.status, outcome.model) == ("accepted", "small")
    errors = [each.error for each in outcome.attempts if each.model == "hosted"]
    assert set(errors) == {error}


@pytest.mark.parametrize("confidence", [0.4, 0.0, None])
def test_answers_may_be_unsure(
    root: Path, confidence: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger has the confidence that was ordered."""
    monkeypatch.chdir(root)

    def by_model(request: Request) -> float | None:
        return confidence if request.model == "hosted" else 0.9

    step = Step(name="sum", returns=Summary, prompt="summarize")
    with StandIn(confidence=by_model, root=root):
        opened = engine()
        run = opened.start_run("test")
        batch = Batch((Document(id="a", text=TEXT, sensitivity="internal"),))
        done = opened.run_batch(
            run,
            step,
            batch,
            {"max_words": 9},
            models=("hosted", "small"),
            thresholds={"hosted": 0.5},
        )
    [document] = done.load()
    seen = [each.confidence for each in document.outcomes["sum"].attempts]
    expected = None if confidence is None else pytest.approx(confidence, abs=1e-6)
    assert (seen[0], document.outcomes["sum"].model) == (expected, "small")


def test_models_may_be_unavailable(root: Path) -> None:
    with StandIn({"label": "delivery"}, unavailable=["hosted"], root=root) as models:
        [outcome] = models.ask("classify", TEXT, labels=LABELS)
    assert outcome.model == "small"
    assert outcome.route
    [rejected] = outcome.route.rejected
    assert (rejected.model, rejected.kind) == ("hosted", "unavailable")


def test_an_unavailable_model_must_exist(root: Path) -> None:
    with (
        pytest.raises(UnknownName, match="did you mean 'hosted'"),
        StandIn(unavailable=["hostd"], root=root),
    ):
        pass
