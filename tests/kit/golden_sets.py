"""Golden sets and certification as tests set them up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.classify import classify
from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin
from tests.kit.steps import LABELS, TEXT
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.project import Project
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
        {
            "id": f"g{n}",
            "text": f"Message {n}: {WORDS[labels[n % 2]]}, please help.",
            "label": labels[n % 2],
        }
        for n in range(count)
    ]


def write_golden(
    root: Path, rows: list[dict[str, str]], name: str = "classify"
) -> Path:
    (root / "golden").mkdir(exist_ok=True)
    path = root / "golden" / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "golden" / "classify.yaml").write_text(
        "parameters: {labels: [billing, delivery], descriptions: {}}\n"
    )
    return path


def right(request: Request) -> str:
    """A model that reads."""
    label = "billing" if "invoice" in request.document else "delivery"
    return json.dumps(
        {"label": label, "evidence": " ".join(request.document.split()[:6])}
    )


def lazy(request: Request) -> str:
    """A model that always says the same, with words of the document."""
    return json.dumps(
        {"label": "billing", "evidence": " ".join(request.document.split()[:4])}
    )


Servers = tuple[Standin, Standin]


@contextmanager
def lazy_and_right() -> Iterator[Servers]:
    """A model that always says the same, and one that reads."""
    with Standin() as cheap, Standin() as dear:
        cheap.answer(lazy)
        dear.answer(right)
        yield cheap, dear


def project_of_two(
    root: Path,
    servers: Servers,
    *,
    names: tuple[str, str] = ("cheap", "dear"),
    tier_of_dear: str = "local",
) -> Path:
    """A project that routes to the cheapest capable of these two, with 60 golden rows."""
    cheap, dear = servers
    make_project(
        root,
        model(names[0], cheap.url, strength=10),
        model(names[1], dear.url, strength=20, price=DEAR, tier=tier_of_dear),
        rules=RULES,
    )
    write_golden(root, golden_rows())
    return root


def route_one(root: Path, text: str = TEXT) -> Outcome:
    """What the router does with one document now."""
    with Engine(Project(root), env={}) as engine:
        document = Document(id="a", text=text, sensitivity="internal")
        done = engine.run_batch(
            engine.start_run("test"), CLASSIFY, Batch((document,)), LABELS
        )
    return done.load()[0].outcomes["classify"]


def certify(
    terminal: Terminal, root: Path, *options: object, step: str = "classify"
) -> list[dict[str, Any]]:
    done = terminal("certify", step, "--yes", "--json", *options, cwd=root)
    assert done.code == 0, done.err
    rows: list[dict[str, Any]] = json.loads(done.out)
    return rows
