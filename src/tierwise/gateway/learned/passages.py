"""Words in their places, and short passages of a text as evidence for a label."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

WINDOW = 8  # words of evidence
LONGEST = 200  # characters of evidence
# passages that are scored at a time: each is a call of an encoder
_PASSAGES = 8
_STRIDE = 6  # words from one window to the next
_LETTERS = r"[\w\u0300-\u036f]+"  # with accents that are characters of their own
# 649.00 and don't are one word
_WORD = re.compile(rf"{_LETTERS}(?:[.,:'’-]{_LETTERS})*")


class Word(NamedTuple):
    """One word of a text, in its place."""

    text: str
    start: int
    end: int


class Passage(NamedTuple):
    """Some words in a row, verbatim, and how much they speak for a label."""

    text: str
    score: float


# returns one score a passage
ScorePassages = Callable[[list[str]], list[float]]


def words_of(text: str) -> list[Word]:
    """Return every word of a text, in its place."""
    return [
        Word(match[0], match.start(), match.end()) for match in _WORD.finditer(text)
    ]


def first_within(words: Sequence[Word], longest: int) -> list[Word]:
    """Return the first words, within `longest` characters; at least one, however long it is."""
    start = words[0].start
    within = [words[0]]
    for word in words[1:]:
        if word.end - start > longest:
            break
        within.append(word)
    return within


def quoted(text: str, words: Sequence[Word], longest: int) -> str:
    """Return the text from the first word to the last, at most `longest` characters of it."""
    start = words[0].start
    end = min(words[-1].end, start + longest)
    return text[start:end]


def strongest_passages(
    text: str, score: ScorePassages, longest: int = LONGEST
) -> list[Passage]:
    """Return passages of at most eight words by their scores, the strongest first.

    At most `longest` characters each; none for a text without words. A text of many words is
    narrowed down first: of eight equal parts, the one with the highest score is looked at closer.
    So the cost is at most that of the whole text again, and of eight short passages.
    """
    words: Sequence[Word] = words_of(text)
    while len(words) > _PASSAGES * WINDOW:
        parts = _equal_parts(words)
        scores = score([quoted(text, part, len(text)) for part in parts])
        best = max(range(len(parts)), key=lambda place: scores[place])
        words = parts[best]
    if not words:
        return []
    windows = [
        first_within(words[first : first + WINDOW], longest)
        for first in _firsts(len(words))
    ]
    # each once, as `longest` may cut two of them to the same words
    texts = list(dict.fromkeys(quoted(text, window, longest) for window in windows))
    scores = score(texts)
    passages = [Passage(*pair) for pair in zip(texts, scores, strict=True)]
    # stable: among equals, the first in the text comes first
    return sorted(passages, key=lambda passage: -passage.score)


def _equal_parts(words: Sequence[Word]) -> list[Sequence[Word]]:
    bounds = [len(words) * place // _PASSAGES for place in range(_PASSAGES + 1)]
    return [words[start:end] for start, end in pairwise(bounds)]


def _firsts(words: int) -> list[int]:
    """Return the places of the windows' first words, evenly spread from the first to the last.

    Windows that follow each other have about two words in common.
    """
    last = max(0, words - WINDOW)
    windows = min(_PASSAGES, math.ceil(last / _STRIDE) + 1)
    if windows == 1:
        return [0]
    return [round(last * place / (windows - 1)) for place in range(windows)]
