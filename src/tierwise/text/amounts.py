"""Numbers and amounts of money as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal


def rounded(number: float) -> str:
    """Return an expected number of documents or calls, without decimals where it is whole."""
    if abs(number - round(number)) < 0.05:
        return f"{number:.0f}"
    return f"{number:.1f}"


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: "1 call", "2 calls", "1,000 calls"."""
    ending = "" if number == 1 else "s"
    return f"{number:,} {noun}{ending}"


def usd(amount: Decimal, unknown: int = 0) -> str:
    """Return an amount in USD, and the number of calls whose unknown cost is missing from it."""
    decimals = 6 if amount < 1 else 2
    text = f"{amount:.{decimals}f} USD"
    if unknown:
        text += f" + {unknown} of unknown cost"
    return text


def total(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """Return the sum of amounts; None when one of them is unknown, since unknown is not zero."""
    result = Decimal(0)
    for amount in amounts:
        if amount is None:
            return None
        result += amount
    return result


def duration(seconds: float) -> str:
    """Return a time for people: `40 s`, `12 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    if minutes < 90:
        return f"{minutes:.0f} min"
    return f"{minutes / 60:.1f} h"
