"""A model need not be a language model: a classifier is trained, answers in a route, and is void when retrained."""

from __future__ import annotations

import datetime
import hashlib
import json
import pickle
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, create_model

from tasks.classify import classify
from tests.kit.certificates import certificate
from tests.kit.classifiers import Bomb, edited, forged
from tests.kit.projects import ROOT, make_project, model
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.errors import Misuse
from tierwise.evidence.training.labelled import Labelled
from tierwise.evidence.training.train import train
from tierwise.gateway.learned.classifier import Classifier
from tierwise.gateway.learned.files import load, read_metadata, save, trained_file
from tierwise.gateway.learned.form import Form, form_of
from tierwise.policy.catalog import load_catalog
from tierwise.project import CATALOG, Project
from tierwise.records import Batch, Document, Outcome, Usage, canonical_hash
from tierwise.steps.step import Step

CLASSIFY = classify.spec
LABELS = ["billing", "delivery"]
TEXT = "Good morning, the parcel with my desk is late and nobody answers the phone."
OPENINGS = [
    "Hello",
    "Dear team",
    "Once more",
    "Sorry",
    "To whom it may concern",
    "Good morning",
    "Hi",
    "Please note",
]
MATTERS = {
    "billing": "the invoice was charged twice",
    "delivery": "the parcel is late again",
}
TOPICS = """
  topics:
    tier: local
    learned: classify
    context_tokens: 1000000
    max_output_tokens: 64
    strength: 5
    price: {input: 0, output: 0, source: this machine, date: 2026-11-01}
"""
RULES = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
routes:
  - {name: default, try: [topics, large]}
"""


def rows(
    *, swapped: bool = False, labels: Sequence[str] = LABELS, **fields: str
) -> list[dict[str, str]]:
    """Messages whose label follows from their words; `swapped`, from the other one's words."""
    matters = list(MATTERS.values())[:: -1 if swapped else 1]
    return [
        {
            "id": f"{label}-{n}",
            "text": f"{opening}, {matter}.",
            "label": label,
            **fields,
        }
        for label, matter in zip(labels, matters, strict=True)
        for n, opening in enumerate(OPENINGS)
    ]


@cache
def learned(*, swapped: bool = False) -> Classifier:
    """A classifier of these messages, trained once for all tests."""
    return train(
        [
            Labelled(row["id"], row["text"], row["label"])
            for row in rows(swapped=swapped)
        ]
    )


def retrain(engine: Engine) -> None:
    """Train the project's model on messages with the labels exchanged."""
    save(learned(swapped=True), trained_file(engine.project.root, "topics"))


@pytest.fixture
def root(tmp_path: Path, standin: Standin) -> Path:
    """A project whose route tries the learned model first, then a served one."""
    standin.answer(json.dumps({"label": "billing", "evidence": "the parcel"}))
    return make_project(
        tmp_path, TOPICS, model("large", standin.url, strength=20), rules=RULES
    )


@pytest.fixture
def trained(root: Path) -> Path:
    """The same, trained."""
    save(learned(), trained_file(root, "topics"))
    return root


@pytest.fixture
def engine(trained: Path) -> Iterator[Engine]:
    with Engine(Project(trained), env={}) as made:
        yield made


def ask(
    engine: Engine,
    text: str = TEXT,
    *,
    step: Step = CLASSIFY,
    labels: Sequence[str] = LABELS,
    **how: Any,
) -> Outcome:
    """The outcome for one document, in a run of its own."""
    batch = Batch((Document(id="a", text=text, sensitivity="confidential"),))
    done = engine.run_batch(
        engine.start_run("test"), step, batch, {"labels": list(labels)}, **how
    )
    return done.load()[0].outcomes[step.name]


# --- in a route ----------------------------------------------------------------------------------


