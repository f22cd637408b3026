"""A classifier on a sentence encoder, from the catalog to routes, certificates and explanations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.classify import classify
from tests.kit.projects import make_project, model
from tests.kit.standin import Fault, Request, Standin, raw, status
from tests.kit.terminal import Terminal
from tests.kit.tiny_encoder import entry, write_encoder
from tests.kit.word_encoder import WordEncoder
from tierwise.documents import read_documents
from tierwise.engine import Engine
from tierwise.errors import ConfigError
from tierwise.gateway.learned.files import read_metadata, trained_file
from tierwise.policy.catalog import load_catalog
from tierwise.project import CATALOG, Project
from tierwise.records import Batch, Document, Outcome
from tierwise.testing import StandIn

LABELS = ["billing", "delivery"]
GERMAN = "Guten Tag, mein Paket kommt zu spät, sagt der Bote"
OPENINGS = ["Hello", "Dear team", "Once more", "Sorry", "Good morning", "Hi", "Note"]
MATTERS = {
    "billing": ["the invoice was charged twice", "my money is gone"],
    "delivery": ["the parcel is late again", "no courier came"],
}
TOPICS = """
  topics:
    tier: local
    learned: classify
    embedder: {embedder}
    terms: {terms}
    context_tokens: 1000000
    max_output_tokens: 64
    strength: 5
    price: {{input: 0, output: 0, source: this machine, date: 2026-11-01}}
"""
SERVER = """
  hosted:
    kind: embedder
    tier: clarifai
    dimensions: 3
    window_tokens: 512
    litellm_params: {{model: openai/e5, api_base: "{url}/v1", api_key: test}}
"""
RULES = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
floors: {classify: 0.7}
routes:
  - {name: default, try: [topics, large]}
"""


def rows() -> list[dict[str, str]]:
    return [
        {
            "id": f"{label}-{start}-{end}",
            "text": f"{opening}, {matter}.",
            "label": label,
        }
        for label, matters in MATTERS.items()
        for start, opening in enumerate(OPENINGS)
        for end, matter in enumerate(matters)
    ]


def write(path: Path, some: list[dict[str, str]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in some))


MakeProject = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, standin: Standin) -> MakeProject:
    """Make a project whose classifier has the given embedder."""
    standin.answer(json.dumps({"label": "billing", "evidence": "Paket"}))

    def made(embedder: str = "words", terms: str = "false", more: str = "") -> Path:
        write_encoder(tmp_path / "encoder")
        root = make_project(
            tmp_path / "project",
            entry(tmp_path / "encoder"),
            more,
            TOPICS.format(embedder=embedder, terms=terms),
            model("large", standin.url, strength=20),
            rules=RULES,
        )
        write(root / "golden" / "classify-examples.jsonl", rows())
        golden = [
            {"id": f"{label}-{n}", "text": f"Fall {n}: {text}", "label": label}
            for n in range(15)
            for text, label in [("mein Paket", "delivery"), ("der Betrag", "billing")]
        ]
        write(root / "golden" / "classify.jsonl", golden)
        (root / "golden" / "classify.yaml").write_text(
            "parameters: {labels: [billing, delivery]}\n"
        )
        return root

    return made


def explained(root: Path, terminal: Terminal) -> str:
    """What `tierwise explain` says about a document of a run."""
    inbox = root / "inbox"
    inbox.mkdir()
    (inbox / "a.txt").write_text(GERMAN)
    with Engine(Project(root), env={}) as engine:
        [batch] = read_documents(inbox, sensitivity="internal")
        run = engine.start_run("inbox", parameters={"source": "inbox"})
        engine.run_batch(run, classify.spec, batch, {"labels": LABELS})
    done = terminal("explain", "a.txt", cwd=root)
    assert done.code == 0, done.err
    return " ".join(done.out.split())


