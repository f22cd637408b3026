"""Golden rows that measure nothing are refused wherever they would count, with place and remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tasks.actions import actions
from tasks.classify import classify
from tasks.summarize import summarize
from tests.kit.projects import make_project, model
from tests.kit.standin import Standin
from tests.kit.terminal import Done, OwnProcess
from tierwise.cascade.shadow import agreement
from tierwise.engine import Engine
from tierwise.ledger.people.samples import Audit, item_id
from tierwise.project import Project
from tierwise.records import Batch, Document
from tierwise.steps.correctness import mentions, rubric, same, same_fields
from tierwise.steps.row_faults import approved_fault, row_fault
from tierwise.steps.step import Correct, Step

TOPICS = {"labels": ["billing", "delivery"]}
PROMPT = """\
---
step: tell
version: 1
max_output_tokens: 60
---
{% block system %}Tell it in a sentence, as JSON: {"story": "…"}{% endblock %}
{% block user %}{{ document }}{% endblock %}
"""
TASK = '''\
"""tell: a document in a sentence."""

from pydantic import BaseModel

from tierwise import step
from tierwise.steps.correctness import mentions


class Story(BaseModel):
    """A document in a sentence."""

    story: str


tell = step("tell", returns=Story, correct=mentions("story"))
'''
RULES = """
version: 1
floors: {tell: 0.5}
routes:
  - {name: default, try: [small], review: human}
"""
TEXTS = [f"The kettle number {n} has no lid." for n in range(6)]
SOUND = [
    {"id": f"{n}", "text": text, "must_mention": ["kettle"]}
    for n, text in enumerate(TEXTS)
]
VACUOUS = (
    "every answer passes this row, so it proves nothing: the measure of tell reads "
    "must_mention, must_not of a row, and this one has story; "
    "write what a right answer needs, or take the row out"
)


class Story(BaseModel):
    """A text, and perhaps a number."""

    story: str
    number: int | None = None


def tell(measure: Correct) -> Step:
    return Step(name="tell", returns=Story, prompt="tell", correct=measure)


def own_measure(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """A project's own: the number may be missing, and is then anything."""
    wanted = expected.get("number")
    return wanted is None or bool(output["number"] == wanted)


def no_measure(output: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return True


@pytest.mark.parametrize(
    ("step", "expected", "says"),
    [
        (
            tell(mentions("story")),
            {"story": "The kettle has no lid."},
            VACUOUS,
        ),
        (
            tell(mentions("story")),
            {"must_mention": []},
            VACUOUS.replace("has story", "has must_mention"),
        ),
        (
            tell(own_measure),
            {"nummer": 7},
            "every answer passes this row, so it proves nothing: the measure of tell reads "
            "number of a row, and this one has nummer; "
            "write what a right answer needs, or take the row out",
        ),
        (
            tell(no_measure),
            {"story": "x"},
            "every answer passes this row, so it proves nothing: the measure of tell reads "
            "nothing of a row, and this one has story; "
            "write what a right answer needs, or take the row out",
        ),
        (
            tell(same_fields()),
            {},
            "no answer is right for this row: the measure of tell reads "
            "nothing of a row, and this one has nothing; "
            "write the right answer, or take the row out",
        ),
        (
            tell(same("story")),
            {"stori": "x"},
            "no answer is right for this row: the measure of tell reads "
            "story of a row, and this one has stori; "
            "write the right answer, or take the row out",
        ),
        (
            tell(same("stori")),
            {"stori": "x"},
            "the measure of tell compares a field that no answer has: "
            "no field of Story named 'stori'; did you mean 'story'?",
        ),
        (
            tell(mentions("stori")),
            {"must_mention": ["x"]},
            "the measure of tell compares a field that no answer has: "
            "no field of Story named 'stori'; did you mean 'story'?",
        ),
        (
            tell(same_fields()),
            {"story": "x", "numbr": None},
            "the measure of tell compares a field that no answer has: "
            "no field of Story named 'numbr'; did you mean 'number'?",
        ),
        (
            actions.spec,
            {"decision": [], "actions": []},
            "no answer can be compared with this row: the measure of actions raised "
            "KeyError at actions.py:78; it reads decisions of a row, and this one has "
            "decision, actions; write the row as that function reads it",
        ),
    ],
)
def test_a_row_that_measures_nothing_has_a_reason_and_a_remedy(
    step: Step, expected: Mapping[str, Any], says: str
) -> None:
    assert row_fault(step, {}, expected) == says


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (tell(mentions("story")), {"must_mention": ["lid"]}),
        (tell(mentions("story")), {"must_not": ["refund"]}),
        (tell(same_fields()), {"story": "x", "number": None}),
        (tell(same_fields()), {"story": None, "number": None}),
        (tell(same("number")), {"number": None}),
        (tell(own_measure), {"number": 7}),
        (tell(lambda output, _: bool(output["story"])), {}),
        (actions.spec, {"decisions": [], "actions": []}),
        (classify.spec, {"label": "billing"}),
        # a judge decides about the rest
        (summarize.spec, {"summary": "x"}),
        (tell(rubric("It is kind.")), {}),
        (replace(tell(same("story")), correct=None), {}),
    ],
)
def test_a_row_that_an_answer_can_fail_is_sound(
    step: Step, expected: Mapping[str, Any]
) -> None:
    assert row_fault(step, TOPICS, expected) is None


