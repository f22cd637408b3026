"""`tierwise export`: accepted answers as training data, and what is never in it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import validate

from tests.kit.ledgers import RUN, migrated_url
from tests.kit.ledgers import run as awaited
from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin
from tests.kit.steps import CLASSIFY
from tests.kit.terminal import Done, Terminal
from tierwise.documents.groups import group_of
from tierwise.engine import Engine
from tierwise.export.collect import Export, ExportFilter, collect
from tierwise.ledger import Decision, Ledger
from tierwise.ledger.people.samples import item_id
from tierwise.project import Project
from tierwise.records import (
    SENSITIVITIES,
    Batch,
    Document,
    Outcome,
    Route,
    Sensitivity,
    rank,
)
from tierwise.review.queue import edit, find_item, reject

LABELS = {"labels": ["billing", "delivery"], "descriptions": {}}
RULES = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
  - {name: private-stays-local, when: {tags: {private: ["yes"]}}, allow_tiers: [local]}
routes:
  - {name: dear, when: {tags: {dear: ["yes"]}}, try: [large]}
  - {name: default, try: [small]}
"""
SUBJECTS = [
    "parcel",
    "desk",
    "invoice",
    "lamp",
    "chair",
    "letter",
    "refund",
    "box",
    "mirror",
    "order",
    "shelf",
    "bed",
]
PLACES = [
    "Antwerp",
    "Bergen",
    "Cadiz",
    "Dresden",
    "Eger",
    "Faro",
    "Genoa",
    "Hull",
    "Izmir",
    "Jena",
    "Kiel",
    "Lund",
]


def text(number: int) -> str:
    """A message unlike the others."""
    return f"My {SUBJECTS[number % 12]} from {PLACES[number * 5 % 12]} has not arrived, and I paid for number {number}."


def right(request: Request) -> str:
    return json.dumps({"label": "delivery", "evidence": "has not arrived"})


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    standin.answer(right)
    entries = [
        model("small", standin.url),
        model("large", standin.url, tier="proprietary", strength=20),
    ]
    root = make_project(tmp_path / "project", *entries, rules=RULES)
    (root / "golden").mkdir()
    (root / "golden" / "classify.yaml").write_text(json.dumps({"parameters": LABELS}))
    return root


def classified(project: Path, *documents: Document) -> str:
    """A run that sorts these documents; its id."""
    spec = Project(project).load_step("classify")
    with Engine(Project(project), env={}) as engine:
        run = engine.start_run("inbox", parameters={"source": "inbox"})
        engine.run_batch(run, spec, Batch(documents), LABELS)
        engine.finish_run(run, "completed")
    return run.id


def message(project: Path, number: int, **changes: Any) -> Document:
    """A document that also lies in the project's inbox."""
    (project / "inbox").mkdir(exist_ok=True)
    (project / "inbox" / f"{number}.txt").write_text(text(number))
    return replace(
        Document(
            id=f"{number}.txt", text=text(number), sensitivity="internal", language="en"
        ),
        **changes,
    )


def exported(
    terminal: Terminal, project: Path, *arguments: object
) -> tuple[Done, list[dict[str, Any]]]:
    done = terminal("export", "--step", "classify", "--force", *arguments, cwd=project)
    folder = project / "out" / "export" / "classify"
    files = [
        folder / name
        for name in ("train.jsonl", "validation.jsonl")
        if (folder / name).exists()
    ]
    return done, [
        json.loads(line) for file in files for line in file.read_text().splitlines()
    ]


def told(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (project / "out" / "export" / "classify" / "export.json").read_text()
    )
    return found