def ask(root: Path, text: str = GERMAN, sensitivity: Any = "confidential") -> Outcome:
    """The outcome for one document, in a run of its own."""
    with Engine(Project(root), env={}) as engine:
        batch = Batch((Document(id="a", text=text, sensitivity=sensitivity),))
        done = engine.run_batch(
            engine.start_run("test"), classify.spec, batch, {"labels": LABELS}
        )
        return done.load()[0].outcomes["classify"]


def trained(root: Path, terminal: Terminal) -> None:
    done = terminal("train", "classify", cwd=root)
    assert done.code == 0, done.err


@pytest.mark.parametrize("terms", ["false", "true"])
def test_it_is_trained_certified_and_answers_in_a_language_that_it_never_saw(
    make: MakeProject, terminal: Terminal, standin: Standin, terms: str
) -> None:
    root = make(terms=terms)
    done = terminal("train", "classify", cwd=root)
    assert done.code == 0, done.err
    assert "topics: trained on 28 examples (billing 14, delivery 14)" in done.out
    metadata = read_metadata(trained_file(root, "topics"))
    assert metadata.uses_terms == (terms == "true")
    again = terminal("train", "classify", cwd=root)
    assert "Nothing has changed" in again.err

    certified = terminal("certify", "classify", "--models", "topics", "-y", cwd=root)
    assert certified.code == 0, certified.err
    assert "1 certificate written" in certified.out

    outcome = ask(root)
    assert (outcome.status, outcome.model) == ("accepted", "topics")
    assert outcome.value["label"] == "delivery"
    # the step checks that it is in the text
    assert "Paket" in outcome.value["evidence"]
    assert all(verdict.passed for verdict in outcome.attempts[0].verdicts)
    assert standin.count == 0
    assert "words that decided: 'mein Paket kommt zu spät" in explained(root, terminal)


def test_other_weights_make_it_unavailable_and_say_what_to_do(
    make: MakeProject, terminal: Terminal
) -> None:
    root = make()
    trained(root, terminal)
    write_encoder(root.parent / "encoder", scale=0.5)
    said = Project(root).policy({}).unavailable["topics"]
    assert "trained with words, whose files" in said
    assert "tierwise train" in said
    assert "topics" in Project(root).identities({}).unknown
    outcome = ask(root)
    assert outcome.model == "large"
    trained(root, terminal)
    assert ask(root).model == "topics"


def test_a_catalog_that_says_otherwise_than_the_file_makes_it_unavailable(
    make: MakeProject, terminal: Terminal
) -> None:
    root = make()
    trained(root, terminal)
    catalog = root / CATALOG
    text = catalog.read_text()
    catalog.write_text(text.replace("terms: false", "terms: true"))
    said = Project(root).policy({}).unavailable["topics"]
    assert "trained without TF-IDF" in said
    catalog.write_text(text.replace("    embedder: words\n", ""))
    said = Project(root).policy({}).unavailable["topics"]
    assert "trained with words, and the catalog names another" in said


def test_a_missing_encoder_is_named_before_anything_else(
    make: MakeProject, terminal: Terminal
) -> None:
    root = make()
    trained(root, terminal)
    (root.parent / "encoder" / "model.onnx").unlink()
    said = Project(root).policy({}).unavailable["topics"]
    assert said.startswith("its embedder words: there is no file")
    done = terminal("train", "classify", cwd=root)
    assert done.code != 0
    assert "there is no file" in done.err


# --- guards --------------------------------------------------------------------------------------


@pytest.fixture
def hosted(make: MakeProject, standin: Standin) -> Path:
    """A project whose classifier says that it is local, with an embedder on a server elsewhere."""
    return make("hosted", more=SERVER.format(url=standin.url))


def test_a_classifier_has_the_tier_of_its_embedders_server(hosted: Path) -> None:
    catalog = Project(hosted).catalog
    assert catalog.model("topics").tier == "clarifai"
    assert catalog.host(catalog.model("topics"), {}).startswith("127.0.0.1:")