@given(st.dictionaries(st.sampled_from(["story", "number", "must_not"]), st.text()))
def test_no_row_is_refused_for_which_some_answer_is_wrong(
    expected: dict[str, str],
) -> None:
    """Whatever a row has: what is called vacuous really passes all of these answers."""
    fault = row_fault(tell(mentions("story")), {}, expected)
    words = expected.get("must_not", "")
    answers: list[dict[str, Any]] = [{"story": ""}, {"story": words}, {"story": "x"}]
    passes = [mentions("story")(answer, expected) for answer in answers]
    assert (fault is not None) == all(passes)


def test_an_approved_answer_that_its_own_row_finds_wrong_makes_no_row() -> None:
    """The measure of `actions` wants other fields than its answers have."""
    value = {
        "decisions": [{"quote": "it's the 11th", "what": "the day"}],
        "actions": [],
    }
    fault = re.sub(r":\d+ ", ":LINE ", approved_fault(actions.spec, value) or "")
    assert fault == (
        "an answer is no row of its golden set: compared with itself, the measure of actions "
        "raised TypeError at checks.py:LINE (it reads decisions, actions of a row); "
        "write the row by hand"
    )
    assert approved_fault(classify.spec, {"label": "billing", "evidence": "x"}) is None


def test_two_answers_with_nothing_in_them_can_be_compared() -> None:
    """Null is right where null is: a measure is not vacuous because an empty answer passes."""
    step = tell(same_fields("number"))
    nothing = {"story": "a", "number": None}
    assert agreement(step, {"story": "b", "number": None}, nothing) is True
    assert agreement(step, {"story": "b", "number": 3}, nothing) is False
    assert agreement(tell(mentions("story")), {"story": "b"}, nothing) is None


# ---- the commands -------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    """A project with a step of its own, whose answers wait for a person."""
    standin.answer(json.dumps({"story": "A kettle has no lid."}))
    root = make_project(tmp_path / "project", model("small", standin.url), rules=RULES)
    for folder in ("flows", "tasks", "prompts"):
        for path in (root / folder).iterdir():
            if path.name != "__init__.py":
                path.unlink()
    (root / "tasks" / "tell.py").write_text(TASK)
    (root / "prompts" / "tell.md.j2").write_text(PROMPT)
    (root / "golden").mkdir()
    write(root, SOUND)
    return root


def write(root: Path, rows: list[dict[str, Any]], name: str = "tell") -> None:
    lines = [json.dumps(row) + "\n" for row in rows]
    (root / "golden" / f"{name}.jsonl").write_text("".join(lines))


def vacuous(root: Path) -> str:
    """Make the third row one that every answer passes; return what is said of it."""
    rows = [dict(row) for row in SOUND]
    rows[2] = {"id": "2", "text": TEXTS[2], "expected": {"story": "A kettle."}}
    write(root, rows)
    return f"golden/tell.jsonl:3: {VACUOUS}"


def typed(root: Path, *arguments: object) -> Done:
    return OwnProcess()(*arguments, cwd=root)


def test_certify_refuses_a_row_that_every_answer_passes(
    project: Path, standin: Standin
) -> None:
    """Before the first call, and whether or not a smaller sample would have drawn the row."""
    says = vacuous(project)
    done = typed(project, "certify", "tell", "--yes", "--limit", "1")
    assert (done.code, standin.count) == (2, 0)
    assert done.err == f"tierwise: {project}/{says}\n"