def test_each_line_is_the_conversation_that_the_tuned_model_will_have(
    project: Path, terminal: Terminal
) -> None:
    """System and user message as the prompt renders them today, and the answer as JSON in the order of the schema."""
    documents = [message(project, number) for number in range(12)]
    classified(project, *documents)
    done, lines = exported(terminal, project, "--validation", "0.4")
    assert done.code == 0, done.err
    asked = {
        d.text: Project(project).prompts["classify"].render(d, {"part": None, **LABELS})
        for d in documents
    }
    assert len(lines) == 12
    for line in lines:
        roles, contents = zip(
            *((m["role"], m["content"]) for m in line["messages"]), strict=True
        )
        assert roles == ("system", "user", "assistant")
        assert contents[:2] in [
            tuple(m.content for m in messages) for messages in asked.values()
        ]
        assert json.loads(contents[2]) == {
            "label": "delivery",
            "evidence": "has not arrived",
        }
    folder = project / "out" / "export" / "classify"
    assert f"{folder / 'train.jsonl'}: {told(project)['train']} examples" in done.out
    assert told(project)["train"] + told(project)["validation"] == 12
    assert (folder / "validation.jsonl").exists()


def test_what_is_held_out_hangs_on_the_text_alone(
    project: Path, terminal: Terminal
) -> None:
    """More documents move none of the others to the other side."""

    def held_out() -> set[str]:
        lines = (
            (project / "out" / "export" / "classify" / "validation.jsonl")
            .read_text()
            .splitlines()
        )
        return {json.loads(line)["messages"][1]["content"] for line in lines}

    documents = [message(project, number) for number in range(24)]
    classified(project, *documents[:12])
    exported(terminal, project, "--validation", "0.5")
    before = held_out()
    classified(project, *documents)
    exported(terminal, project, "--validation", "0.5")
    assert before
    assert before <= held_out()
    assert told(project)["train"] + told(project)["validation"] == 24


def test_export_json_says_what_the_files_are_made_of(
    project: Path, terminal: Terminal
) -> None:
    classified(
        project, message(project, 1), message(project, 2, sensitivity="confidential")
    )
    exported(terminal, project)
    found = told(project)
    today = Project(project)
    assert (found["step"], found["prompt"], found["prompt_hash"]) == (
        "classify",
        today.prompts["classify"].label,
        today.prompts["classify"].hash,
    )
    assert found["schema"]["properties"]["label"]["enum"] == LABELS["labels"]
    assert (found["answers_of"], found["policy"]) == (
        {"small": 1},
        today.policy({}).hash,
    )
    assert sum(found["left_out"].values()) == 1
    assert set(found["files"]) <= {"train.jsonl", "validation.jsonl"}


@pytest.mark.parametrize("keep", ["outputs", "all"])
def test_texts_come_from_the_ledger_or_from_where_the_run_read_them(
    project: Path, terminal: Terminal, keep: str, tmp_path: Path
) -> None:
    """A text that is neither kept nor found is left out, and the command says what to name."""
    (project / "pyproject.toml").write_text(f'[tool.tierwise]\nkeep_text = "{keep}"\n')
    classified(project, message(project, 1), message(project, 2))
    assert len(exported(terminal, project)[1]) == 2
    (project / "inbox").rename(tmp_path / "moved")
    done, lines = exported(terminal, project)
    assert (done.code, len(lines)) == ((0, 2) if keep == "all" else (1, 2)), done.err
    assert ("--source names one" in done.err) == (keep == "outputs")
    (tmp_path / "moved" / "1.txt").write_text(
        "Something else by now, of which no answer is known."
    )
    done, lines = exported(terminal, project, "--source", tmp_path / "moved")
    assert (done.code, len(lines)) == (0, 2 if keep == "all" else 1)


def test_a_persons_answer_is_the_one_to_learn(
    project: Path, terminal: Terminal
) -> None:
    """An edit takes the place of the model's answer, also of later runs; what a person rejected is not there."""
    documents = [message(project, number) for number in range(3)]
    first = classified(project, *documents)
    with Engine(Project(project), env={}) as engine:
        edit(
            engine.ledger,
            find_item(engine.ledger, first, "0.txt"),
            '{"evidence": "I paid", "label": "billing"}',
            by="ada",
        )
        reject(engine.ledger, find_item(engine.ledger, first, "1.txt"), by="ada")
    classified(project, *documents)
    done, lines = exported(terminal, project)
    answers = {json.loads(line["messages"][2]["content"])["label"] for line in lines}
    assert (len(lines), answers) == (2, {"billing", "delivery"})
    assert told(project)["persons"] == {"edited": 1}
    assert "1  a person rejected the answer" in done.err
    done, lines = exported(terminal, project, "--reviewed")
    assert [json.loads(line["messages"][2]["content"]) for line in lines] == [
        {"label": "billing", "evidence": "I paid"}
    ]
    assert list(json.loads(lines[0]["messages"][2]["content"])) == [
        "label",
        "evidence",
    ], "the schema's order"


