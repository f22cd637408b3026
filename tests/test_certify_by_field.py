"""Certification by field, end to end: measured through a real socket, written down, and routed by."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit.golden_sets import DEAR, certify
from tests.kit.projects import make_project, model
from tests.kit.standin import Fault, Request, Standin
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.policy.certificates import Certificates, load_certificates, lower_bound
from tierwise.project import CERTIFICATES, Project
from tierwise.records import Batch, Document, Outcome

RULES = """
version: 1
field_floors: {receipt: {company: 0.8, day: 0.8, total: 0.8}}
escalate: {on: [schema, low_confidence]}
routes:
  - {name: proven, pick: cheapest_capable}
"""
STEP = """
from pydantic import BaseModel
from tierwise import step
from tierwise.correctness import same_fields

class Receipt(BaseModel):
    company: str
    day: str
    total: str

receipt = step("receipt", returns=Receipt, by_field=True, correct=same_fields())
"""
PROMPT = """\
---
step: receipt
version: 1
max_output_tokens: 100
---
{% block system %}
Read the receipt. Answer with JSON.
{% for name, meaning in fields.items() %}
- {{ name }}: {{ meaning }}
{% endfor %}
{% endblock %}
{% block user %}
{{ document }}
{% endblock %}
"""
FIELDS = {"company": "who sold it", "day": "when", "total": "how much"}
ROWS = 60


def expected(number: int) -> dict[str, str]:
    return {
        "company": f"Shop {number}",
        "day": f"day {number}",
        "total": f"{number}.50",
    }


def number_of(request: Request) -> int:
    return int(request.document.split("No ")[1].split(".")[0])


def asked(request: Request) -> list[str]:
    schema = request.schema or {}
    return list(schema["properties"])


@dataclass
class Two:
    """A small model: right in company; right in day where it is sure; wrong in every second total."""

    small: Standin
    large: Standin

    def __post_init__(self) -> None:
        self.small.answer(self.answer_small)
        self.large.answer(self.answer_large)

    @staticmethod
    def answer_small(request: Request) -> Fault:
        number = number_of(request)
        fields = expected(number)
        is_sure = number % 4 != 0
        if not is_sure:
            fields["day"] = "yesterday"
        if number % 2:
            fields["total"] = "0.00"
        sure = {"company": 0.98, "day": 0.96 if is_sure else 0.4, "total": 0.99}
        answered = {name: fields[name] for name in asked(request)}
        return Fault(text=json.dumps(answered), probabilities=sure)

    @staticmethod
    def answer_large(request: Request) -> str:
        fields = expected(number_of(request))
        return json.dumps({name: fields[name] for name in asked(request)})


@pytest.fixture
def two() -> Iterator[Two]:
    with Standin() as small, Standin() as large:
        yield Two(small, large)


@pytest.fixture
def project(tmp_path: Path, two: Two, own_modules: None) -> Path:
    root = tmp_path / "project"
    make_project(
        root,
        model("small", two.small.url, strength=10) + "    confidence: true\n",
        model("large", two.large.url, strength=20, price=DEAR),
        rules=RULES,
    )
    for folder in ("tasks", "prompts", "flows"):
        shutil.rmtree(root / folder)
    for folder in ("tasks", "prompts", "golden"):
        (root / folder).mkdir()
    (root / "tasks" / "__init__.py").touch()
    (root / "tasks" / "receipt.py").write_text(STEP)
    (root / "prompts" / "receipt.md.j2").write_text(PROMPT)
    (root / "golden" / "receipt.yaml").write_text(
        f"parameters: {{fields: {json.dumps(FIELDS)}}}\n"
    )
    rows = [
        {
            "id": f"r{number}",
            "text": f"Receipt No {number}. Thank you.",
            "sensitivity": "internal",
            "expected": expected(number),
        }
        for number in range(ROWS)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "golden" / "receipt.jsonl").write_text(text)
    return root


def certified(terminal: Terminal, root: Path, *options: object) -> Mapping[str, Any]:
    found: Any = certify(terminal, root, *options, step="receipt")
    assert isinstance(found, dict)
    return found


def on_file(root: Path) -> Certificates:
    return load_certificates(root / CERTIFICATES)


def run_one(root: Path, number: int) -> Outcome:
    project = Project(root)
    with Engine(project, env={}) as engine:
        document = Document(
            id="a", text=f"Receipt No {number}. Good day.", sensitivity="internal"
        )
        done = engine.run_batch(
            engine.start_run("test"),
            project.load_step("receipt"),
            Batch((document,)),
            {"fields": FIELDS},
        )
    return done.load()[0].outcomes["receipt"]


def kept_by_route(root: Path) -> Mapping[str, Mapping[str, float | None]]:
    route = run_one(root, 101).route
    assert route is not None
    return route.keeps


def test_fields_are_certified_one_by_one_and_the_chain_with_them(
    terminal: Terminal, project: Path, two: Two
) -> None:
    found = certified(terminal, project)
    rows = {(row["model"], row["field"]): row for row in found["fields"]}
    assert set(rows) == {("small", name) for name in FIELDS}
    company, day, total = (rows["small", name] for name in FIELDS)
    assert (company["right"], company["kept"], company["threshold"]) == (60, 60, None)
    # a quarter is wrong, and these are the unsure ones
    assert (day["right"], day["kept"], day["threshold"]) == (45, 45, 0.5)
    assert (total["right"], total["kept"]) == (30, 60)
    assert [row["certified"] for row in (company, day, total)] == [True, True, False]

    (chain,) = found["chains"]
    keeps = {"small": {"company": None, "day": 0.5}}
    assert (chain["models"], chain["keeps"]) == (["small", "large"], keeps)
    # the total goes up every time, so no document is whole without the large model
    assert (chain["right"], chain["n"], chain["coverage"]) == (60, 60, 0)
    listed = on_file(project)
    (whole,) = listed.certificates
    assert whole.keeps == keeps
    # one claim for each field and one for the chain, and what its fields could have been
    claims = whole.alpha
    assert whole.bound == lower_bound(0, 60, alpha=claims, compared=whole.compared)
    assert whole.compared == 4 * 20 * 4
    assert {each.field for each in listed.fields} == set(FIELDS)
    assert sum(look.step == "receipt" for look in listed.looks) == 1
    spent = claims + listed.fields[0].alpha
    assert spent == pytest.approx(0.03)

    # the large model was asked for the open fields alone
    again = {tuple(asked(request)) for request in two.large.requests}
    assert again == {("total",), ("day", "total")}


def test_a_route_keeps_what_is_certified_for_as_long_as_it_is(
    terminal: Terminal, project: Path
) -> None:
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(RULES.replace(", total: 0.8", ""))
    certified(terminal, project)
    # a field without a floor is never kept
    without = run_one(project, 101)
    assert without.route is not None
    assert "total" not in without.route.keeps["small"]
    assert without.sources["total"].model == "large"

    rules.write_text(RULES.replace("total: 0.8", "total: 0.1"))
    certified(terminal, project)
    outcome = run_one(project, 101)
    assert outcome.route is not None
    assert outcome.route.keeps == {
        "small": {"company": None, "day": 0.5, "total": None}
    }
    assert {source.model for source in outcome.sources.values()} == {"small"}
    unsure = run_one(project, 100)
    assert unsure.sources["day"].model == "large"
    assert unsure.sources["company"].model == "small"
    explained = terminal("explain", "a", cwd=project)
    assert explained.code == 0, explained.err
    assert "day from 0.5 on" in explained.out

    prompt = project / "prompts" / "receipt.md.j2"
    prompt.write_text(PROMPT.replace("Read the", "Please read the"))
    changed = run_one(project, 101).route
    assert changed is not None
    assert (changed.models[0], changed.keeps) == ("large", {})


def test_the_floor_of_the_document_is_one_of_the_chain(
    terminal: Terminal, project: Path
) -> None:
    rules = project / "routing_rules" / "rules.yaml"
    easy = RULES.replace("total: 0.8", "total: 0.1")
    low = easy.replace("routes:", "floors: {receipt: 0.3}\nroutes:")
    rules.write_text(low)
    (chain,) = certified(terminal, project)["chains"]
    # the totals of small are kept though half of them are wrong
    assert chain["right"] == 30
    assert chain["bound"] < 0.3
    assert kept_by_route(project) == {}
    path = project / CERTIFICATES
    lower = low.replace("receipt: 0.3", "receipt: 0.2")
    rules.write_text(lower)
    assert kept_by_route(project) != {}
    # another threshold than the measured one: the certificate of the chain no longer counts
    text = path.read_text()
    path.write_text(text.replace("threshold: 0.5", "threshold: 0.6"))
    assert kept_by_route(project) == {}


def test_the_same_look_again_spends_nothing_and_an_earlier_proof_stays(
    terminal: Terminal, project: Path
) -> None:
    certified(terminal, project)
    before = (project / CERTIFICATES).read_text()
    certified(terminal, project)
    assert (project / CERTIFICATES).read_text() == before
    golden = project / "golden" / "receipt.jsonl"
    lines = golden.read_text().splitlines(keepends=True)
    golden.write_text("".join(lines[:20]))
    rows = {row["field"]: row for row in certified(terminal, project)["fields"]}
    assert not any(row["written"] for row in rows.values())
    listed = on_file(project)
    assert [look.number for look in listed.looks] == [1, 2]
    assert {each.items for each in listed.fields} == {60}


def test_the_table_names_each_field_and_what_is_missing(
    terminal: Terminal, project: Path
) -> None:
    done = terminal("certify", "receipt", "--yes", cwd=project)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    for name in FIELDS:
        assert any(line.split()[:2] == ["small", name] for line in lines)
    assert any(line.startswith("small, total: ") for line in lines)
    assert "company, day from 0.5 on" in done.out


@pytest.mark.parametrize(
    ("old", "new", "options"),
    [
        (", by_field=True", "", ["--by-field"]),
        ("same_fields()", "same_fields('total')", []),
        ("same_fields()", "lambda output, expected: False", []),
        ("    day: str", "    date: str", []),
    ],
)
def test_what_cannot_be_measured_by_field_is_refused_before_a_call(
    terminal: Terminal,
    project: Path,
    two: Two,
    old: str,
    new: str,
    options: list[str],
) -> None:
    step = project / "tasks" / "receipt.py"
    step.write_text(STEP.replace(old, new))
    done = terminal("certify", "receipt", "--yes", *options, cwd=project)
    assert done.code != 0
    assert "Traceback" not in done.err
    assert not two.small.requests
    assert not (project / CERTIFICATES).exists()


def test_check_finds_floors_and_certificates_of_fields_that_are_not_there(
    terminal: Terminal, project: Path
) -> None:
    certified(terminal, project)
    step = project / "tasks" / "receipt.py"
    step.write_text(STEP.replace("    day: str", "    date: str"))
    found = json.loads(terminal("check", "--json", cwd=project).out)["findings"]
    kinds = {(each["kind"], each["level"]) for each in found}
    assert ("field", "error") in kinds
    assert ("void certificate", "warning") in kinds
    step.write_text(STEP.replace(", by_field=True", ""))
    found = json.loads(terminal("check", "--json", cwd=project).out)["findings"]
    assert ("field", "error") in {(each["kind"], each["level"]) for each in found}
