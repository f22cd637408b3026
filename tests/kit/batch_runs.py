"""Runs of two steps whose models have provider batches, at the stand-in of batch APIs."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

from tests.kit.batch_standin import BatchStandin, StandinPrice
from tests.kit.clock import FastClock
from tests.kit.projects import PRICE as CATALOG_PRICE
from tests.kit.projects import make_project, model
from tests.kit.standin import Request
from tests.kit.steps import CLASSIFY, LABELS, SUMMARIZE
from tierwise.cascade import RunContext
from tierwise.engine import Engine
from tierwise.project import Project
from tierwise.records import Batch, Document, Sensitivity

BATCH = "    batch: {{api: openai, discount: 0.5{more}}}\n"
SPEED = 60.0  # of the clock of all waits: a poll each 5 s takes moments
PRICE = StandinPrice(input=1, output=2)
ONE_ROUTE = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
  - {name: restricted-stays-online, when: {sensitivity_min: restricted}, allow_transports: [online]}
routes:
  - {name: default, try: [small, large]}
"""


def batch_project(
    root: Path,
    url: str,
    *,
    more: str = "",
    tier: str = "clarifai",
    rules: str = ONE_ROUTE,
    ledger: str | None = None,
    price: str = CATALOG_PRICE,
) -> Path:
    """A project with a small and a large model, both with batches; `more` are settings of them."""
    batch = BATCH.format(more=more)
    root.mkdir(parents=True, exist_ok=True)
    make_project(
        root,
        model("small", url, tier=tier, price=price) + batch,
        model("large", url, tier=tier, strength=20, price=price) + batch,
        model("house", url, tier="local", strength=5),
        rules=rules,
    )
    settings = '[tool.tierwise]\nbatch_linger = "12 s"\n'  # by a clock that is fast
    if ledger is not None:
        settings += f'ledger_url = "{ledger}"\n'
    (root / "pyproject.toml").write_text(settings)
    return root


def priced(standin: BatchStandin) -> BatchStandin:
    """The stand-in with the catalog's prices and an answer for each step."""
    for name in ("small", "large", "house"):
        standin.prices[name] = PRICE
    standin.answer(answer)
    return standin


def answer(request: Request) -> str:
    """A good answer: it depends on the document alone."""
    words = request.document.split()
    properties = (request.schema or {}).get("properties") or {}
    if "label" in properties:
        label = "billing" if len(request.document) % 2 else "delivery"
        return json.dumps({"evidence": " ".join(words[:3]), "label": label})
    return json.dumps({"summary": " ".join(words[:5])})


def letters(
    number: int, sensitivity: Sensitivity = "internal", name: str = "letter"
) -> tuple[Document, ...]:
    """Letters, no two the same."""
    return tuple(
        Document(
            id=f"{name}-{place}",
            text=f"The desk number {place} of {name} has not arrived, and nobody answers.",
            sensitivity=sensitivity,
        )
        for place in range(number)
    )


def opened(root: Path, *, clock: FastClock | None = None) -> Engine:
    """The engine of a project."""
    return Engine(Project(root), clock=clock or FastClock(SPEED))


def two_steps(
    engine: Engine, run: RunContext, documents: tuple[Document, ...]
) -> tuple[Document, ...]:
    """The documents after both steps."""
    batch = engine.run_batch(run, CLASSIFY, Batch(documents), LABELS)
    batch = engine.run_batch(run, SUMMARIZE, batch, {"max_words": 40})
    return batch.load()


def micros(engine: Engine, run: str | None = None) -> Decimal:
    """What the ledger says that all runs cost, or one of them, in micro-dollars."""
    rows = engine.ledger.runs.newest(1000)
    if run is not None:
        rows = [row for row in rows if row.id == run]
    assert all(row.cost is not None for row in rows)
    return sum((row.cost_known for row in rows), Decimal(0)) * 1_000_000