def test_an_answer_that_a_person_labelled_as_wrong_is_not_learnt(
    project: Path, terminal: Terminal
) -> None:
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text() + "shadow: {share: 1}\n")
    documents = message(project, 1), message(project, 2)
    run_id = classified(project, *documents)
    for document, word in zip(documents, ("neither", "accepted"), strict=True):
        item = item_id(run_id, "classify", document.hash)
        assert (
            terminal("label", item, "--right", word, "--by", "ada", cwd=project).code
            == 0
        )
    done, lines = exported(terminal, project)
    assert len(lines) == 1
    assert "1  a person labelled the answer as wrong" in done.err
    assert told(project)["persons"] == {"labelled right": 1}


def test_answers_of_some_models_or_tiers_can_be_asked_for(
    project: Path, terminal: Terminal
) -> None:
    """What a person edited counts as the answer of the models that the person saw."""
    dear = message(project, 2, metadata={"dear": "yes"})
    first = classified(project, message(project, 1), dear)
    assert len(exported(terminal, project)[1]) == 2
    for arguments, models in [
        (("--tier", "local"), {"small": 1}),
        (("--tier", "proprietary"), {"large": 1}),
        (("--model", "large"), {"large": 1}),
        (("--model", "large", "--model", "small"), {"small": 1, "large": 1}),
    ]:
        exported(terminal, project, *arguments)
        assert told(project)["answers_of"] == models
    with Engine(Project(project), env={}) as engine:
        edit(
            engine.ledger,
            find_item(engine.ledger, first, "2.txt"),
            '{"evidence": "I paid", "label": "billing"}',
            by="ada",
        )
    done, _ = exported(terminal, project, "--tier", "local")
    assert told(project)["answers_of"] == {"small": 1}
    assert "1  of other tiers than named" in done.err


def test_what_is_confidential_does_not_leave_without_being_named(
    project: Path, terminal: Terminal
) -> None:
    """And what a guard keeps in the house only for a training in the house."""
    secret = message(project, 2, sensitivity="confidential")
    private = message(project, 3, metadata={"private": "yes"})
    classified(project, message(project, 1), secret, private)

    def numbers(*arguments: object) -> list[int]:
        _, lines = exported(terminal, project, *arguments)
        prompts = "\n".join(line["messages"][1]["content"] for line in lines)
        return [number for number in (1, 2, 3) if text(number) in prompts]

    assert numbers() == [1]
    assert numbers("--sensitivity-max", "confidential") == [1]
    assert numbers("--in-house") == [1, 3]
    assert numbers("--sensitivity-max", "confidential", "--in-house") == [1, 2, 3]
    (project / "inbox" / "1.txt").write_text(
        f"---\nsensitivity: confidential\n---\n{text(1)}"
    )
    assert numbers("--in-house") == [3], "also what says so only by now"


def test_a_group_leaves_only_for_a_training_in_the_house(
    project: Path, terminal: Terminal
) -> None:
    """Guards look at its members, and the record does not say what these are like."""
    members = [
        message(project, 2),
        message(project, 3, metadata={"private": "yes"}),
    ]
    group = group_of("all", members, id="group/all", text=text(4))
    classified(project, message(project, 1), group)
    with Engine(Project(project), env={}) as engine:
        engine.ledger.retention.keep([group])

    def exports_group(*arguments: object) -> bool:
        _, lines = exported(terminal, project, *arguments)
        return any(text(4) in line["messages"][1]["content"] for line in lines)

    assert not exports_group()
    assert exports_group("--in-house")