def test_a_learned_model_answers_at_no_cost_and_says_how_sure_it_is(
    engine: Engine, standin: Standin
) -> None:
    outcome = ask(engine)
    assert (outcome.status, outcome.model) == ("accepted", "topics")
    assert outcome.value["label"] == "delivery"
    assert "late" in outcome.value["evidence"]
    assert all(verdict.passed for verdict in outcome.attempts[0].verdicts)
    assert standin.count == 0
    [attempt] = engine.ledger.runs.attempts(engine.ledger.runs.newest()[0].id)
    assert (attempt.model, attempt.kind, attempt.cost, attempt.usage) == (
        "topics",
        "first",
        Decimal(0),
        Usage(0, 0),
    )
    assert attempt.confidence is not None
    assert 0.5 < attempt.confidence < 1
    assert engine.ledger.runs.newest()[0].cost == 0


def test_a_learned_model_sees_the_text_of_the_document_and_nothing_else(
    engine: Engine,
) -> None:
    [attempt] = ask(engine).attempts
    assert attempt.prompt_hash == canonical_hash([["user", TEXT]])


def test_evidence_keeps_to_the_length_that_the_step_allows(engine: Engine) -> None:
    """The words of a long passage that count most, verbatim, in at most the 60 characters of tasks/classify.py."""
    outcome = ask(
        engine,
        f"{'Incomprehensibilities notwithstanding ' * 9} the parcel is late again",
    )
    assert outcome.status == "accepted"
    assert len(outcome.value["evidence"]) <= 60
    assert "parcel is late again" in outcome.value["evidence"]


def test_an_answer_that_it_is_not_sure_of_goes_on_to_the_next_model(
    engine: Engine, standin: Standin
) -> None:
    """A text without a word that it knows has confidence 0."""
    standin.answer(json.dumps({"label": "billing", "evidence": "XYZ"}))
    outcome = ask(
        engine, "漢字 XYZ", models=("topics", "large"), thresholds={"topics": 0.5}
    )
    assert (outcome.model, outcome.escalated) == ("large", True)
    assert outcome.attempts[0].confidence == 0
    assert outcome.attempts[0].verdicts[-1].check == "low_confidence"


def test_the_same_document_is_not_asked_about_twice(engine: Engine) -> None:
    [first], [again] = ask(engine).attempts, ask(engine).attempts
    assert (first.reused, again.reused) == (False, True)
    assert again.confidence == first.confidence


def test_many_documents_at_once_are_answered_like_one_by_one(engine: Engine) -> None:
    documents = tuple(
        Document(id=row["id"], text=f"{row['text']} Thanks!", sensitivity="internal")
        for row in rows()
    )
    done = engine.run_batch(
        engine.start_run("test"), CLASSIFY, Batch(documents), {"labels": LABELS}
    )
    classifier = load(trained_file(engine.project.root, "topics"))
    for document in done.load():
        [attempt] = document.outcomes["classify"].attempts
        assert attempt.confidence == classifier.predict([document.text])[0].confidence
        assert (
            document.outcomes["classify"].value["label"]
            == document.id.partition("-")[0]
        )


# --- not trained, trained anew, forged -----------------------------------------------------------


def test_an_untrained_model_is_unavailable_and_says_how_to_train_it(root: Path) -> None:
    with Engine(Project(root), env={}) as engine:
        outcome = ask(engine)
    assert outcome.model == "large"
    assert outcome.route is not None
    [rejection] = outcome.route.rejected
    assert (
        rejection.reason
        == "unavailable: it is not trained yet; run `tierwise train classify`"
    )


def test_a_model_trained_by_another_version_of_scikit_learn_is_unavailable(
    trained: Path,
) -> None:
    edited(trained_file(trained, "topics"), scikit_learn="1.2.3")
    assert (
        "trained with scikit-learn 1.2.3"
        in Project(trained).policy({}).unavailable["topics"]
    )


