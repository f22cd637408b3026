"""A project that is none of tierwise's own, by the public interface alone: an expense report.

Receipts are sorted, then read; the second prompt has the kind that the first step found. The
project has its own model on its own server, its own check and its own measure.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.kit.standin import Request, Standin

Tierwise = Callable[..., str]
SHOPS = {
    "meal": ("Kedai Makan Sri", "nasi lemak"),
    "travel": ("Tanjung Taxi", "fare to the airport"),
    "office": ("Mr Paper", "printer paper A4"),
}
CATALOG = """\
version: 1
tiers:
  local: {description: our own server, stays_in_house: true}
models:
  ours:
    tier: local
    litellm_params: {model: openai/our-model, api_base: "${OUR_SERVER}", api_key: none}
    context_tokens: 8000
    max_output_tokens: 500
    structured_output: grammar
    strength: 50
    timeout_s: 20
    price: {input: 1, output: 2, source: our own machine, date: 2026-11-01}
"""
RULES = """\
version: 1
guards:
  - {name: at-home, when: {sensitivity_min: public}, allow_tiers: [local]}
floors: {kind: 0.8, expense: 0.8}
routes:
  - {name: proven, pick: cheapest_capable, otherwise: defer}
escalate: {on: [schema, label, total], most: 1}
"""
KIND = '''\
"""kind: the kind of an expense."""

from pydantic import BaseModel

from tierwise import step
from tierwise.steps.checks import label_is_allowed
from tierwise.steps.correctness import same


class Kind(BaseModel):
    """The kind of an expense."""

    label: str


kind = step(
    "kind",
    returns=Kind,
    choices={"label": "labels"},
    checks=[label_is_allowed],
    correct=same("label"),
)
'''
EXPENSE = '''\
"""expense: the shop and the total of a receipt."""

from decimal import Decimal, InvalidOperation

from pydantic import BaseModel

from tierwise import Document, check, step


class Expense(BaseModel):
    """The shop, and the total in the receipt's currency."""

    shop: str
    total: str


@check("total")
def total_is_printed(output: Expense, document: Document) -> str | None:
    """Require that the total is printed on the receipt."""
    if output.total in document.text:
        return None
    return f"{output.total} is not printed on the receipt"


def same_expense(output, expected) -> bool:
    """Compare the shop as a word, the total as a number."""
    try:
        same_total = Decimal(output["total"]) == Decimal(expected["total"])
    except InvalidOperation:
        return False
    return same_total and output["shop"].casefold() == expected["shop"].casefold()


expense = step(
    "expense", returns=Expense, checks=[total_is_printed], correct=same_expense
)
'''
FLOW = '''\
"""Read a folder of receipts into an expense report."""

from pathlib import Path

from prefect import flow

from tasks.expense import expense
from tasks.kind import kind
from tierwise import RunSummary, read_documents, recorded_run, write_documents


@flow(name="expenses")
def expenses(source: Path = Path("receipts"), budget_usd: float = 1.0) -> RunSummary:
    """Read a folder of receipts into an expense report."""
    with recorded_run(budget_usd=budget_usd) as run:
        receipts = read_documents(source, sensitivity="confidential")
        kinds = kind.map(receipts, labels=["meal", "travel", "office"])
        write_documents(expense.map(kinds), Path("out"))
    return run.summary()