@pytest.mark.parametrize(
    "changed",
    [
        lambda t: t,
        str.upper,
        lambda t: t.replace("paid", "pay"),
        lambda t: f"> {t}\n\nSee above. Where is it? Tom",
    ],
)
def test_golden_texts_are_left_out_and_what_is_nearly_one(
    project: Path, terminal: Terminal, changed: Any
) -> None:
    """Another spelling, a word more or less, a quotation; the golden sets of other steps count too."""
    golden = {
        "id": "g",
        "text": changed(text(1)) if changed is str.upper else text(1),
        "reply": "x",
    }
    (project / "golden" / "draft.jsonl").write_text(json.dumps(golden) + "\n")
    document = message(project, 1, text=changed(text(1)))
    (project / "inbox" / "1.txt").write_text(document.text)
    classified(project, document, message(project, 20))
    done, lines = exported(terminal, project)
    assert len(lines) == 1
    assert "1  in a golden set, or nearly" in done.err


def test_answers_to_another_question_are_left_out(
    project: Path, terminal: Terminal
) -> None:
    """With other labels the same answer means something else."""
    classified(project, message(project, 1))
    (project / "golden" / "classify.yaml").write_text(
        json.dumps({"parameters": {**LABELS, "labels": ["delivery"]}})
    )
    done, lines = exported(terminal, project)
    assert (done.code, lines) == (1, [])
    assert "another question" in done.err


def test_measured_answers_are_no_material(project: Path, terminal: Terminal) -> None:
    """Golden sets may lie elsewhere; whatever was measured is left out without a word."""
    document = message(project, 1)
    spec = Project(project).load_step("classify")
    with Engine(Project(project), env={}) as engine:
        engine.run_batch(
            engine.start_run("certify"),
            spec,
            Batch((document,)),
            LABELS,
            models=("small",),
        )
    assert exported(terminal, project)[0].code == 1


def test_an_earlier_export_is_not_overwritten_unless_wanted(
    project: Path, terminal: Terminal
) -> None:
    classified(project, message(project, 1))
    exported(terminal, project)
    done = terminal("export", "--step", "classify", cwd=project)
    assert (done.code, "overwrite by --force" in done.err) == (2, True)
    elsewhere = project / "elsewhere"
    assert (
        terminal("export", "--step", "classify", "-o", elsewhere, cwd=project).code == 0
    )
    assert (elsewhere / "export.json").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--step", "clasify"), "no step named 'clasify'; did you mean 'classify'?"),
        (
            ("--step", "classify", "--sensitivity-max", "secret"),
            "no sensitivity named 'secret'",
        ),
        (
            ("--step", "classify", "--tier", "locals"),
            "no tier named 'locals'; did you mean 'local'?",
        ),
        (("--step", "classify", "--source", "nowhere"), "there is no such folder"),
        (("--step", "classify", "--validation", "1"), "is no share"),
    ],
)
def test_a_wrong_command_says_what_is_right(
    project: Path, terminal: Terminal, arguments: Any, why: str
) -> None:
    done = terminal("export", *arguments, cwd=project)
    assert (done.code, why in done.err) == (2, True), done.err


@dataclass(frozen=True)
class Paper:
    """A document of a past run, and what became of it."""

    number: int
    levels: tuple[Sensitivity, ...]  # one for each run that had it
    golden: bool
    kept: bool  # its text is in the ledger, else in the inbox
    declares: Sensitivity | None  # what the file in the inbox says
    word: str | None  # a person's decision
    value: Any


