"""Amounts of money and other numbers as people read them."""

from __future__ import annotations

from decimal import Decimal


def rounded(number: float) -> str:
    """An expected number of documents or calls: whole where it is one."""
    return f"{number:.0f}" if abs(number - round(number)) < 0.05 else f"{number:.1f}"


def usd(known: Decimal, unknown: int = 0) -> str:
    """An amount, and how many calls are not in it because nobody knows what they cost."""
    amount = f"{known:.6f} USD" if known < 1 else f"{known:.2f} USD"
    return f"{amount} + {unknown} of unknown cost" if unknown else amount
