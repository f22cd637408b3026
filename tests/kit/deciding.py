"""A reviewer and a run as processes of their own, which a test kills at any moment.

`python -m tests.kit.deciding review URL ROOT NAME` sends the decisions of `forms.json` in ROOT as a
browser would: with the version that was read, and the request of the form, again after a crash.
`python -m tests.kit.deciding run URL ROOT NAME` records outcomes until it is killed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

from tests.kit.ledgers import DOCUMENT, RUN
from tierwise.errors import DecidedMeanwhile, LedgerAway
from tierwise.ledger import Ledger
from tierwise.records import Outcome
from tierwise.review.queue import By, comment, edit, find_item, reject

FORMS = "forms.json"


def review(ledger: Ledger, root: Path, name: str) -> None:
    """Decide about each item, in an order of this person's own."""
    forms = json.loads((root / FORMS).read_text(encoding="utf-8"))
    random.Random(name).shuffle(forms)
    for document_id, seen in forms:
        item = find_item(ledger, "run-1", document_id, "classify")
        by = By(name, f"by {name}", request=f"{name} {document_id}", seen=seen)
        try:
            if name == "ada":
                edit(ledger, item, '{"label": "x"}', by=by)
            else:
                reject(ledger, item, by=by)
        except DecidedMeanwhile as error:
            # The other one was faster, and this person is told so.
            if not error.decisions or name in {e.reviewer for e in error.decisions}:
                raise
            again = replace(by, request=f"{name} saw {document_id}", note="I see")
            comment(ledger, item, by=again)


def run(ledger: Ledger, name: str) -> None:
    """Record outcomes of other documents, as fast as the ledger takes them."""
    info = replace(RUN, id=f"{name}-{uuid.uuid4().hex[:8]}", started_at=time.time())
    ledger.start_run(info)

    async def story() -> None:
        outcome = Outcome(step="classify", status="accepted", value={"label": "x"})
        for number in itertools.count():
            document = replace(DOCUMENT, id=f"{name}-{number}", text=f"{name} {number}")
            await ledger.record_outcome(info.id, document, outcome, question="q")

    asyncio.run(story())


def main() -> None:
    """Do what the arguments say, again after an outage."""
    what, url, root, name = sys.argv[1:]
    while True:
        try:
            with Ledger.open(url, root=Path(root), patience_s=30) as ledger:
                if what == "run":
                    run(ledger, name)
                else:
                    review(ledger, Path(root), name)
        except LedgerAway:
            continue
        return


if __name__ == "__main__":
    main()
