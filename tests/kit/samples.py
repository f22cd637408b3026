"""A project with shadows and labels."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from tasks.classify import classify
from tests.kit.golden_sets import DEAR, lazy, right
from tests.kit.projects import make_project, model
from tests.kit.standin import Standin
from tests.kit.steps import LABELS
from tierwise.cascade import RunContext
from tierwise.engine import Engine
from tierwise.ledger import Ledger
from tierwise.policy.certificates import Certificate, lower_bound, save_certificates
from tierwise.project import CERTIFICATES, Project
from tierwise.records import Batch, Document, Outcome

CLASSIFY = classify.spec


FREE = "{input: 0, output: 0, source: test, date: 2026-11-01}"


# Documents of which `cheap` gets every other one wrong. Half of them are labelled, drawn by the
# run's id: with 60, one test in a hundred had too few wrong ones to show it.
ENOUGH = 120


RULES = """
version: 1
guards:
  - {{name: confidential-stays-local, when: {{sensitivity_min: confidential}}, allow_tiers: [local]}}
floors: {{classify: 0.9}}
routes:
  - {{name: named, try: [dear]}}
shadow: {{share: {share}, money: {money}}}
"""


class Office:
    """A project with a model in use, `dear`, and a cheaper one, `cheap`, each on a socket of its own."""

    def __init__(self, root: Path, cheap: Standin, dear: Standin) -> None:
        self.root, self.cheap, self.dear = root, cheap, dear

    def made(
        self,
        *,
        share: float = 1,
        money: float = 1,
        cheap: str = "local",
        price: str = FREE,
    ) -> Office:
        make_project(
            self.root,
            model("cheap", self.cheap.url, tier=cheap, strength=10, price=price),
            model("dear", self.dear.url, strength=20, price=DEAR),
            rules=RULES.format(share=share, money=money),
        )
        return self

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        with Engine(Project(self.root), env={}) as engine:
            yield engine

    def run(
        self, documents: tuple[Document, ...], budget: str | None = None
    ) -> tuple[RunContext, list[Outcome]]:
        with self.engine() as engine:
            context = engine.start_run(
                "test", budget_usd=None if budget is None else Decimal(budget)
            )
            done = engine.run_batch(context, CLASSIFY, Batch(documents), LABELS)
            return context, [document.outcomes["classify"] for document in done.load()]

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        with Ledger.open(root=self.root) as ledger:
            yield ledger


@contextmanager
def opened(root: Path) -> Iterator[Office]:
    """`cheap` says billing of every message, `dear` reads them."""
    with Standin() as cheap, Standin() as dear:
        cheap.answer(lazy)
        dear.answer(right)
        yield Office(root, cheap, dear)


def documents(count: int, **features: object) -> tuple[Document, ...]:
    """Every other one is about a parcel, which `cheap` gets wrong."""
    words = ("my invoice is wrong", "my parcel is late")
    usual = {"sensitivity": "internal", **features}
    return tuple(
        Document(id=f"d{n:03}", text=f"Message {n}: {words[n % 2]}.", **usual)
        for n in range(count)
    )


def certify(office: Office, *models: str, n: int = 60) -> None:
    """Write down that this chain was right on all of a golden set, yesterday."""
    with office.engine() as engine:
        current = engine.current(CLASSIFY, LABELS)
        certificate = Certificate(
            step="classify",
            **current.evidence(models, "classify.jsonl"),
            prompt="classify v1",
            golden_hash="g",
            n=n,
            errors=0,
            bound=lower_bound(0, n),
            mean_cost=Decimal(0) if models == ("cheap",) else Decimal(1),
            date=datetime.date.today() - datetime.timedelta(days=1),
            tierwise_version="test",
        )
    save_certificates(office.root / CERTIFICATES, [certificate])


def proven(office: Office) -> Office:
    """Both models are certified, and the router may pick."""
    office.made()
    rules = office.root / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text().replace("try: [dear]", "pick: cheapest_capable"))
    certify(office, "cheap")
    certify(office, "dear")
    return office


def label_all(office: Office) -> None:
    """A person who knows: parcels are deliveries."""
    with office.ledger() as ledger:
        for item in ledger.samples.queue():
            number = int(item.accepted.document_id[1:])
            good = item.accepted.value["label"] == (
                "delivery" if number % 2 else "billing"
            )
            ledger.samples.label(item.id, "accepted" if good else "neither", "ann")