'''
KIND_PROMPT = """\
---
step: kind
version: 1
max_output_tokens: 40
---
{% block system %}
Say what kind of expense a receipt is: {{ labels | join(", ") }}.
{% endblock %}
{% block user %}
{{ document }}
{% endblock %}
"""
EXPENSE_PROMPT = """\
---
step: expense
version: 1
max_output_tokens: 80
---
{% block system %}
Read the shop and the total of a receipt.
{% endblock %}
{% block user %}
The receipt is for: {{ outcomes.kind.label }}

{{ document }}
{% endblock %}
"""


def receipt(number: int, kind: str) -> str:
    shop, goods = SHOPS[kind]
    return f"{shop}\nReceipt {number:03}\n1 x {goods}\nTOTAL RM {total(number)}\n"


def total(number: int) -> str:
    return f"{10 + number}.50"


def read_receipt(request: Request) -> str:
    """Answer as a model that can read would."""
    shop = request.document.splitlines()[0]
    kind = next(kind for kind, (name, _) in SHOPS.items() if name == shop)
    if "label" in json.dumps(request.schema):
        return json.dumps({"label": kind})
    printed = re.findall(r"RM (\S+)", request.document)[0]
    # It needs the kind that the first step found: that is what is certified, too.
    known = f"The receipt is for: {kind}" in request.prompt
    return json.dumps({"shop": shop if known else "unknown", "total": printed})


@pytest.fixture
def server() -> Iterator[Standin]:
    with Standin() as standin:
        standin.answer(read_receipt)
        yield standin


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project's files, as a user would write them."""
    kinds = list(SHOPS)
    files = {
        "routing_rules/catalog.yaml": CATALOG,
        "routing_rules/rules.yaml": RULES,
        "tasks/__init__.py": "",
        "tasks/kind.py": KIND,
        "tasks/expense.py": EXPENSE,
        "flows/__init__.py": "",
        "flows/expenses.py": FLOW,
        "prompts/kind.md.j2": KIND_PROMPT,
        "prompts/expense.md.j2": EXPENSE_PROMPT,
        "golden/kind.yaml": "parameters: {labels: [meal, travel, office]}\n",
    }
    labels = []
    expenses = []
    for number in range(30):
        kind = kinds[number % 3]
        row = {"id": f"r{number}", "text": receipt(number, kind)}
        labels.append({**row, "label": kind})
        expected = {"shop": SHOPS[kind][0], "total": f"{total(number)}0"}
        outcomes = {"kind": {"label": kind}}
        expenses.append({**row, "expected": expected, "outcomes": outcomes})
    for name, rows in (("kind", labels), ("expense", expenses)):
        lines = [json.dumps(row) + "\n" for row in rows]
        files[f"golden/{name}.jsonl"] = "".join(lines)
    for number in range(100, 106):
        name = f"receipts/{number}.txt"
        files[name] = receipt(number, kinds[number % 3])
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def tierwise(project: Path, server: Standin, prefect_server: str) -> Tierwise:
    """Run a command in the project, in a process of its own, and return what it prints."""
    return partial(run_command, project, server, prefect_server)


def run_command(
    root: Path, server: Standin, prefect_server: str, *arguments: str
) -> str:
    variables = {
        "OUR_SERVER": f"{server.url}/v1",
        "NO_COLOR": "1",
        "PREFECT_API_URL": prefect_server,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tierwise", *arguments],
        cwd=root,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def report(root: Path) -> dict[str, object]:
    """Return the accepted totals by receipt."""
    lines = (root / "out" / "outcomes.jsonl").read_text().splitlines()
    totals = {}
    for line in lines:
        row = json.loads(line)
        value = row["outcomes"].get("expense", {}).get("value")
        totals[row["id"]] = value and value["total"]
    return totals


def test_an_expense_report_is_certified_run_retried_and_explained(
    prefect_server: str, project: Path, server: Standin, tierwise: Tierwise
) -> None:
    checked = tierwise("check")
    assert "no errors" in checked
    for step in ("kind", "expense"):
        [row] = json.loads(tierwise("certify", step, "--yes", "--json"))
        assert (row["right"], row["n"]) == (30, 30)
    assert "is void" not in tierwise("check")

    # One total is read wrongly, so the project's own check refuses it.
    def misread(request: Request) -> str:
        answer = json.loads(read_receipt(request))
        if "Receipt 103" in request.document and "total" in answer:
            answer["total"] = "1000.00"
        return json.dumps(answer)

    server.answer(misread)
    tierwise("run", "expenses")
    expected = {f"{n}.txt": total(n) for n in range(100, 106)}
    assert report(project) == {**expected, "103.txt": None}
    explained = tierwise("explain", "103.txt", "expense")
    assert "1000.00 is not printed on the receipt" in " ".join(explained.split())
    assert "0 errors in 30" in " ".join(explained.split())

    # The model is mended; the retry asks for nothing that was paid and accepted.
    server.answer(read_receipt)
    before = server.count
    tierwise("retry", "--fresh")
    assert server.count - before <= 2
    assert report(project) == expected

    # A change of the first step voids both certificates, so nothing is shown capable any more.
    prompt = project / "prompts" / "kind.md.j2"
    prompt.write_text(prompt.read_text().replace("Say what", "Tell what"))
    void = [line for line in tierwise("check").splitlines() if " is void: " in line]
    assert len(void) == 2