RIGHT = {"label": "billing", "evidence": "has not arrived"}
VALUES = st.sampled_from(
    [RIGHT, RIGHT, RIGHT, RIGHT | {"label": "no such label"}, {"label": "billing"}]
)
PAPERS = st.builds(
    Paper,
    number=st.integers(0, 9),
    levels=st.lists(st.sampled_from(SENSITIVITIES), min_size=1, max_size=2).map(tuple),
    golden=st.booleans(),
    kept=st.booleans(),
    declares=st.sampled_from([None, None, *SENSITIVITIES]),
    word=st.sampled_from([None, None, "approved", "edited", "rejected"]),
    value=VALUES,
)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project to be filled anew for each example."""
    root = tmp_path_factory.mktemp("export") / "project"
    make_project(
        root,
        model("small", "http://127.0.0.1:1"),
        model("large", "http://127.0.0.1:1", tier="proprietary"),
    )
    (root / "golden").mkdir()
    (root / "golden" / "classify.yaml").write_text(json.dumps({"parameters": LABELS}))
    return root


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    papers=st.lists(PAPERS, min_size=3, max_size=8),
    most=st.sampled_from(SENSITIVITIES),
    share=st.floats(0, 0.9),
)
def test_whatever_is_on_record_only_what_may_be_learnt_is_exported(
    empty: Path, papers: list[Paper], most: Sensitivity, share: float
) -> None:
    """No golden text, nothing above the sensitivity; disjoint parts; every line parses and fits the step's schema."""
    with tempfile.TemporaryDirectory(prefix="tierwise-test-") as folder:
        found = _exported(empty, Path(folder), papers, most, share)
    inside = {
        paper.number
        for paper in papers
        for example in found.examples
        if example.text == text(paper.number)
    }
    assert len(inside) == len(found.examples), "each text once"
    for paper in papers:
        if paper.number in inside:
            assert not any(p.golden for p in papers if p.number == paper.number)
            assert all(rank(level) <= rank(most) for level in paper.levels)
    learnt, held_out = (
        {e.id for e in part} for part in (found.train, found.validation)
    )
    assert not learnt & held_out
    for example in found.examples:
        answer = json.loads(json.loads(example.line)["messages"][-1]["content"])
        validate(answer, Project(empty).load_step("classify").schema(LABELS))


def _exported(
    root: Path, folder: Path, papers: list[Paper], most: Sensitivity, share: float
) -> Export:
    project = Project(root)
    question = project.load_step("classify").question(LABELS)
    inbox = folder / "inbox"
    inbox.mkdir()
    golden = [
        {"id": str(n), "text": text(p.number), "label": "billing"}
        for n, p in enumerate(papers)
        if p.golden
    ]
    (root / "golden" / "classify.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in golden)
    )
    with Ledger.open(migrated_url("sqlite", folder), root=folder) as ledger:
        for place, paper in enumerate(papers):
            head = (
                f"---\nsensitivity: {paper.declares}\n---\n" if paper.declares else ""
            )
            (inbox / f"{place}.md").write_text(head + text(paper.number))
            for number, level in enumerate(paper.levels):
                run = replace(
                    RUN, id=f"run-{place}-{number}", started_at=RUN.started_at + place
                )
                ledger.start_run(run)
                document = Document(
                    id=f"{place}.md", text=text(paper.number), sensitivity=level
                )
                if paper.kept:
                    ledger.retention.keep([document])
                outcome = Outcome(
                    step="classify",
                    status="accepted",
                    value=paper.value,
                    model="small",
                    sensitivity=level,
                    route=Route(step="classify", rule="default", models=("small",)),
                )
                awaited(ledger.record_outcome(run.id, document, outcome, question))
            if paper.word:
                ledger.reviews.decide(_decision(run.id, document, paper, question))
        return collect(
            project,
            ledger,
            "classify",
            ExportFilter(sensitivity_max=most, sources=(inbox,)),
            validation=share,
        )


def _decision(run_id: str, document: Document, paper: Paper, question: str) -> Decision:
    return Decision(
        run_id=run_id,
        document_id=document.id,
        document_hash=document.hash,
        step=CLASSIFY.name,
        question=question,
        decision=paper.word,  # type: ignore[arg-type] # one of the words
        value=None if paper.word == "rejected" else paper.value,
        sensitivity=document.sensitivity,
        reviewer="ada",
        reviewed_at=1_790_000_100.0,
    )
