"""Text in aligned columns, at most 80 characters wide."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from tierwise.text.amounts import usd

WIDTH = 80


def aligned(rows: Sequence[tuple[str, str]], *, indent: str = "") -> Iterator[str]:
    """Yield labels in one column, and their texts wrapped in a second one."""
    label_width = max((len(label) for label, _ in rows), default=0)
    for label, text in rows:
        head = f"{indent}{label:<{label_width}}  "
        yield from textwrap.wrap(
            # textwrap gives no line for an empty text, and the label would be lost.
            text or "-",
            WIDTH,
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_on_hyphens=False,
        )


def one_line(value: Any, most: int = 200) -> str:
    """Return a value as one line of at most this many characters."""
    if isinstance(value, str):
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    return text[: most - 1] + "…"


def cost_text(cost: Decimal | None, about: str = "") -> str:
    """Return a cost in words; `about` goes before an amount that is an estimate."""
    if cost is None:
        return "cost unknown"
    if cost == 0:
        return "free"
    return f"{about}{usd(cost)}"


def counts_text(counts: dict[str, int]) -> str:
    """Return counts by name, such as "billing 3, delivery 2"."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())
