"""Redaction: the only way in which a document's sensitivity falls, and only after a second, stricter look.

Personal data becomes typed placeholders (`<EMAIL_1>`), the same value the same one within a document. No model is
asked and nothing leaves the process. What was replaced is kept nowhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from tierwise.documents.redaction.names import named, names, people
from tierwise.documents.redaction.patterns import Span, doubts, found, plain, spans
from tierwise.errors import Misuse, UnknownName
from tierwise.records import SENSITIVITIES, Document, Outcome, Sensitivity, highest, rank

Finder = Callable[[str], Iterator[Span]]

STEP = "redact"
REGIONS = ("GB", "US", "DE", "FR")
_PEOPLE = ("from", "to", "cc", "reply-to", "sender", "author")  # metadata that names people
_SEPARATORS = re.compile(r"[\s./()-]+")
_MOST_TOLD = 3  # of the places that raise doubt
_GAP = "\0"  # stands where something was taken out, so that no match reaches across


@dataclass(frozen=True, kw_only=True)
class Redaction:
    """What is taken out of documents, and how far that lowers them.

    `also` are further words (whatever their case and inside other words too) or compiled patterns. `regions` are the
    countries (ISO 3166) whose national phone numbers are known; numbers with a + are known everywhere. What is
    restricted goes down to `restricted_to`, and not at all without it. Raises Misuse, UnknownName.
    """

    to: Sensitivity
    restricted_to: Sensitivity | None = None
    also: tuple[str | re.Pattern[str], ...] = ()
    regions: tuple[str, ...] = REGIONS

    def __post_init__(self) -> None:
        from phonenumbers import SUPPORTED_REGIONS

        for level in (self.to, self.restricted_to):
            if level is not None and level not in SENSITIVITIES:
                raise UnknownName("sensitivity", str(level), SENSITIVITIES)
        for region in self.regions:
            if region not in SUPPORTED_REGIONS:
                raise UnknownName("region", region, SUPPORTED_REGIONS)
        for word in self.also:
            if isinstance(word, str) and not word.strip():
                raise Misuse("redact: a word in `also` is empty; it would match nothing")

    def apply(self, document: Document) -> Document:
        """The document without what was found in its text and metadata, with its outcome of the step `redact`.

        Where the second look finds anything, it keeps its sensitivity, and the outcome says why.
        """
        if stopped := document.stopped:
            return document.with_outcome(_skipped(document, stopped))
        before = highest(document.sensitivity, *_others(document))
        goal = self._goal(before)
        eraser = _Eraser(self._finders(document))
        text = eraser.erase(document.text)
        metadata = {
            key: eraser.erase(value, f"`{key}`") for key, value in document.metadata.items()
        }
        reason = _against(document, before, goal) or eraser.left()
        derived = replace(document, text=text, metadata=metadata)
        if not reason:
            derived = replace(derived, sensitivity=goal, sensitivity_source=STEP)
        value = {
            "lowered": not reason,
            "from": before,
            "to": goal,
            "counts": dict(sorted(eraser.counts.items())),
            "hash_before": document.hash,
            "hash_after": derived.hash,
        }
        level = before if reason else goal
        return derived.with_outcome(
            Outcome(step=STEP, status="accepted", value=value, reason=reason, sensitivity=level)
        )

    def _goal(self, before: Sensitivity) -> Sensitivity:
        if before == "restricted":
            return self.restricted_to or before
        return min(before, self.to, key=rank)

    def _finders(self, document: Document) -> tuple[Finder, ...]:
        """What finds each kind in a plain text: the known forms, this call's own words, this document's people."""
        headers = (
            plain(value)[0] for key, value in document.metadata.items() if key.casefold() in _PEOPLE
        )
        known = names((*headers, *people(plain(document.text)[0])))
        return (
            partial(found, regions=self.regions),
            *(partial(spans, "WORD", _pattern(word)) for word in self.also),
            partial(named, words=known),
        )


@dataclass
class _Eraser:
    """Replaces what it finds, in one text after the other; remembers values only as long as it lives."""

    finders: tuple[Finder, ...]
    counts: Counter[str] = field(default_factory=Counter)
    _placeholders: dict[tuple[str, str], str] = field(default_factory=dict)
    _numbers: Counter[str] = field(default_factory=Counter)
    _left: list[str] = field(default_factory=list)
    _untold: int = 0

    def erase(self, text: str, place: str = "") -> str:
        """The text with placeholders; what a second look finds in the rest is noted, by `place` or else by line."""
        bare, places = plain(text)
        # `end` in the plain spelling, `cut` in the text itself
        pieces = list[str]()
        rest = list[str]()
        end = 0
        cut = 0
        for span in _merged(self._found(bare)):
            value = bare[span.start : span.end]
            self.counts[span.kind] += 1
            pieces += [text[cut : places[span.start]], self._placeholder(span.kind, value)]
            rest += [bare[end : span.start], _GAP, "\n" * value.count("\n")]
            end = span.end
            cut = max(places[span.end], places[span.end - 1] + 1)
        self._look_again("".join([*rest, bare[end:]]), place)
        return "".join([*pieces, text[cut:]])

    def left(self) -> str:
        """What may still be personal data, and where; empty when there is none."""
        if not self._left:
            return ""
        more = f"; {self._untold} more" if self._untold else ""
        return (
            f"may still hold personal data, take it out with `also`: {'; '.join(self._left)}{more}"
        )

    def _found(self, bare: str) -> Iterator[Span]:
        return (span for find in self.finders for span in find(bare))

    def _look_again(self, rest: str, place: str) -> None:
        left = _merged((*self._found(rest), *doubts(rest)))
        told = left[: _MOST_TOLD - len(self._left)]
        self._left += [f"{place or _line(rest, span)}: {span.kind}" for span in told]
        self._untold += len(left) - len(told)

    def _placeholder(self, kind: str, value: str) -> str:
        key = kind, _spelling(kind, value)
        if key not in self._placeholders:
            self._numbers[kind] += 1
            self._placeholders[key] = f"<{kind}_{self._numbers[kind]}>"
        return self._placeholders[key]


def _line(text: str, span: Span) -> str:
    number = text.count("\n", 0, span.start) + 1
    return f"line {number}"


def _skipped(document: Document, stopped: Outcome) -> Outcome:
    reason = f"{stopped.step} was {stopped.status}"
    return Outcome(step=STEP, status="skipped", reason=reason, sensitivity=document.sensitivity)


def _pattern(word: str | re.Pattern[str]) -> re.Pattern[str]:
    """A pattern for plain texts: a word with any white space in it, or the caller's own."""
    if isinstance(word, re.Pattern):
        return re.compile(plain(word.pattern)[0], word.flags)
    return re.compile(r"\s+".join(map(re.escape, plain(word)[0].split())), re.IGNORECASE)


