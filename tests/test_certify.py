"""Proof end to end: measure on a golden set through a real socket, write it down, and route by it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.classify import classify
from tests.projects import make_project, model
from tests.standin import Request, Standin
from tests.terminal import Terminal
from tests.test_cascade import LABELS, TEXT
from tierwise.certificates import load_certificates
from tierwise.engine import Engine
from tierwise.errors import ConfigError
from tierwise.golden import load_golden
from tierwise.project import CERTIFICATES, Project
from tierwise.records import Batch, Document, Outcome

CLASSIFY = classify.spec
DEAR = "{input: 10, output: 20, source: test, date: 2026-11-01}"
RULES = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
floors: {classify: 0.9}
routes:
  - {name: proven, pick: cheapest_capable}
"""
WORDS = {"billing": "my invoice is wrong", "delivery": "my parcel is late"}


def golden_rows(count: int = 60) -> list[dict[str, str]]:
    """Messages whose label follows from their words."""
    labels = list(WORDS)
    return [
        {"id": f"g{n}", "text": f"Message {n}: {WORDS[labels[n % 2]]}, please help.", "label": labels[n % 2]}
        for n in range(count)
    ]


def write_golden(root: Path, rows: list[dict[str, str]], name: str = "classify") -> Path:
    (root / "golden").mkdir(exist_ok=True)
    path = root / "golden" / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "golden" / "classify.yaml").write_text("parameters: {labels: [billing, delivery], descriptions: {}}\n")
    return path


def right(request: Request) -> str:
    """A model that reads."""
    label = "billing" if "invoice" in request.document else "delivery"
    return json.dumps({"label": label, "evidence": " ".join(request.document.split()[:6])})


def lazy(request: Request) -> str:
    """A model that always says the same, with words of the document."""
    return json.dumps({"label": "billing", "evidence": " ".join(request.document.split()[:4])})


@pytest.fixture
def servers() -> Iterator[tuple[Standin, Standin]]:
    with Standin() as cheap, Standin() as dear:
        cheap.answer(lazy)
        dear.answer(right)
        yield cheap, dear


@pytest.fixture
def project(tmp_path: Path, servers: tuple[Standin, Standin]) -> Path:
    cheap, dear = servers
    root = make_project(
        tmp_path / "project",
        model("cheap", cheap.url, strength=10),
        model("dear", dear.url, strength=20, price=DEAR),
        rules=RULES,
    )
    write_golden(root, golden_rows())
    return root


def route_one(root: Path, text: str = TEXT) -> Outcome:
    """What the router does with one document now."""
    with Engine(Project(root), env={}) as engine:
        document = Document(id="a", text=text, sensitivity="internal")
        done = engine.run_batch(engine.start_run("test"), CLASSIFY, Batch((document,)), LABELS)
    return done.documents[0].outcomes["classify"]


def certify(terminal: Terminal, root: Path, *options: object) -> list[dict[str, Any]]:
    done = terminal("certify", "classify", "--yes", "--json", *options, cwd=root)
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = json.loads(done.out)
    return rows


def test_without_proof_the_strongest_allowed_model_comes_first_and_the_route_says_so(project: Path) -> None:
    outcome = route_one(project)
    assert outcome.route is not None
    assert outcome.route.models[0] == "dear"
    assert "nothing is certified" in outcome.route.reason


def test_certify_measures_each_model_and_writes_what_that_proves(terminal: Terminal, project: Path) -> None:
    """60 examples: one model is right on half of them, the other on all."""
    rows = certify(terminal, project)
    assert [(row["candidate"], row["right"], row["n"]) for row in rows] == [("cheap", 30, 60), ("dear", 60, 60)]
    proofs = {c.models: c for c in load_certificates(project / CERTIFICATES).certificates}
    assert proofs["dear",].bound > 0.9
    assert proofs["cheap",].errors == 30
    assert proofs["dear",].compared == 2
    assert proofs["dear",].mean_cost is not None


def test_the_floor_decides_which_model_is_picked(terminal: Terminal, project: Path) -> None:
    """Where only one model meets the floor, that one; with the floor lowered, the cheaper."""
    certify(terminal, project)
    high = route_one(project)
    assert high.route is not None
    assert (high.model, high.route.models) == ("dear", ("dear",))
    assert "below the floor of 0.9" in {r.model: r.reason for r in high.route.rejected}["cheap"]

    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text().replace("classify: 0.9", "classify: 0.3"))
    low = route_one(project, "my invoice is wrong, please help me with it")
    assert low.route is not None
    assert low.route.models == ("cheap", "dear")
    assert low.route.reason.startswith("the cheapest shown capable of 0.3: cheap: 30 errors in 60")


