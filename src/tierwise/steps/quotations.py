"""Where a quotation is in a document: the character span of what the check `grounding` accepts.

The check compares squeezed texts: normalised (NFKC), in one case, without white space and invisible
characters. A text is squeezed once, in blocks, so that a place in the squeezed text leads back to
its block, and only that block is looked at letter by letter.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from tierwise.steps.checks import (
    CONTEXT,
    LONG_QUOTE,
    SAME_WORDS,
    has_numbers,
    squeezed,
)

if TYPE_CHECKING:
    import regex

Span = tuple[int, int]

_BLOCK = 256  # characters
# A grapheme cluster around a place is looked for within this many characters.
_LONGEST_CLUSTER = 64
_MOST_TRIED = 200  # occurrences, in search of one of whole words
_MOST_SHIFT = 40  # characters that the edge of a quotation with typos is moved by
_AT_EDGES = "\"'."  # the check does not ask for these at the ends of a quotation
_VOWEL_JAMO = ("\u1160", "\u11ff")  # with the final consonants
# Letters of Kirat Rai that Unicode 16 composes.
_KIRAT_VOWELS = ("\U00016d63", "\U00016d6a")


class QuotableText:
    """A document's text, squeezed once for any number of quotations."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._cuts = list(_safe_cuts(text))
        blocks = [
            squeezed(text[start:end])
            for start, end in zip(self._cuts, self._cuts[1:], strict=False)
        ]
        self.squeezed = "".join(blocks)
        # by block: where it begins in the squeezed text
        self._starts: list[int] = []
        length = 0
        for block in blocks:
            self._starts.append(length)
            length += len(block)
        # by block: for each squeezed character, the span of what it was made of
        self._spans: dict[int, list[Span]] = {}

    def find(self, quote: str) -> Span | None:
        """Return the span of a quotation, as `find_quotation` does."""
        return next(self.occurrences(quote), None)

    def occurrences(self, quote: str) -> Iterator[Span]:
        """Yield the spans of a quotation in the order of the text; none where the check refuses it.

        Where it occurs as whole words, other occurrences are left out: `12` is not in `2012`.
        """
        copied = squeezed(quote)
        wanted = copied.strip(_AT_EDGES)
        if not wanted:
            return
        start = self.squeezed.find(wanted)
        if start >= 0:
            before, _, after = copied.partition(wanted)
            yield from self._exact(wanted, start, before, after)
        elif len(wanted) >= LONG_QUOTE:
            found = self._with_typos(wanted)
            if found is not None:
                yield self._span(*found)

    def _exact(
        self, wanted: str, start: int, before: str, after: str
    ) -> Iterator[Span]:
        """Yield the occurrences of a squeezed quotation; the first begins at `start`.

        `before` and `after` are the quotation's own edges, which belong to it where the text has
        them, too.
        """
        text = self.squeezed
        parts_of_words: list[Span] = []
        has_whole = False
        while start >= 0:
            end = start + len(wanted)
            if text.endswith(before, 0, start) and text.startswith(after, end):
                span = self._span(start - len(before), end + len(after))
            else:
                span = self._span(start, end)
            if self._is_whole(span):
                has_whole = True
                yield span
            elif not has_whole:
                parts_of_words.append(span)
                if len(parts_of_words) == _MOST_TRIED:
                    break
            start = text.find(wanted, end)
        if not has_whole:
            yield from parts_of_words

    def _with_typos(self, wanted: str) -> Span | None:
        """Return where the check finds a long quotation with typos, in the squeezed text."""
        from rapidfuzz.fuzz import partial_ratio_alignment

        text = self.squeezed
        if len(wanted) > len(text):
            return None
        match = partial_ratio_alignment(wanted, text, score_cutoff=SAME_WORDS)
        if match is None:
            return None
        around = text[max(0, match.dest_start - CONTEXT) : match.dest_end + CONTEXT]
        if not has_numbers(around, wanted):
            return None
        return _with_best_edges(wanted, text, match.dest_start, match.dest_end)

    def _span(self, start: int, end: int) -> Span:
        """Return the span in the text of a span in the squeezed text, in whole grapheme clusters."""
        first, _ = self._made_of(start)
        _, last = self._made_of(end - 1)
        return _whole_clusters(self.text, first, last)

    def _made_of(self, position: int) -> Span:
        """Return the span of the text that a squeezed character was made of."""
        # Of blocks that begin at the same place, only the last has a character.
        block = bisect_right(self._starts, position) - 1
        if block not in self._spans:
            start, end = self._cuts[block], self._cuts[block + 1]
            self._spans[block] = list(_squeezed_spans(self.text, start, end))
        return self._spans[block][position - self._starts[block]]

    def _is_whole(self, span: Span) -> bool:
        """Return True if a span begins and ends between words or numbers."""
        return not (_is_inside(self.text, span[0]) or _is_inside(self.text, span[1]))