def test_a_confidential_text_never_goes_to_an_embedder_outside(
    hosted: Path, standin: Standin
) -> None:
    outcome = ask(hosted)
    assert outcome.route is not None
    [rejection] = [
        rejection for rejection in outcome.route.rejected if rejection.model == "topics"
    ]
    assert rejection.kind == "guard"
    assert "/v1/embeddings" not in {request.path for request in standin.requests}


def embeddings(request: Request) -> Fault:
    """Vectors as the encoder of the tests has them."""
    vectors = WordEncoder().embed(request.body["input"])
    rows = [
        {"object": "embedding", "index": index, "embedding": vector}
        for index, vector in enumerate(vectors.tolist())
    ]
    return raw(json.dumps({"object": "list", "data": rows, "model": "e5"}))


def test_an_embedder_outside_is_sent_the_text_of_other_documents_and_nothing_else(
    hosted: Path, terminal: Terminal, standin: Standin
) -> None:
    standin.answer(embeddings)
    trained(hosted, terminal)
    standin.requests.clear()
    outcome = ask(hosted, sensitivity="internal")
    assert (outcome.status, outcome.model) == ("accepted", "topics")
    assert outcome.attempts[0].tier == "clarifai"
    assert outcome.value["label"] == "delivery"
    assert {request.path for request in standin.requests} == {"/v1/embeddings"}
    sent = [text for request in standin.requests for text in request.body["input"]]
    assert all(text in GERMAN for text in sent)
    # an explanation sends nothing
    before = standin.count
    assert "words that decided" not in explained(hosted, terminal)
    assert standin.count == before


def test_a_server_that_is_out_hands_the_document_to_the_next_model(
    hosted: Path, terminal: Terminal, standin: Standin
) -> None:
    standin.answer(embeddings)
    trained(hosted, terminal)
    answer = json.dumps({"label": "billing", "evidence": "Paket"})
    standin.answer(
        lambda request: (
            status(400, "no") if request.path.endswith("embeddings") else answer
        )
    )
    outcome = ask(hosted, sensitivity="internal")
    assert outcome.model == "large"
    assert outcome.attempts[0].model == "topics"


def test_confidential_examples_are_never_sent_to_an_embedder_outside(
    hosted: Path, terminal: Terminal, standin: Standin
) -> None:
    path = hosted / "golden" / "classify-examples.jsonl"
    secret = {**rows()[0], "id": "s", "text": "the ministers invoice"}
    secret["sensitivity"] = "confidential"
    write(path, [*rows(), secret])
    done = terminal("train", "classify", cwd=hosted)
    assert done.code != 0
    assert "confidential texts are never sent out of the house" in done.err
    assert standin.count == 0


# --- the catalog ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("embedder: words", "embedder: wrods"), "no embedder named 'wrods'; did you"),
        (("embedder: words", "embedder: [words, words]"), "names an embedder twice"),
        (("embedder: words", "embedder: 3"), "embedder: "),
        (("learned: classify", "litellm_params: {model: openai/x}"), "has an embedder"),
    ],
)
def test_a_catalog_that_cannot_be_is_refused_with_its_line(
    make: MakeProject, change: tuple[str, str], said: str
) -> None:
    path = make() / CATALOG
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ConfigError, match=said):
        load_catalog(path)


# --- few-shot examples ---------------------------------------------------------------------------


def test_examples_are_selected_by_the_vectors_of_an_embedder(
    make: MakeProject, standin: Standin
) -> None:
    root = make()
    path = root / CATALOG
    named = "\n  large:\n    embedder: words\n    examples: 2"
    path.write_text(path.read_text().replace("\n  large:", named))
    before = Project(root)
    with Engine(before, env={}) as engine:
        current = engine.current(classify.spec, {"labels": LABELS})
    outcome = ask(root)
    assert outcome.model == "large"
    turns = standin.last.body["messages"]
    answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    assert len(answers) == 2
    assert all('"delivery"' in answer for answer in answers)

    write_encoder(root.parent / "encoder", scale=0.5)
    with Engine(Project(root), env={}) as engine:
        other = engine.current(classify.spec, {"labels": LABELS})
    assert current.identities["large"] != other.identities["large"]
    assert current.calls["large"] == other.calls["large"]