def test_training_on_other_examples_voids_the_certificate_and_asks_again(
    engine: Engine,
) -> None:
    """The model's identity is what it was trained on, so the very next batch of a running process sees the change."""
    before, first = engine.current(CLASSIFY, {"labels": LABELS}), ask(engine)
    proof = certificate(
        **before.evidence(("topics",), "classify.jsonl"),
        date=datetime.date.today(),
    )
    assert proof.void_reasons(before) is None

    retrain(engine)
    assert (
        proof.void_reasons(engine.current(CLASSIFY, {"labels": LABELS}))
        == "model topics changed"
    )
    second = ask(engine)
    assert not second.attempts[0].reused
    assert (first.value["label"], second.value["label"]) == ("delivery", "billing")


def test_a_batch_that_is_under_way_keeps_the_classifier_that_it_began_with(
    engine: Engine,
) -> None:
    run = engine.start_run("test", fresh=True)
    job = engine.job(run, CLASSIFY, {"labels": LABELS})
    batch = Batch((Document(id="a", text=TEXT, sensitivity="internal"),))
    engine.run_job(job, batch)
    retrain(engine)
    assert ask(engine).value["label"] == "billing"
    assert engine.run_job(job, batch).load()[0].value("classify")["label"] == "delivery"


def test_a_batch_whose_classifier_is_gone_goes_on_to_the_next_model(
    engine: Engine,
) -> None:
    """An answer of another classifier would stand on record as one of the old."""
    job = engine.job(engine.start_run("test"), CLASSIFY, {"labels": LABELS})
    retrain(engine)
    batch = Batch((Document(id="a", text=TEXT, sensitivity="internal"),))
    outcome = engine.run_job(job, batch).load()[0].outcomes["classify"]
    assert outcome.model == "large"
    assert "trained again meanwhile" in (outcome.attempts[0].error_text or "")
    assert ask(engine).model == "topics"


def test_a_forged_file_is_refused_and_nothing_in_it_is_run(
    engine: Engine, tmp_path: Path
) -> None:
    forged(
        trained_file(engine.project.root, "topics"),
        pickle.dumps(Bomb(tmp_path / "ran")),
    )
    outcome = ask(engine, models=("topics",))
    assert outcome.status == "deferred"
    assert "refused" in outcome.reason
    assert not (tmp_path / "ran").exists()


def test_exchanged_weights_are_refused(engine: Engine) -> None:
    path = trained_file(engine.project.root, "topics")
    path.write_bytes(path.read_bytes() + b" ")
    assert (
        "not the weights that the metadata beside it describes"
        in ask(engine, models=("topics",)).reason
    )


# --- what a classifier cannot do -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["billing", "delivery", "praise"], "the step's praise it never learned; "),
        (["billing"], "its delivery the step does not have; "),
        (
            ["billing", "praise"],
            "the step's praise it never learned; its delivery the step does not have; ",
        ),
    ],
)
def test_labels_that_differ_from_the_steps_are_both_named(
    engine: Engine, labels: list[str], said: str
) -> None:
    remedy = "train it with the step's labels: `tierwise train classify`"
    assert (
        ask(engine, labels=labels, models=("topics",)).reason
        == f"topics: {said}{remedy}"
    )


def test_a_step_that_wants_more_than_a_label_and_evidence_goes_to_another_model(
    engine: Engine,
) -> None:
    wordy = Step(
        name="classify",
        returns=create_model(
            "Wordy", label=(str, ...), evidence=(str, ...), why=(str, ...)
        ),
        prompt="classify",
        choices={"label": "labels"},
    )
    outcome = ask(engine, step=wordy, models=("topics",))
    assert (
        outcome.reason
        == "topics: a learned model gives one label and `evidence`; this step also wants `why`"
    )
    assert outcome.attempts[0].cost == 0