def _against(document: Document, before: Sensitivity, goal: Sensitivity) -> str:
    """Why a document could not be lowered however clean its text is; empty when it could."""
    if before == "restricted" == goal:
        return "it is restricted, and `restricted_to` does not say how far that may be lowered"
    if goal == before:
        return f"it is {before} already"
    for step, outcome in document.outcomes.items():
        if step != STEP and (outcome.value is not None or rank(outcome.sensitivity) > rank(goal)):
            return f"its outcome of {step} is from the text as it was; redact before that step"
    return ""


def _others(document: Document) -> Iterator[Sensitivity]:
    """The sensitivities of a document's outcomes, but for an earlier redaction's, which holds nothing of the text."""
    return (outcome.sensitivity for step, outcome in document.outcomes.items() if step != STEP)


def _merged(found: Iterable[Span]) -> list[Span]:
    """Spans that do not overlap: those that do become one, of the longest one's kind."""
    merged: list[Span] = []
    longest = 0
    for span in sorted(found, key=lambda span: (span.start, -span.end)):
        length = span.end - span.start
        if not merged or span.start >= merged[-1].end:
            merged.append(span)
            longest = length
        else:
            last = merged[-1]
            kind, longest = (span.kind, length) if length > longest else (last.kind, longest)
            merged[-1] = Span(last.start, max(last.end, span.end), kind)
    return merged


def _spelling(kind: str, value: str) -> str:
    """What makes two values the same: the letters and digits of a number, any case and white space of a text."""
    if kind in ("URL", "EMAIL", "HANDLE", "NAME", "WORD"):
        return " ".join(value.split()).casefold()
    return _SEPARATORS.sub("", value)
