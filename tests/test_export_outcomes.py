"""`tierwise export --outcomes`: what models answered, as the table that `tierwise replay` reads."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.golden_sets import (
    DEAR,
    Servers,
    certify,
    golden_rows,
    lazy,
    lazy_and_right,
    project_of_two,
    write_golden,
)
from tests.kit.terminal import Done, Terminal
from tierwise.engine import Engine
from tierwise.evidence.replay import COLUMNS, read_outcomes
from tierwise.project import Project
from tierwise.records import Batch, Document
from tierwise.review.queue import edit, find_item

PARAMETERS = {"labels": ["billing", "delivery"], "descriptions": {}}
BOTH = """
version: 1
routes:
  - {name: both, try: [cheap, dear]}
escalate: {on: [schema, label, grounding], most: 1}
"""


@pytest.fixture
def servers() -> Iterator[Servers]:
    with lazy_and_right() as both:
        yield both


@pytest.fixture
def project(tmp_path: Path, servers: Servers) -> Path:
    return project_of_two(tmp_path / "project", servers, tier_of_dear="proprietary")


def export(
    terminal: Terminal, project: Path, *arguments: object, file: str = "outcomes.csv"
) -> Done:
    return terminal(
        "export", "--step", "classify", "--outcomes", file, *arguments, cwd=project
    )


def table(project: Path) -> list[dict[str, str]]:
    with (project / "outcomes.csv").open() as file:
        return list(csv.DictReader(file))


def run(project: Path, *texts: str) -> str:
    """A run over some documents; its id."""
    documents = [
        Document(id=f"{number}.txt", text=text, sensitivity="internal")
        for number, text in enumerate(texts)
    ]
    spec = Project(project).load_step("classify")
    with Engine(Project(project), env={}) as engine:
        context = engine.start_run("inbox")
        engine.run_batch(context, spec, Batch(tuple(documents)), PARAMETERS)
        engine.finish_run(context, "completed")
    return context.id


def test_what_certify_measured_is_replayed(terminal: Terminal, project: Path) -> None:
    """60 golden rows: one model is right on half of them, the other on all."""
    certify(terminal, project)
    done = export(terminal, project)
    assert done.code == 0, done.err
    assert "60 documents: cheap 30 right, dear 60 right" in done.out
    outcomes = read_outcomes(project / "outcomes.csv")
    assert outcomes.models == ("cheap", "dear")
    assert outcomes.tiers == ("local", "proprietary")
    assert outcomes.scores.mean(axis=0).tolist() == [0.5, 1.0]
    assert (outcomes.costs[:, 1] > 5 * outcomes.costs[:, 0]).all()
    assert (outcomes.costs > 0).all()
    assert set(outcomes.steps) == {"classify"}
    arguments = ("--fit", "outcomes.csv", "--labels", "20", "--on", "outcomes.csv")
    replayed = terminal("replay", *arguments, "--json", cwd=project)
    assert replayed.code == 0, replayed.err
    data = json.loads(replayed.out)
    assert (data["items"], data["labels"]) == (40, 20)
    assert data["models"] == ["cheap", "dear"]


def test_a_run_is_replayed(terminal: Terminal, project: Path, servers: Servers) -> None:
    """The first model fails its checks for some documents, and the second one answers those."""
    (project / "routing_rules" / "rules.yaml").write_text(BOTH)
    invented = json.dumps({"label": "delivery", "evidence": "it never came"})
    servers[0].answer(lambda r: invented if "parcel" in r.document else lazy(r))
    texts = [
        f"Message {n}: my {'parcel is late' if n % 2 else 'invoice is wrong'}."
        for n in range(10)
    ]
    run(project, *texts)
    done = export(terminal, project, "--scored-by", "checks", file="outcomes.csv.gz")
    assert done.code == 0, done.err
    assert "5 documents: cheap 0 passed the checks, dear 5 passed" in done.out
    assert "5  not answered by dear" in done.err
    path = "outcomes.csv.gz"
    assert gzip.decompress((project / path).read_bytes()).startswith(b"item,step,")
    replayed = terminal(
        "replay", "--fit", path, "--labels", 2, "--on", path, cwd=project
    )
    assert replayed.code == 0, replayed.err
    assert "3 items, learned from 2 labels" in replayed.out


def test_the_columns_are_those_of_replay_and_hold_no_text(
    terminal: Terminal, project: Path
) -> None:
    certify(terminal, project)
    export(terminal, project)
    rows = table(project)
    assert list(rows[0]) == [*COLUMNS, "scored_by"]
    assert {row["scored_by"] for row in rows} == {"right"}
    assert "invoice" not in (project / "outcomes.csv").read_text()
    assert all(int(row["prompt_tokens"]) > 50 for row in rows)


def test_a_model_that_reports_a_confidence_has_it_in_the_table(
    terminal: Terminal, project: Path
) -> None:
    catalog = project / "routing_rules" / "catalog.yaml"
    text = catalog.read_text()
    catalog.write_text(text.replace("  cheap:\n", "  cheap:\n    confidence: true\n"))
    certify(terminal, project)
    export(terminal, project)
    reported = {row["model"]: row["confidence"] for row in table(project)}
    assert reported["dear"] == ""
    assert 0 < float(reported["cheap"]) <= 1
    arguments = ("--fit", "outcomes.csv", "--labels", "30", "--on", "outcomes.csv")
    replayed = terminal("replay", *arguments, "--json", cwd=project)
    assert replayed.code == 0, replayed.err
    assert json.loads(replayed.out)["uses_confidence"] is True


def test_an_answer_that_was_reused_has_the_cost_that_it_had(
    terminal: Terminal, project: Path
) -> None:
    certify(terminal, project)
    export(terminal, project)
    before = table(project)
    certify(terminal, project)  # everything is paid by now
    export(terminal, project, "--force")
    assert sorted(map(str, table(project))) == sorted(map(str, before))


def test_a_reviewers_answer_is_the_right_one(terminal: Terminal, project: Path) -> None:
    (project / "golden" / "classify.jsonl").unlink()
    rules = BOTH.replace("try: [cheap, dear]", "try: [cheap], review: human")
    (project / "routing_rules" / "rules.yaml").write_text(rules)
    run_id = run(project, "Message 1: my parcel is late, please help.")
    with Engine(Project(project), env={}) as engine:
        item = find_item(engine.ledger, run_id, "0.txt", "classify")
        value = {"label": "delivery", "evidence": "my parcel is late"}
        edit(engine.ledger, item, json.dumps(value), by="eve")
    (project / "mail.txt").write_text("Message 1: my parcel is late, please help.")
    models = ("-m", "cheap", "-m", "dear", "--sensitivity", "internal")
    assert terminal("try", "classify", "mail.txt", *models, cwd=project).code == 0
    assert export(terminal, project).code == 0
    assert {row["model"]: row["score"] for row in table(project)} == {
        "cheap": "0",
        "dear": "1",
    }


def test_only_the_named_models_are_compared(terminal: Terminal, project: Path) -> None:
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(catalog.read_text() + "  third: {like: dear, strength: 30}\n")
    certify(terminal, project)
    run(project, "Message 1: my parcel is late, please help me soon.")
    done = export(terminal, project, "-m", "cheap", "-m", "dear", "--json")
    data: dict[str, Any] = json.loads(done.out)
    assert data["models"] == ["cheap", "dear"]
    assert data["items"] == 60
    assert list(data["left_out"].values()) == [1]


def test_answers_to_an_older_version_of_the_prompt_are_left_out(
    terminal: Terminal, project: Path
) -> None:
    certify(terminal, project)
    prompt = project / "prompts" / "classify.md.j2"
    prompt.write_text(prompt.read_text().replace("version: 1", "version: 2"))
    done = export(terminal, project)
    assert done.code == 2
    assert "no model is not enough for classify" in done.err


def test_an_unknown_cost_is_not_zero(terminal: Terminal, project: Path) -> None:
    certify(terminal, project)
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace(DEAR, "unknown"))
    done = export(terminal, project)
    assert done.code == 1
    assert "60  the cost of dear is unknown" in done.err
    assert not (project / "outcomes.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "outcomes.csv is there already"),
        (("--force", "-m", "cheap"), "cheap is not enough for classify"),
        (("--force", "-m", "cheep", "-m", "dear"), "did you mean 'cheap'?"),
        (("--force", "--reviewed"), "--reviewed is for training data"),
        (("--force", "--validation", "0.5"), "--validation is for training data"),
        (("--force", "--sensitivity-max", "public"), "--sensitivity-max is for"),
    ],
)
def test_a_mistake_is_one_line_and_the_old_file_stays(
    terminal: Terminal, project: Path, arguments: tuple[str, ...], said: str
) -> None:
    certify(terminal, project)
    (project / "outcomes.csv").write_text("mine")
    done = export(terminal, project, *arguments)
    assert done.code == 2
    assert said in done.err
    assert (project / "outcomes.csv").read_text() == "mine"


def test_without_a_right_answer_the_remedy_is_named(
    terminal: Terminal, project: Path
) -> None:
    certify(terminal, project)
    write_golden(project, [{**row, "text": row["text"] + "!"} for row in golden_rows()])
    done = export(terminal, project)
    assert done.code == 1
    assert "60  no right answer is known" in done.err
    assert "--scored-by checks" in done.err