def test_check_finds_a_row_that_every_answer_passes_and_counts_its_like(
    project: Path,
) -> None:
    says = vacuous(project)
    done = typed(project, "check")
    assert done.code == 1
    assert says.replace(": every", ": error: every") in done.out
    rows = [{**row, "must_mention": []} for row in SOUND]
    write(project, rows)
    done = typed(project, "check", "--json")
    found = [f for f in json.loads(done.out)["findings"] if f["kind"] == "golden row"]
    assert [(f["line"], f["message"][-22:]) for f in found] == [
        (1, "(and 5 more rows like it)"[-22:])
    ]


def test_golden_add_leaves_out_what_every_answer_would_pass(project: Path) -> None:
    """Few-shot examples are shown and not measured on: there, the same answer is welcome."""
    with Engine(Project(project), env={}) as engine:
        run = engine.start_run("tell-it")
        step = tell(mentions("story"))
        document = Document(id="a.txt", text="A kettle.", sensitivity="internal")
        engine.ledger.retention.keep([document])
        engine.run_batch(run, step, Batch((document,)), {})
        engine.finish_run(run, "completed")
    before = (project / "golden" / "tell.jsonl").read_text()
    typed(project, "review", "latest", "a.txt", "--approve")
    done = typed(project, "golden", "add")
    assert (done.code, done.out) == (0, "nothing was added\n")
    assert (
        done.err
        == f"left out a.txt: {VACUOUS.replace('has story', 'has story, number')}\n"
    )
    assert (project / "golden" / "tell.jsonl").read_text() == before
    done = typed(project, "golden", "add", "--to", "examples")
    assert done.out == "1 added to golden/tell-examples.jsonl\n"


def test_label_refuses_samples_of_a_step_whose_certificates_prove_nothing(
    project: Path,
) -> None:
    with Engine(Project(project), env={}) as engine:
        run = engine.start_run("tell-it")
        engine._portal.call(engine.ledger.samples.record, [_sample(run.id)])
        engine.finish_run(run, "completed")
    says = vacuous(project)
    item = _sample(run.id).item
    done = typed(project, "label", item, "--right", "accepted")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"tierwise: {project}/{says}\n"
    write(project, SOUND)
    assert typed(project, "label", item, "--right", "accepted").code == 0


def _sample(run_id: str) -> Audit:
    return Audit(
        id=f"{item_id(run_id, 'tell', 'hash')}.accepted",
        run_id=run_id,
        document_id="a.txt",
        document_hash="hash",
        step="tell",
        model="small",
        identity="i",
        value={"story": "x"},
        accepted_model="small",
        accepted={"story": "x"},
        agreed=None,
        recorded_at=1.0,
    )


def test_train_refuses_rows_without_a_label_and_a_vacuous_golden_set(
    project: Path,
) -> None:
    task = TASK.replace("story", "topic")
    task = task.replace('("tell", ', '("tell", choices={"topic": "topics"}, ')
    (project / "tasks" / "tell.py").write_text(task)
    (project / "golden" / "tell.yaml").write_text("parameters: {topics: [a, b]}\n")
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(
        catalog.read_text()
        + "  tell-learned: {tier: local, learned: tell, context_tokens: 100000, "
        "max_output_tokens: 64, strength: 5, "
        "price: {input: 0, output: 0, source: here, date: 2026-11-01}}\n"
    )
    rows = [
        {"id": f"{n}", "text": f"Example {n} of {'ab'[n % 2]}.", "topic": "ab"[n % 2]}
        for n in range(24)
    ]
    rows[4] = {"id": "4", "text": "Example", "topik": "a"}
    write(project, rows, "tell-examples")
    done = typed(project, "train", "tell")
    assert done.code == 2
    assert done.err == (
        f"tierwise: {project}/golden/tell-examples.jsonl:5: "
        "the right answer has no 'topic' (it has topik); write it into the row\n"
    )
    write(project, [row for row in rows if row["id"] != "4"], "tell-examples")
    golden = [{"id": row["id"], "text": row["text"], "topic": "a"} for row in SOUND]
    write(project, golden)
    done = typed(project, "train", "tell")
    assert done.code == 2
    says = VACUOUS.replace("has story", "has topic") + " (and 5 more rows like it)"
    assert done.err == f"tierwise: {project}/golden/tell.jsonl:1: {says}\n"
    golden = [{**row, "must_mention": ["a"]} for row in golden]
    write(project, golden)
    done = typed(project, "train", "tell")
    assert done.code == 0, done.err
