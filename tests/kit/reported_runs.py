"""Runs on record, and the report page as a parser sees it."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any

from tests.kit.ledgers import DOCUMENT, RUN, attempt, run
from tierwise.ledger import Ledger
from tierwise.policy.certificates import Certificate
from tierwise.records import Outcome, Route, Usage, text_hash
from tierwise.report.figures import CertificateState

TODAY = datetime.date(2026, 11, 22)


CENT = Decimal("0.01")


SMALL = {"model": "small", "tier": "local", "usage": Usage(1000, 100), "cost": CENT}


LARGE = {
    "model": "large",
    "tier": "proprietary",
    "usage": Usage(1000, 100),
    "cost": 10 * CENT,
}


CHAIN = Route(step="classify", rule="r", models=("small", "large"))


def record(
    ledger: Ledger,
    document_id: str,
    *attempts: Any,
    run_id: str = RUN.id,
    **outcome: Any,
) -> None:
    """A document's attempts with their verdicts, then its outcome, of the step classify unless said otherwise."""

    async def story() -> None:
        for number, changes in enumerate(attempts):
            # A call of its own, unless the test says which one.
            own = {"call_hash": text_hash(f"{run_id} {document_id} {number}")}
            made = attempt(document_id=document_id, **own | changes)
            await ledger.settle(run_id, replace(made, verdicts=()), None)
            await ledger.record_verdicts(run_id, made.id, made.verdicts)
        usual = {
            "status": "accepted",
            "model": "small",
            "value": "?",
            "sensitivity": "internal",
            "route": CHAIN,
        }
        made = Outcome(**{"step": "classify", **usual} | outcome)
        await ledger.record_outcome(run_id, replace(DOCUMENT, id=document_id), made)

    run(story())


def proof(
    *models: str, errors: int, void: str | None = None, golden: str = "g" * 64
) -> CertificateState:
    """A certificate of 100 labels."""
    made = Certificate(
        step="classify",
        models=models,
        identities=dict.fromkeys(models, "i"),
        prompt="classify v1",
        prompt_hash="p",
        step_hash="s",
        golden="classify.jsonl",
        golden_hash=golden,
        n=100,
        errors=errors,
        bound=0.5,
        date=datetime.date(2026, 11, 1),
        tierwise_version="0.1.0",
    )
    return CertificateState(made, void)


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and the text of scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            self.scripts.append(data)

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])
