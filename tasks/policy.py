"""policy: the receipts of one company held against the rules for expenses, in Python.

No model is asked. Its documents are groups: each member has what `receipt` and `category` found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from pydantic import BaseModel

from tierwise import Document, Member, function_step

_NUMBER = re.compile(r"\d[\d.,\s\N{NO-BREAK SPACE}']*")
_CENTS = re.compile(r"[.,](\d{2})$")


class Finding(BaseModel):
    """What is wrong with one receipt."""

    receipt: str
    finding: str


class Policy(BaseModel):
    """The sums of a company's receipts by currency, and what a person has to look at."""

    totals: dict[str, str]
    findings: list[Finding]


@function_step("policy", returns=Policy)
def policy(document: Document, *, limits: Mapping[str, float], currency: str) -> Policy:
    """Add up the receipts of a group, and find those that the rules do not allow.

    `limits` are the most that one receipt of a category may cost, in `currency`.
    """
    findings: list[Finding] = []
    totals: dict[str, Decimal] = {}
    for receipt in document.members:
        amount = amount_of(receipt)
        if amount is not None:
            name = currency_of(receipt) or "unknown currency"
            totals[name] = totals.get(name, Decimal(0)) + amount
        faults = _faults(receipt, limits, currency)
        findings += [Finding(receipt=receipt.id, finding=fault) for fault in faults]
    findings += [
        Finding(receipt=receipt, finding=f"same as {first}")
        for receipt, first in _twice(document.members)
    ]
    sums = {name: f"{total:.2f}" for name, total in sorted(totals.items())}
    return Policy(totals=sums, findings=findings)


def _faults(
    receipt: Member, limits: Mapping[str, float], currency: str
) -> Iterator[str]:
    """Yield what is wrong with a receipt by itself."""
    amount = amount_of(receipt)
    paid_in = currency_of(receipt)
    if amount is None:
        yield "no total"
        return
    if not field_of(receipt, "date"):
        yield "no date"
    if paid_in != currency:
        yield f"paid in {paid_in or 'an unknown currency'}: convert it"
        return
    category = category_of(receipt)
    limit = limits.get(category)
    if limit is None:
        yield f"no rule for the category {category or 'unknown'}"
    elif amount > Decimal(str(limit)):
        yield f"{amount:.2f} is above the limit of {limit:.2f} for {category}"


def _twice(receipts: Sequence[Member]) -> Iterator[tuple[str, str]]:
    """Yield each receipt that an earlier one equals, in number, date and total, with that one."""
    first: dict[tuple[object, ...], str] = {}
    for receipt in receipts:
        names = ("number", "date", "total")
        key = tuple(field_of(receipt, name) for name in names)
        if not all(key):
            continue
        if key in first:
            yield receipt.id, first[key]
        first.setdefault(key, receipt.id)


def field_of(receipt: Member, name: str) -> str:
    """Return the value of an extracted field; empty where the receipt does not say it."""
    found = receipt.values.get("receipt") or {}
    return str(found.get(name) or "").strip()


def category_of(receipt: Member) -> str:
    """Return the label of a receipt; empty where it has none."""
    found = receipt.values.get("category") or {}
    return str(found.get("label") or "")


def amount_of(receipt: Member) -> Decimal | None:
    """Return the total as a number: the last two digits behind a point or comma are cents."""
    match = _NUMBER.search(field_of(receipt, "total"))
    if match is None:
        return None
    text = match[0].strip()
    cents = _CENTS.search(text)
    whole = text[: cents.start()] if cents else text
    digits = re.sub(r"\D", "", whole) or "0"
    return Decimal(f"{digits}.{cents[1] if cents else '00'}")


def currency_of(receipt: Member) -> str:
    """Return the currency as its code of three letters; empty where it is unknown."""
    text = f"{field_of(receipt, 'currency')} {field_of(receipt, 'total')}".upper()
    for sign, code in (("€", "EUR"), ("£", "GBP"), ("$", "USD")):
        text = text.replace(sign, f" {code} ")
    codes = re.findall(r"\b[A-Z]{3}\b", text)
    return codes[0] if codes else ""
