"""Where an outcome quotes its document: the parts of a text that are marked as evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tierwise.documents.marked_text import Part, marked_parts
from tierwise.ledger import OutcomeRow
from tierwise.records import Document
from tierwise.steps.places import places_of

__all__ = ["Part", "marked", "marked_places"]

_SHORTEST = 4  # characters: shorter values, such as `no`, are everywhere
_MOST_VALUES = 60
_MOST_PLACES = 5  # of one value


def marked_places(text: str, rows: Sequence[OutcomeRow], *, most: int) -> list[Part]:
    """Return the beginning of a document's text in parts, with the places of its outcomes marked.

    An outcome without places on record, such as one that a person edited, has those of the
    texts called `quote` or `evidence` in its value. One of another text has none here.
    """
    document = Document(id="", text=text)
    places: list[tuple[int, int, str]] = []
    for row in rows:
        if row.document_hash != document.hash:
            continue
        found = row.outcome.places or places_of(row.outcome.value, document)
        for place in found:
            name = f"{row.outcome.step}.{place.path}"
            if place.page is not None:
                name += f" (page {place.page})"
            places.append((place.start, place.end, name))
    return marked_parts(text[:most], places)


def marked(text: str, values: Mapping[str, Any]) -> list[Part]:
    """Return a text in parts, with what some values quote marked. Keys name the values.

    A value is found as it is, or with other white space: models join the lines of a text.
    """
    places: list[tuple[int, int, str]] = []
    for name, value in values.items():
        for field, quote in _quotes(name, value, _MOST_VALUES):
            places += ((start, end, field) for start, end in _found(text, quote))
    return marked_parts(text, places)


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