def test_a_chain_is_certified_as_what_it_delivers(
    terminal: Terminal, project: Path, servers: tuple[Standin, Standin]
) -> None:
    """Calls that the single models were measured with are not paid again."""
    servers[0].answer(lambda request: right(request) if "invoice" in request.document else json.dumps({"label": "x"}))
    certify(terminal, project, "-m", "cheap", "-m", "dear")
    paid = servers[0].count + servers[1].count
    rows = certify(terminal, project, "-m", "cheap > dear")
    assert [(row["candidate"], row["right"], row["n"]) for row in rows] == [("cheap > dear", 60, 60)]
    assert servers[0].count + servers[1].count == paid
    outcome = route_one(project)
    assert outcome.route is not None
    assert outcome.route.models == ("cheap", "dear")


def test_a_changed_prompt_voids_the_certificates(terminal: Terminal, project: Path) -> None:
    certify(terminal, project)
    prompt = project / "prompts" / "classify.md.j2"
    prompt.write_text(prompt.read_text().replace("You sort documents.", "You sort messages."))
    outcome = route_one(project)
    assert outcome.route is not None
    assert "nothing is certified" in outcome.route.reason


def test_other_labels_than_the_certified_ones_are_not_covered(terminal: Terminal, project: Path) -> None:
    """A certificate for sorting topics says nothing about sorting risks."""
    certify(terminal, project)
    with Engine(Project(project), env={}) as engine:
        document = Document(id="a", text="my invoice is wrong", sensitivity="internal")
        labels = {"labels": ["billing", "risk"], "descriptions": {}}
        done = engine.run_batch(engine.start_run("test"), CLASSIFY, Batch((document,)), labels)
    route = done.documents[0].outcomes["classify"].route
    assert route is not None
    assert "nothing is certified" in route.reason


def test_a_taught_model_is_shown_the_nearest_examples_as_earlier_turns(
    project: Path, servers: tuple[Standin, Standin]
) -> None:
    """The nearest last, as question and right answer; never the document itself."""
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(catalog.read_text() + "  taught: {like: dear, examples: 2, strength: 30}\n")
    rows = [{**row, "evidence": WORDS[row["label"]]} for row in golden_rows(24)]
    rows[3]["text"] = "Parcel, parcel, where is my late parcel from Hull?"
    write_golden(project, rows, "classify-examples")
    question = "Where is my late parcel from Hull? My parcel is late."
    servers[1].answer(json.dumps({"label": "delivery", "evidence": "my late parcel from Hull"}))
    with Engine(Project(project), env={}) as engine:
        document = Document(id="a", text=question, sensitivity="internal")
        done = engine.run_batch(engine.start_run("test"), CLASSIFY, Batch((document,)), LABELS)
    outcome = done.documents[0].outcomes["classify"]
    assert (outcome.status, outcome.model) == ("accepted", "taught")
    turns = servers[1].last.body["messages"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert rows[3]["text"] in turns[3]["content"]
    assert json.loads(turns[4]["content"]) == {"label": rows[3]["label"], "evidence": WORDS[rows[3]["label"]]}
    assert question in turns[5]["content"]


def test_examples_more_sensitive_than_the_document_are_not_shown(
    project: Path, servers: tuple[Standin, Standin]
) -> None:
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(catalog.read_text() + "  taught: {like: dear, examples: 4, strength: 30}\n")
    rows = [{**row, "sensitivity": "confidential"} for row in golden_rows(24)]
    write_golden(project, rows, "classify-examples")
    with Engine(Project(project), env={}) as engine:
        document = Document(id="a", text="my parcel is late, where is it", sensitivity="internal")
        engine.run_batch(engine.start_run("test"), CLASSIFY, Batch((document,)), LABELS)
    assert all(len(request.body["messages"]) == 2 for request in servers[1].requests)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['{"id": "a", "text": "hi"}'] * 2, "golden.jsonl:2: the id 'a' stands in line 1 too"),
        (['{"id": "a", "text": "hi", "label": "x"}'], "too few"),
        (["not json"], "golden.jsonl:1"),
        (['{"text": "no id"}'], "golden.jsonl:1"),
        (['{"id": "a", "text": "  "}'], "golden.jsonl:1"),
    ],
    ids=["twice", "too few", "not json", "no id", "no text"],
)
def test_a_bad_golden_set_is_an_error_with_its_place(tmp_path: Path, lines: list[str], says: str) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load_golden(path)
    assert says in str(caught.value)


def test_certifying_without_a_golden_set_is_misuse(terminal: Terminal, project: Path) -> None:
    (project / "golden" / "classify.jsonl").unlink()
    done = terminal("certify", "classify", "--yes", cwd=project)
    assert done.code == 2
    assert "classify.jsonl is missing" in done.err


def test_certifying_a_step_that_says_not_what_is_right_is_misuse(terminal: Terminal, project: Path) -> None:
    write_golden(project, golden_rows(), "extract")
    done = terminal("certify", "extract", "--yes", "-m", "dear", cwd=project)
    assert done.code == 2
    assert "does not say what a right answer is" in done.err


def test_an_unknown_model_is_misuse_with_a_suggestion(terminal: Terminal, project: Path) -> None:
    done = terminal("certify", "classify", "--yes", "-m", "chaep", cwd=project)
    assert done.code == 2
    assert "did you mean 'cheap'" in done.err