def test_a_classifier_of_one_step_answers_no_other(engine: Engine) -> None:
    other = Step(
        name="sort",
        returns=CLASSIFY.returns,
        prompt="classify",
        choices=CLASSIFY.choices,
    )
    outcome = ask(engine, step=other, models=("topics",))
    assert outcome.reason == "topics: it is trained for the step classify, not for sort"


def schema(**fields: Any) -> dict[str, Any]:
    made: type[BaseModel] = create_model(
        "Made", **{name: (kind, ...) for name, kind in fields.items()}
    )
    return made.model_json_schema()


def test_a_form_is_read_off_a_schema() -> None:
    from typing import Literal

    assert form_of(CLASSIFY.schema({"labels": LABELS})) == Form(
        "label", ("billing", "delivery"), 60
    )
    assert form_of(schema(topic=Literal["a", "b"])) == Form("topic", ("a", "b"), 0)
    assert form_of(schema(topic=Literal["a", "b"], evidence=str)) == Form(
        "topic", ("a", "b"), 200
    )


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({}, "chooses one of some fixed texts"),
        (schema(label=str, evidence=str), "chooses one of some fixed texts"),
        (
            {"properties": {"level": {"enum": [1, 2]}}},
            "chooses one of some fixed texts",
        ),
        (
            {"properties": {"label": {"enum": ["a"]}, "evidence": {"type": "array"}}},
            "gives `evidence` as text",
        ),
        (
            {"properties": {"label": {"enum": ["a"]}, "mood": {"enum": ["b"]}}},
            "also wants `mood`",
        ),
    ],
)
def test_a_form_that_a_classifier_cannot_fill_in_is_refused(
    wanted: dict[str, Any], said: str
) -> None:
    with pytest.raises(Misuse, match=said):
        form_of(wanted)


@given(
    st.text()
    | st.lists(
        st.sampled_from(["the parcel", "is late", "cafe\u0301", "a" * 70, "\n"])
    ).map(" ".join),
    st.integers(1, 90),
)
def test_evidence_is_verbatim_and_never_longer_than_allowed(
    text: str, longest: int
) -> None:
    evidence = learned().evidence(text, "billing", longest=longest)
    assert evidence in text
    assert len(evidence) <= longest


# --- tierwise train ------------------------------------------------------------------------------


def write(path: Path, some: list[dict[str, str]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in some))
    return path


@pytest.fixture
def labelled(root: Path) -> Path:
    """A project with examples to train on and others to measure on."""
    write(root / "golden" / "classify-examples.jsonl", rows())
    measured = [
        {"id": f"g{n}", "text": f"Number {n}, the parcel is late.", "label": "delivery"}
        for n in range(20)
    ]
    write(root / "golden" / "classify.jsonl", measured)
    (root / "golden" / "classify.yaml").write_text(
        "parameters: {labels: [billing, delivery]}\n"
    )
    return root


def test_training_says_what_was_learned_how_right_it_is_and_what_comes_next(
    labelled: Path, terminal: Terminal
) -> None:
    done = terminal("train", "classify", cwd=labelled)
    assert done.code == 0, done.err
    assert "topics: trained on 16 examples (billing 8, delivery 8)" in done.out
    assert "100.0%" in done.out
    assert (
        "learned/topics.skops contains words of the examples: keep it as internal as they are"
        in done.out
    )
    assert (
        done.out.splitlines()[-1] == "Next: tierwise certify classify --models topics"
    )
    with Engine(Project(labelled), env={}) as engine:
        assert ask(engine).model == "topics"


def test_training_again_on_the_same_examples_leaves_the_files_alone(
    labelled: Path, terminal: Terminal
) -> None:
    def files() -> dict[str, str]:
        return {
            p.name: hashlib.sha256(p.read_bytes()).hexdigest()
            for p in (labelled / "learned").iterdir()
        }

    first = terminal("train", "classify", "--json", cwd=labelled)
    before = files()
    second = terminal("train", "classify", "--json", cwd=labelled)
    assert "Nothing has changed" in second.err
    assert (second.out, files()) == (first.out, before)
    told = json.loads(first.out)
    assert (told["examples"], told["labels"]) == (16, {"billing": 8, "delivery": 8})
    assert told["identity"] == read_metadata(labelled / told["file"]).identity


