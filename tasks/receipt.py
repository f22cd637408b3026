"""receipt: what the accounts need of a receipt, in its own words; null where it does not say it."""

from __future__ import annotations

import re

from pydantic import BaseModel

from tierwise import Document, check, step
from tierwise.steps.checks import taken_from_the_document
from tierwise.steps.correctness import same_fields

_AMOUNT = re.compile(r"\D{0,5}\d[\d .,'\N{NO-BREAK SPACE}]*\D{0,5}")


class Receipt(BaseModel):
    """What the accounts need of a receipt."""

    company: str | None
    date: str | None
    number: str | None
    total: str | None
    currency: str | None


@check("grounding")
def total_is_an_amount(output: Receipt, document: Document) -> str | None:  # noqa: ARG001
    """Require a number as total, perhaps with a currency, and a day or a year as date."""
    if output.total is not None and not _AMOUNT.fullmatch(output.total):
        return f"`total`: {output.total!r} is no amount"
    if output.date is not None and not re.search(r"\d", output.date):
        return f"`date`: {output.date!r} is no date"
    return None


receipt = step(
    "receipt",
    returns=Receipt,
    checks=[
        taken_from_the_document("company", "date", "number", "total"),
        total_is_an_amount,
    ],
    correct=same_fields(),
)
