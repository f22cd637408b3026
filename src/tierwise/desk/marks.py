"""Where an outcome quotes its document: the parts of a text that are marked as evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_SHORTEST = 4  # characters: shorter values, such as `no`, are everywhere
_MOST_VALUES = 60
_MOST_PLACES = 5  # of one value


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a text. `quoted_by` names the fields that quote it; empty for the rest."""

    text: str
    quoted_by: tuple[str, ...] = ()


def marked(text: str, values: Mapping[str, Any]) -> list[Part]:
    """Return a text in parts, with what some values quote marked. Keys name the values.

    A value is found as it is, or with other white space: models join the lines of a text.
    """
    places: list[tuple[int, int, str]] = []
    for name, value in values.items():
        for field, quote in _quotes(name, value, _MOST_VALUES):
            places += ((start, end, field) for start, end in _found(text, quote))
    return _parts(text, places)


def _quotes(name: str, value: Any, most: int) -> Iterator[tuple[str, str]]:
    """Yield the texts in a value, each with the name of its field."""
    waiting = [(name, value)]
    seen = 0
    while waiting and seen < most:
        field, item = waiting.pop(0)
        seen += 1
        if isinstance(item, str):
            if len(item.strip()) >= _SHORTEST:
                yield field, item.strip()
        elif isinstance(item, Mapping):
            waiting += ((f"{field}.{key}", inner) for key, inner in item.items())
        elif isinstance(item, Sequence):
            waiting += ((field, inner) for inner in item)


def _found(text: str, quote: str) -> Iterator[tuple[int, int]]:
    words = [re.escape(word) for word in quote.split()]
    pattern = re.compile(r"\s+".join(words))
    for number, match in enumerate(pattern.finditer(text)):
        if number == _MOST_PLACES:
            return
        yield match.span()


def _parts(text: str, places: Sequence[tuple[int, int, str]]) -> list[Part]:
    """Cut a text at the ends of all places; overlapping ones give parts with several names."""
    cuts = sorted(
        {0, len(text), *(cut for start, end, _ in places for cut in (start, end))}
    )
    parts: list[Part] = []
    for start, end in pairwise(cuts):
        names = dict.fromkeys(
            name for first, last, name in places if first <= start and end <= last
        )
        parts.append(Part(text[start:end], tuple(names)))
    return parts