def test_the_stand_in_of_a_projects_tests_needs_no_embedder(make: MakeProject) -> None:
    """Neither for a classifier nor for the examples of a model: its files may not be there."""
    root = make()
    path = root / CATALOG
    named = "\n  large:\n    embedder: words\n    examples: 2"
    path.write_text(path.read_text().replace("\n  large:", named))
    (root.parent / "encoder" / "model.onnx").unlink()
    answer = {"label": "delivery", "evidence": "Paket"}
    for name, others in (("topics", []), ("large", ["topics"])):
        with StandIn(answer, root=root, unavailable=others) as models:
            [outcome] = models.ask("classify", GERMAN, labels=LABELS)
        assert (outcome.status, outcome.model) == ("accepted", name)


def test_examples_are_never_selected_by_a_server_outside(hosted: Path) -> None:
    path = hosted / CATALOG
    named = "\n  large:\n    embedder: hosted\n    examples: 2"
    path.write_text(path.read_text().replace("\n  large:", named))
    with pytest.raises(ConfigError, match="hosted is a server outside the house"):
        load_catalog(path)


# --- near duplicates -----------------------------------------------------------------------------


def set_near_duplicates(root: Path, name: str) -> None:
    (root / "pyproject.toml").write_text(
        f'[tool.tierwise]\nnear_duplicates = "{name}"\n'
    )


def test_training_says_how_many_examples_nearly_repeat_a_golden_text(
    make: MakeProject, terminal: Terminal
) -> None:
    root = make()
    golden = {"id": "g", "text": "Paket spät", "label": "delivery"}
    write(root / "golden" / "classify.jsonl", [golden])
    repeated = {"id": "again", "text": "late parcel courier", "label": "delivery"}
    write(root / "golden" / "classify-examples.jsonl", [*rows(), repeated])
    assert "nearly repeat" not in terminal("train", "classify", cwd=root).out
    set_near_duplicates(root, "words")
    done = terminal("train", "classify", cwd=root)
    assert done.code == 0, done.err
    said = "1 example nearly repeats a text of golden/classify.jsonl, such as again."
    assert said in done.out
    told = json.loads(terminal("train", "classify", "--json", cwd=root).out)
    assert told["nearly_golden"] == ["again"]
    set_near_duplicates(root, "wrods")
    assert "no embedder named 'wrods'" in terminal("train", "classify", cwd=root).err


def test_an_export_leaves_out_what_says_the_same_as_a_golden_text(
    make: MakeProject, terminal: Terminal
) -> None:
    root = make()
    trained(root, terminal)
    inbox = root / "inbox"
    inbox.mkdir()
    (inbox / "a.txt").write_text("late parcel courier")
    (inbox / "b.txt").write_text("Hello, the parcel is late again, and it rained.")
    golden = {"id": "g", "text": "Paket spät", "label": "delivery"}
    write(root / "golden" / "classify.jsonl", [golden])
    with Engine(Project(root), env={}) as engine:
        [batch] = read_documents(inbox, sensitivity="internal")
        run = engine.start_run("inbox", parameters={"source": "inbox"})
        engine.run_batch(run, classify.spec, batch, {"labels": LABELS})
    command = ("export", "--step", "classify", "--in-house", "--force")
    before = terminal(*command, cwd=root)
    assert "in a golden set, or nearly" not in before.err
    set_near_duplicates(root, "words")
    after = terminal(*command, cwd=root)
    assert "1  in a golden set, or nearly" in after.err


def test_golden_texts_are_never_sent_to_a_server_outside_to_be_compared(
    hosted: Path, terminal: Terminal, standin: Standin
) -> None:
    standin.answer(embeddings)
    trained(hosted, terminal)
    set_near_duplicates(hosted, "hosted")
    before = standin.count
    done = terminal("train", "classify", cwd=hosted)
    assert done.code == 2
    assert "names hosted, a server outside the house" in done.err
    assert standin.count == before
