"""Read a folder of receipts: their facts, one report a company, and what breaks the rules for expenses."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.category import category
from tasks.policy import policy
from tasks.receipt import receipt
from tasks.spending import spending
from tierwise import (
    Document,
    RunSummary,
    Sensitivity,
    group_by,
    join,
    read_documents,
    recorded_run,
    task_runner,
    write_documents,
)

CATEGORIES = {
    "meal": "food or drink: a restaurant, a café, a bar",
    "travel": "a taxi, a train, a flight, fuel or parking",
    "lodging": "a night in a hotel or a flat",
    "office": "paper, pens, lamps, cables, furniture or software for work",
    "other": "anything else, such as a doctor",
}
# The most that one receipt of a category may cost, in the home currency.
LIMITS = {"meal": 60.0, "travel": 80.0, "lodging": 150.0, "office": 120.0}


def company_of(document: Document) -> str | None:
    """Return a company's name in one spelling; None for a receipt that names no company."""
    facts = receipt.of(document)
    if facts is None or not facts.company:
        return None
    return " ".join(re.findall(r"\w+", facts.company)).title()


def statement(receipts: Sequence[Document]) -> str:
    """Return a company's receipts as a list: one line of JSON each, so that no value forges another."""
    lines = []
    for document in receipts:
        kind = category.of(document)
        line = {
            "receipt": document.id,
            "category": kind.label if kind else None,
            **document.value("receipt"),
        }
        lines.append(json.dumps(line, ensure_ascii=False))
    return "\n".join(lines)


@flow(name="expense-report", task_runner=task_runner())
def expense_report(
    source: Path = Path("examples/receipts"),
    sensitivity: Sensitivity = "internal",
    budget_usd: Annotated[float, Field(ge=0, le=10_000)] = 1.0,
    out: Path = Path("out/expenses"),
    only_new: bool = False,
    currency: str = "EUR",
    within: timedelta | None = None,
    detach: bool = False,
) -> RunSummary:
    """Read a folder of receipts: their facts, one report a company, and what breaks the rules for expenses.

    Args:
        source: a folder or file of receipts.
        sensitivity: of receipts that do not say it themselves; they can only say a higher one.
        budget_usd: no call is made that could spend more than this in all.
        out: folder for the reports, one file a company and one line each; the receipts are in its folder receipts.
        only_new: do nothing unless a receipt is new; then all are read, and what was paid is reused.
        currency: the home currency, in which the limits are; receipts in another one are findings.
        within: the time until the results are needed, such as 6h (PT6H in Prefect); it allows provider batches.
        detach: end once all calls are in provider batches; the next start of the flow, or `tierwise resume`, continues.
    """
    with recorded_run(budget_usd=budget_usd, within=within, detach=detach) as run:
        receipts = read_documents(source, sensitivity=sensitivity, only_new=only_new)
        facts = receipt.map(receipts)
        kinds = category.map(receipts, labels=list(CATEGORIES), descriptions=CATEGORIES)
        read = join(facts, kinds)
        # A receipt that waits for a person keeps no company's report from being written.
        companies = group_by(read, company_of, text=statement, incomplete="leave_out")
        checked = policy.map(companies, limits=LIMITS, currency=currency)
        reports = spending.map(checked, max_words=75)
        write_documents(reports, out)
        write_documents(read, out / "receipts")
    return run.summary()