def find_quotation(quote: str, text: str | QuotableText) -> Span | None:
    """Return the span of a quotation in a text, in characters; None where the check refuses it.

    The span is of whole grapheme clusters. Of several occurrences it is the first one of whole
    words, else the first. For many quotations from one text, make one `QuotableText` of it.
    """
    quotable = text if isinstance(text, QuotableText) else QuotableText(text)
    return quotable.find(quote)


def _safe_cuts(text: str) -> Iterator[int]:
    """Yield the ends of blocks that can be squeezed one by one: no character joins across them."""
    length = len(text)
    yield 0
    start = 0
    while start < length:
        cut = min(start + _BLOCK, length)
        while cut < length and _joins(text[cut]):
            cut += 1
        yield cut
        start = cut


def _joins(character: str) -> bool:
    """Return True if a character may be composed with the one before it."""
    if character.isascii():
        return False
    first = unicodedata.normalize("NFKD", character)[0]
    if unicodedata.category(first).startswith("M"):
        return True
    is_jamo = _VOWEL_JAMO[0] <= first <= _VOWEL_JAMO[1]
    return is_jamo or _KIRAT_VOWELS[0] <= first <= _KIRAT_VOWELS[1]


def _squeezed_spans(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield for each character of a squeezed block the span of the text that it was made of."""
    while start < end:
        after = start + 1
        while after < end and _joins(text[after]):
            after += 1
        for _ in squeezed(text[start:after]):
            yield start, after
        start = after


@cache
def _cluster() -> regex.Pattern[str]:
    import regex

    return regex.compile(r"\X")


def _whole_clusters(text: str, start: int, end: int) -> Span:
    """Widen a span to whole grapheme clusters, such as an emoji of several characters."""
    # From a place where a cluster surely begins.
    first = start
    earliest = max(0, start - _LONGEST_CLUSTER)
    while first > earliest and not text[first - 1].isspace():
        first -= 1
    for match in _cluster().finditer(text, first, start + _LONGEST_CLUSTER):
        if match.end() > start:
            start = min(start, match.start())
            break
    for match in _cluster().finditer(text, start, end + _LONGEST_CLUSTER):
        if match.end() >= end:
            return start, match.end()
    return start, end


def _is_inside(text: str, place: int) -> bool:
    """Return True if a place is within a word or a number."""
    if not 0 < place < len(text):
        return False
    before = text[place - 1]
    after = text[place]
    if before.isalpha() and after.isalpha():
        return True
    if before.isdigit() and after.isdigit():
        return True
    # a separator within a number: 2,140.00
    if before in ".,'" and after.isdigit():
        return place > 1 and text[place - 2].isdigit()
    if before.isdigit() and after in ".,'":
        return text[place + 1 : place + 2].isdigit()
    return False


def _with_best_edges(wanted: str, text: str, start: int, end: int) -> Span:
    """Move the edges of an alignment to where it is most like the quotation.

    The alignment is as long as the quotation, also where letters were lost or added.
    """
    from rapidfuzz.distance import Indel

    shift = min(_MOST_SHIFT, len(wanted) * (100 - SAME_WORDS) // 100 + 1)

    def distance(first: int, last: int) -> int:
        return Indel.distance(wanted, text[first:last])

    ends = range(max(start + 1, end - shift), min(len(text), end + shift) + 1)
    end = min(ends, key=lambda last: (distance(start, last), abs(last - end)))
    starts = range(max(0, start - shift), min(end - 1, start + shift) + 1)
    start = min(starts, key=lambda first: (distance(first, end), abs(first - start)))
    ends = range(max(start + 1, end - shift), min(len(text), end + shift) + 1)
    end = min(ends, key=lambda last: (distance(start, last), abs(last - end)))
    return start, end