def test_a_rare_label_is_left_to_other_models_and_said(
    labelled: Path, terminal: Terminal
) -> None:
    """It blocks neither training nor the answers with the other labels; a label that is new does."""
    labels = ["billing", "delivery", "praise", "spam"]
    settings = f"parameters: {{labels: [{', '.join(labels)}]}}\n"
    (labelled / "golden" / "classify.yaml").write_text(settings)
    praise = [
        {"id": f"p{number}", "text": f"Thank you, {number} times", "label": "praise"}
        for number in range(2)
    ]
    write(labelled / "golden" / "classify-examples.jsonl", [*rows(), *praise])
    done = terminal("train", "classify", cwd=labelled)
    assert done.code == 0, done.err
    assert "trained on 16 examples (billing 8, delivery 8)" in done.out
    assert "Too few examples of praise (2): topics never answers it." in done.out
    assert "Too few examples of spam (0)" in done.out
    with Engine(Project(labelled), env={}) as engine:
        outcome = ask(engine, labels=labels, models=("topics",))
        assert (outcome.status, outcome.model) == ("accepted", "topics")
        newer = ask(engine, labels=[*labels, "offer"], models=("topics",))
        assert "the step's offer it never learned" in newer.reason
    told = json.loads(terminal("train", "classify", "--json", cwd=labelled).out)
    assert told["labels_left_out"] == {"praise": 2, "spam": 0}


def test_a_damaged_file_is_trained_anew(labelled: Path, terminal: Terminal) -> None:
    terminal("train", "classify", cwd=labelled)
    path = trained_file(labelled, "topics")
    path.write_bytes(b"junk")
    assert terminal("train", "classify", cwd=labelled).code == 0
    assert load(path).labels == ("billing", "delivery")


def test_a_text_that_certifies_is_never_trained_on(
    labelled: Path, terminal: Terminal
) -> None:
    """Not the file itself, and no text of it that stands elsewhere, whatever its case and punctuation."""
    own = terminal(
        "train", "classify", "--golden", "golden/classify.jsonl", cwd=labelled
    )
    assert (own.code, "what models are certified on" in own.err) == (2, True)
    again = {
        "id": "copy",
        "text": "NUMBER 3 - the parcel is late!",
        "label": "delivery",
    }
    more = write(labelled / "golden" / "more.jsonl", [*rows(), again])
    done = terminal("train", "classify", "--golden", more, cwd=labelled)
    assert "Left out: 1 that golden/classify.jsonl has" in done.out
    classifier = load(trained_file(labelled, "topics"))
    assert classifier.metadata.n == 16
    assert not classifier.saw(again["text"])


def test_a_model_is_not_certified_on_a_text_that_it_was_trained_on(
    labelled: Path, terminal: Terminal
) -> None:
    """Whatever came into the golden set after the training."""
    terminal("train", "classify", cwd=labelled)
    with (labelled / "golden" / "classify.jsonl").open("a") as file:
        file.write(json.dumps(rows()[0]) + "\n")
    done = terminal("certify", "classify", "--models", "topics", "--yes", cwd=labelled)
    assert (done.code, "topics was trained on 1 of these examples" in done.err) == (
        2,
        True,
    )
    assert terminal("train", "classify", cwd=labelled).code == 0
    assert (
        terminal(
            "certify", "classify", "--models", "topics", "--yes", cwd=labelled
        ).code
        == 0
    )


