"""The last screen of a run: what is free and proven, what went on and why, what waits, and the cost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.golden_sets import (
    CLASSIFY,
    DEAR,
    RULES,
    WORDS,
    certify,
    right,
    write_golden,
)
from tests.kit.projects import make_project, model
from tests.kit.standin import Fault, Request, Standin
from tests.kit.steps import LABELS
from tests.kit.terminal import Terminal
from tierwise.cli.render.last_screen import print_last_screen
from tierwise.engine import Engine
from tierwise.project import Project
from tierwise.records import Batch, Document
from tierwise.report import summarize_run

FREE = "{input: 0, output: 0, source: test, date: 2026-11-01}"
GOLDEN = 150
SURE = "my invoice is wrong, please help me"
HARD = "my parcel is late, hard to say why"
HOPELESS = "my invoice is wrong, hard to say and nobody can"


def unsure(request: Request) -> Fault:
    """A model that has no answer for what is hard, and knows it."""
    if "hard to say" in request.document:
        answer = {**json.loads(right(request)), "label": "delivery"}
        return Fault(text=json.dumps(answer), probability=0.4)
    return Fault(text=right(request), probability=0.95)


def strict(request: Request) -> str:
    """A model whose evidence for the hopeless is not in the document."""
    if "nobody can" in request.document:
        return json.dumps({"label": "billing", "evidence": "words of its own"})
    return right(request)


@pytest.fixture
def servers() -> Iterator[tuple[Standin, Standin]]:
    with Standin() as cheap, Standin() as dear:
        cheap.answer(unsure)
        dear.answer(strict)
        yield cheap, dear


@pytest.fixture
def project(
    tmp_path: Path, terminal: Terminal, servers: tuple[Standin, Standin]
) -> Path:
    """A free model that is certified for what it is sure of, and an expensive one behind it."""
    cheap, dear = servers
    root = make_project(
        tmp_path / "project",
        model("cheap", cheap.url, price=FREE) + "    confidence: true\n",
        model("dear", dear.url, strength=20, price=DEAR),
        rules=RULES,
    )
    labels = list(WORDS)
    rows = [
        {
            "id": f"g{n}",
            "text": f"Message {n}: {WORDS[labels[n % 2]]}, "
            f"{'hard to say' if n % 5 == 0 else 'please help'}.",
            "label": labels[n % 2],
        }
        for n in range(GOLDEN)
    ]
    write_golden(root, rows)
    certify(terminal, root, "-m", "cheap")
    return root


def screen(
    root: Path, texts: list[str], capsys: pytest.CaptureFixture[str]
) -> dict[str, list[str]]:
    """The lines under each heading after a run over these texts."""
    with Engine(Project(root), env={}) as engine:
        documents = tuple(
            Document(id=f"{n}.txt", text=text, sensitivity="internal")
            for n, text in enumerate(texts)
        )
        run = engine.start_run("test")
        engine.run_batch(run, CLASSIFY, Batch(documents), LABELS)
        capsys.readouterr()
        print_last_screen(summarize_run(engine.records, run.id), engine)
    sections: dict[str, list[str]] = {}
    heading = ""
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("  "):
            sections[heading].append(line.strip())
        elif line:
            heading = line
            sections[heading] = []
    return sections


def test_documents_that_a_person_decided_are_counted(
    project: Path, capsys: pytest.CaptureFixture[str], terminal: Terminal
) -> None:
    screen(project, [SURE, HOPELESS, f"{HOPELESS} Again."], capsys)
    answer = json.dumps({"label": next(iter(WORDS)), "evidence": "my invoice"})
    for words in (("1.txt", "--edit", answer), ("2.txt", "--reject")):
        done = terminal("review", "latest", *words, cwd=project)
        assert done.code == 0, done.err
    said = screen(project, [SURE, HOPELESS, f"{HOPELESS} Again."], capsys)
    [step] = [
        line
        for line in said["What happened"]
        if line.startswith("classify: 1 by cheap")
    ]
    assert step.endswith(", 1 by a reviewer, 1 rejected by a reviewer.")


def test_it_says_what_was_proven_what_went_on_and_why_what_waits_and_the_cost(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = screen(project, [SURE, HARD, HOPELESS], capsys)
    assert list(said) == [
        "What happened",
        "Why",
        "What waits",
        "What it cost",
        "Next",
    ]
    assert said["What happened"] == [
        "3 documents: 2 accepted, 1 deferred.",
        "classify: 1 by cheap (free, certified), 1 by dear, 1 deferred.",
        "classify: 1 of 2 answers are free and proven: at least 90% of such answers are right "
        "(97% sure).",
    ]
    assert said["Why"] == [
        "cheap in classify: 2 of 3 documents went to the next model (less sure than certified: 2).",
    ]
    assert said["What waits"][0] == "No allowed model answered well: 1 document."
    assert "2.txt in classify" in said["What waits"][1]
    assert re.fullmatch(
        r"5 calls; cost \d+\.\d+ USD( of a budget of .*)?\.", said["What it cost"][0]
    )
    assert re.fullmatch(
        r"Always dear, the strongest model with a known price: \d+\.\d+ USD, so \d+% were saved\.",
        said["What it cost"][1],
    )
    commands = [line.split("  ")[0] for line in said["Next"]]
    assert len(commands) == 3
    assert [command.split()[1] for command in commands] == ["show", "review", "explain"]


def test_a_run_in_which_all_went_well_says_so(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = screen(project, [SURE], capsys)
    assert said["Why"] == [
        "Each answer of the first model in its route passed all checks."
    ]
    assert said["What waits"] == ["Nothing waits for a person."]
    assert [line.split()[1] for line in said["Next"]] == ["show", "explain", "report"]


def test_a_run_that_only_reuses_answers_compares_no_costs(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was asked, so the strongest model would have cost nothing either."""
    screen(project, [SURE], capsys)
    said = screen(project, [SURE], capsys)
    [cost] = said["What it cost"]
    assert cost.startswith("0 calls, 1 paid answers reused; cost 0.000000 USD")
    some = screen(project, [SURE, HARD], capsys)["What it cost"]
    assert "for the calls that were made" in some[1]


def test_without_a_price_the_comparison_is_unknown(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown price is never counted as free."""
    catalog = project / "routing_rules" / "catalog.yaml"
    text = catalog.read_text().replace(FREE, "unknown").replace(DEAR, "unknown")
    catalog.write_text(text)
    said = screen(project, [SURE], capsys)
    assert said["What happened"][1] == "classify: 1 by cheap (certified)."
    assert "1 of 1 answers are not free and proven" in said["What happened"][2]
    assert said["What it cost"] == [
        "1 call; cost 0.000000 USD + 1 of unknown cost.",
        "Always the strongest model: unknown, as no model has a price.",
    ]
