"""A text in parts, with places marked in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text. `quoted_by` names the fields that quote it; empty for the rest."""

    text: str
    quoted_by: tuple[str, ...] = ()


def marked_parts(text: str, places: Iterable[tuple[int, int, str]]) -> list[Part]:
    """Cut a text at the ends of all places; overlapping ones give parts with several names.

    A place is start, end and name. What is beyond the text's end is left out.
    """
    length = len(text)
    opened: dict[int, list[str]] = {}
    closed: dict[int, list[str]] = {}
    for start, end, name in places:
        if start < min(end, length):
            opened.setdefault(start, []).append(name)
            closed.setdefault(min(end, length), []).append(name)
    names: Counter[str] = Counter()
    parts: list[Part] = []
    for start, end in pairwise(sorted({0, length, *opened, *closed})):
        names.subtract(closed.get(start, ()))
        names.update(opened.get(start, ()))
        names = +names
        parts.append(Part(text[start:end], tuple(names)))
    return parts