def test_a_trained_file_is_as_sensitive_as_the_most_sensitive_example(
    labelled: Path, terminal: Terminal
) -> None:
    secret = {
        "id": "s",
        "text": "The invoice of the minister",
        "label": "billing",
        "sensitivity": "confidential",
    }
    more = write(labelled / "golden" / "more.jsonl", [secret])
    examples = labelled / "golden" / "classify-examples.jsonl"
    done = terminal(
        "train", "classify", "--golden", examples, "--golden", more, cwd=labelled
    )
    assert "keep it as confidential as they are" in done.out
    assert read_metadata(trained_file(labelled, "topics")).sensitivity == "confidential"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clasify"], "no step named 'clasify'; did you mean 'classify'?"),
        (["extract"], "a learned model chooses one of some fixed texts"),
        (
            ["classify", "--model", "large"],
            "large is not a model with `learned: classify`",
        ),
        (
            ["classify", "--model", "topic"],
            "no model named 'topic'; did you mean 'topics'?",
        ),
        (["classify", "--golden", "none.jsonl"], "none.jsonl is missing"),
        (
            ["classify", "--golden", "golden/one.jsonl"],
            "two labels with 3 examples each; too few examples of billing; enough: delivery",
        ),
        (
            ["classify", "--golden", "golden/odd.jsonl"],
            "odd.jsonl:1: no label named 'biling'; did you mean 'billing'?",
        ),
    ],
)
def test_what_cannot_be_trained_is_said_with_the_remedy(
    labelled: Path, terminal: Terminal, arguments: list[str], said: str
) -> None:
    write(labelled / "golden" / "one.jsonl", rows()[8:])
    write(
        labelled / "golden" / "odd.jsonl",
        [{"id": "o", "text": "An invoice", "label": "biling"}, *rows()],
    )
    done = terminal("train", *arguments, cwd=labelled)
    assert done.code == 2
    assert said in done.err


def test_without_the_steps_labels_training_asks_for_them(
    labelled: Path, terminal: Terminal
) -> None:
    (labelled / "golden" / "classify.yaml").unlink()
    done = terminal("train", "classify", cwd=labelled)
    assert (done.code, "Write `parameters: {labels: […]}` into" in done.err) == (
        2,
        True,
    )


def test_without_a_catalog_entry_training_shows_one_that_works(
    labelled: Path, terminal: Terminal
) -> None:
    catalog = labelled / CATALOG
    catalog.write_text(catalog.read_text().replace(TOPICS, ""))
    (labelled / "routing_rules" / "rules.yaml").write_text(
        RULES.replace("topics, ", "")
    )
    done = terminal("train", "classify", cwd=labelled)
    assert done.code == 2
    entry = done.err[done.err.index("  classify-learned:") :]
    catalog.write_text(catalog.read_text() + entry)
    assert load_catalog(catalog).model("classify-learned").learned == "classify"
    assert terminal("train", "classify", cwd=labelled).code == 0
    assert Project(labelled).policy({}).unavailable == {}


def test_of_several_models_of_a_step_one_has_to_be_chosen(
    labelled: Path, terminal: Terminal
) -> None:
    with (labelled / CATALOG).open("a") as file:
        file.write(TOPICS.replace("topics", "candidate"))
    done = terminal("train", "classify", cwd=labelled)
    assert (done.code, "choose one by --model: topics, candidate" in done.err) == (
        2,
        True,
    )
    assert terminal("train", "classify", "--model", "candidate", cwd=labelled).code == 0
    assert "topics" in Project(labelled).policy({}).unavailable
    assert "candidate" not in Project(labelled).policy({}).unavailable


def test_the_shipped_examples_can_be_trained_on(
    tmp_path: Path, terminal: Terminal
) -> None:
    import shutil

    root = make_project(
        tmp_path / "project", TOPICS, rules=RULES.replace(", large", "")
    )
    shutil.copytree(ROOT / "golden", root / "golden")
    done = terminal("train", "classify", "--json", cwd=root)
    shipped = (ROOT / "golden" / "classify-examples.jsonl").read_text()
    assert json.loads(done.out)["examples"] == len(shipped.splitlines())
