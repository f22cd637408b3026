"""The places of an output's quotations: their spans in the document, and their boxes on its pages."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

from tierwise.records import Box, Document, PageWords, Place
from tierwise.steps.checks import Check, Quotes, named_texts, quotes_of_fields
from tierwise.steps.quotations import QuotableText, Span

_NAMES = frozenset(("quote", "evidence"))
_NUMBERS = re.compile(r"\[\d+\]")
# Of two words on one line, at least this share of the lower one's height is common.
_SAME_LINE = 0.5


def places_of(
    value: Any,
    document: Document,
    checks: Sequence[Check] | None = None,
    parts: Sequence[Span] = (),
) -> tuple[Place, ...]:
    """Return the place of each quotation in an output, which is plain JSON data.

    The step's `checks` say which fields quote. Without them, the `{value, quote}` pairs and all
    texts called `quote` or `evidence` do. Of several occurrences a quotation gets the first one of whole words. Where
    the same words are quoted again in the same field of a later item of a list, that is the next
    occurrence. Words that the check `grounding` would refuse have no place. `parts` are the spans
    that a long document was checked in, where it was.
    """
    quotations = list(_quotations(value, checks))
    if not quotations or not document.text:
        return ()
    finder = _Finder(document, parts)
    places = [finder.place(path, quote) for path, quote in quotations]
    return tuple(place for place in places if place is not None)


def _quotations(
    value: Any, checks: Sequence[Check] | None
) -> Iterator[tuple[str, str]]:
    """Yield path and words of each quotation once."""
    sources: list[Quotes] = [quotes_of_fields, _quotes_by_name]
    if checks is not None:
        sources = [check.quotes for check in checks if check.quotes is not None]
    seen: set[str] = set()
    for quotes in sources:
        for path, quote in quotes(value):
            if path not in seen:
                seen.add(path)
                yield path, quote


def _quotes_by_name(data: Any) -> Iterator[tuple[str, str]]:
    """Yield the texts called `quote` or `evidence`; those of a `{value, quote}` pair by its name."""
    for path, words in named_texts(data, _NAMES):
        yield path.removesuffix(".quote") if path != "quote" else path, words


class _Finder:
    """Finds the quotations of one output in one document, in their order."""

    def __init__(self, document: Document, parts: Sequence[Span]) -> None:
        self._text = QuotableText(document.text)
        self._parts = parts
        self._pages = document.pages
        # by field, without the numbers of items, and by quotation
        self._occurrences: dict[tuple[str, str], Iterator[Span]] = {}
        self._last: dict[tuple[str, str], Span] = {}

    def place(self, path: str, quote: str) -> Place | None:
        span = self._next_span(_NUMBERS.sub("[]", path), quote)
        if span is None:
            return None
        start, end = span
        page = page_at(self._pages, start)
        if page is None:
            return Place(path, start, end)
        return Place(path, start, end, page.page, boxes_of(page, start, end))

    def _next_span(self, field: str, quote: str) -> Span | None:
        """Return the next occurrence of a quotation; the last one again where there is no other."""
        key = (field, quote)
        if key not in self._occurrences:
            self._occurrences[key] = self._spans(quote)
        span = next(self._occurrences[key], None)
        if span is None:
            return self._last.get(key)
        self._last[key] = span
        return span

    def _spans(self, quote: str) -> Iterator[Span]:
        """Yield the occurrences in the text; where it has none, those in its parts.

        The best match of a quotation with typos may differ between the whole and a part.
        """
        found = False
        for span in self._text.occurrences(quote):
            found = True
            yield span
        if found:
            return
        for offset, part_end in self._parts:
            part = QuotableText(self._text.text[offset:part_end])
            for start, end in part.occurrences(quote):
                yield start + offset, end + offset


def page_at(pages: Sequence[PageWords], position: int) -> PageWords | None:
    """Return the page that has a character of the document's text; None where none has it."""
    starts = [page.start for page in pages]
    number = bisect_right(starts, position) - 1
    if number < 0 or position >= pages[number].end:
        return None
    return pages[number]


def boxes_of(page: PageWords, start: int, end: int) -> tuple[Box, ...]:
    """Return the boxes around the words of a span, one for each line."""
    boxes: list[Box] = []
    for word in page.words:
        if word.end <= start or word.start >= end:
            continue
        if boxes and _is_same_line(boxes[-1], word.box):
            boxes[-1] = _around(boxes[-1], word.box)
        else:
            boxes.append(word.box)
    return tuple(boxes)


def _is_same_line(one: Box, other: Box) -> bool:
    """Return True if two boxes share most of the lower one's height."""
    _, top, _, bottom = one
    _, other_top, _, other_bottom = other
    shared = min(bottom, other_bottom) - max(top, other_top)
    lower_height = min(bottom - top, other_bottom - other_top)
    return shared >= _SAME_LINE * lower_height


def _around(one: Box, other: Box) -> Box:
    """Return the smallest box around two."""
    return (
        min(one[0], other[0]),
        min(one[1], other[1]),
        max(one[2], other[2]),
        max(one[3], other[3]),
    )
