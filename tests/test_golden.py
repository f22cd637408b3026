"""Golden sets: what may stand in them, and what is said where it may not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from flows.contract_intake import ContractTerms
from flows.support_inbox import TOPICS
from tasks.classify import classify
from tasks.extract import extract
from tests.kit.golden_sets import RULES, certify, golden_rows, lazy, write_golden
from tests.kit.projects import ROOT, make_project, model
from tests.kit.standin import Request, Standin
from tests.kit.terminal import Terminal
from tierwise.errors import ConfigError
from tierwise.evidence.certify import load_golden_step
from tierwise.project import Project
from tierwise.steps.examples import load_golden
from tierwise.steps.golden_settings import load_settings


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    standin.answer(lazy)
    root = make_project(tmp_path / "project", model("cheap", standin.url), rules=RULES)
    write_golden(root, golden_rows())
    return root


def test_a_golden_set_may_be_a_csv_file(terminal: Terminal, project: Path) -> None:
    """Its parameters stand beside it, or else beside the step's own golden set."""
    lines = [f'"{row["text"]}",{row["label"]}' for row in golden_rows()]
    (project / "mine.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    [row] = certify(terminal, project, "-m", "cheap", "--golden", "mine.csv")
    assert (row["right"], row["n"]) == (30, 60)
    assert row["wrong"][0] == "mine.csv#2"


def test_a_label_that_is_not_among_the_parameters_is_an_error_with_its_place(
    terminal: Terminal, project: Path
) -> None:
    rows = golden_rows()
    rows[6]["label"] = "bililng"
    write_golden(project, rows)
    done = terminal("certify", "classify", "--yes", "-m", "cheap", cwd=project)
    assert done.code == 2
    assert (
        "classify.jsonl:7: no label named 'bililng'; did you mean 'billing'?"
        in done.err
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            "returns: flows.contract_intake:Terms",
            "returns: there is no 'flows.contract_intake:Terms'",
        ),
        ("returns: flows.contract_intake:RISKS", "is not an output model"),
        ("rubrik: [kind]", "did you mean 'rubric'?"),
    ],
)
def test_bad_settings_of_a_golden_set_are_errors_with_their_file(
    terminal: Terminal, project: Path, settings: str, says: str
) -> None:
    (project / "golden" / "classify.yaml").write_text(settings + "\n")
    done = terminal("certify", "classify", "--yes", "-m", "cheap", cwd=project)
    assert done.code == 2
    assert "classify.yaml" in done.err
    assert says in done.err


ROW = '{"id": "a", "text": "hi", "label": "x"}'


@pytest.mark.parametrize(
    ("name", "lines", "says"),
    [
        (
            "golden.jsonl",
            ['{"id": "a", "text": "hi"}'] * 2,
            "golden.jsonl:2: the id 'a' is already on line 1",
        ),
        (
            "golden.jsonl",
            [ROW.replace('"a"', f'"{n}"') for n in range(3)],
            "3 examples are too few",
        ),
        ("golden.jsonl", [ROW, "not json"], "golden.jsonl:2"),
        ("golden.jsonl", ["[1]"], "golden.jsonl:1"),
        (
            "golden.jsonl",
            ['{"id": "a", "text": "hi", "expected": "x"}'],
            "golden.jsonl:1: `expected` must be an object",
        ),
        ("golden.jsonl", ['{"text": "no id"}'], "golden.jsonl:1"),
        ("golden.jsonl", ['{"id": "a", "text": "  "}'], "golden.jsonl:1"),
        (
            "golden.csv",
            ["text,label", "hi,x", "hi"],
            "golden.csv:3: has 1 cells where the header has 2",
        ),
        (
            "golden.csv",
            ["words,label", "hi,x"],
            "golden.csv:2: not an example with id and text",
        ),
        ("golden.csv", ["text,label", '"hi,x'], "golden.csv"),
    ],
)
def test_a_bad_golden_set_is_an_error_with_its_place(
    tmp_path: Path, name: str, lines: list[str], says: str
) -> None:
    path = tmp_path / name
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load_golden(path)
    assert says in str(caught.value)


def test_the_shipped_golden_sets_are_for_what_the_flows_do() -> None:
    """A certificate holds for one schema and one set of parameters: these have to be the flows'."""
    topics = load_settings(ROOT / "golden" / "classify.yaml").parameters
    assert classify.spec.hash(topics) == classify.spec.hash(
        {"labels": list(TOPICS), "descriptions": TOPICS}
    )
    terms = replace(extract.spec, returns=ContractTerms)
    found = load_golden_step(Project(ROOT), "extract")
    assert found.step.hash(found.parameters) == terms.hash(
        {"fields": ContractTerms.questions()}
    )


def test_the_shipped_contracts_can_be_certified_on(
    terminal: Terminal, tmp_path: Path, standin: Standin
) -> None:
    """What is expected is right, as the flow's output model has it; twelve examples prove little, and it says so."""
    root = make_project(
        tmp_path / "project",
        model("cheap", standin.url),
        rules=RULES.replace("classify", "extract"),
    )
    shutil.copytree(ROOT / "golden", root / "golden")
    answers = {
        e.text: e.expected
        for e in load_golden_step(Project(root), "extract").golden.examples
    }

    def copied(request: Request) -> str:
        expected = {
            name: ways[0] if isinstance(ways, list) else ways
            for name, ways in answers[request.document].items()
        }
        return json.dumps(
            {name: {"quote": value, "value": value} for name, value in expected.items()}
        )

    standin.answer(copied)
    [row] = certify(terminal, root, "-m", "cheap", step="extract")
    assert (row["right"], row["n"], row["capable"]) == (12, 12, False)
    assert "0.9 needs about" in row["says"]
