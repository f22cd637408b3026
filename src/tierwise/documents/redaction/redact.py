"""Redaction: the only way to lower a document's sensitivity, and only after a stricter second look.

Personal data becomes typed placeholders (`<EMAIL_1>`); equal values get the same placeholder within
a document. No model is asked and nothing leaves the process. Replaced values are not kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from tierwise.documents.redaction.names import find_names, name_phrases, names_in
from tierwise.documents.redaction.patterns import (
    Span,
    find_doubtful,
    find_matches,
    find_personal_data,
    normalize,
)
from tierwise.errors import Misuse, UnknownName
from tierwise.records import (
    SENSITIVITIES,
    Document,
    Outcome,
    Sensitivity,
    highest,
    rank,
)

Finder = Callable[[str], Iterator[Span]]

STEP = "redact"
REGIONS = ("GB", "US", "DE", "FR")
# metadata that names people
_PEOPLE = ("from", "to", "cc", "reply-to", "sender", "author")
_SEPARATORS = re.compile(r"[\s./()-]+")
# case and white space do not matter
_TEXTUAL_KINDS = ("URL", "EMAIL", "HANDLE", "NAME", "WORD")
_MOST_LISTED = 3  # places of doubt in a reason; the others are counted
_GAP = "\0"  # stands where data was taken out, so that no match reaches across


@dataclass(frozen=True, kw_only=True)
class Redaction:
    """The data that is taken out of documents, and the sensitivity that they then have.

    `also` are further words (in any case, and inside other words too) or compiled patterns.
    `regions` are the countries (ISO 3166) whose national phone numbers are found; numbers with a +
    are found everywhere. Restricted documents are lowered to `restricted_to`, and not at all
    without it. Raises Misuse, UnknownName.
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
                raise Misuse(
                    "redact: a word in `also` is empty; it would match nothing"
                )

    def apply(self, document: Document) -> Document:
        """Return the document without personal data in its text and metadata.

        It has an outcome of the step `redact`. When the second look finds more, the document keeps
        its sensitivity, and the outcome's reason says where.
        """
        if document.stopped:
            return document.with_outcome(_skipped(document, document.stopped))
        before = highest(document.sensitivity, *_outcome_sensitivities(document))
        goal = self._goal(before)

        eraser = _Eraser(self._finders(document))
        text = eraser.erase(document.text)
        metadata = {
            key: eraser.erase(value, f"`{key}`")
            for key, value in document.metadata.items()
        }
        reason = _why_not_lowered(document, before, goal) or eraser.describe_doubts()

        redacted = replace(document.with_text(text), metadata=metadata)
        if not reason:
            redacted = replace(redacted, sensitivity=goal, sensitivity_source=STEP)
        value = {
            "lowered": not reason,
            "from": before,
            "to": goal,
            "counts": dict(sorted(eraser.counts.items())),
            "hash_before": document.hash,
            "hash_after": redacted.hash,
        }
        outcome = Outcome(
            step=STEP,
            status="accepted",
            value=value,
            reason=reason,
            sensitivity=before if reason else goal,
        )
        return redacted.with_outcome(outcome)

    def _goal(self, before: Sensitivity) -> Sensitivity:
        if before == "restricted":
            return self.restricted_to or before
        return min(before, self.to, key=rank)

    def _finders(self, document: Document) -> list[Finder]:
        """Return the finders: known forms, this redaction's own words, the document's people."""
        phrases = list(name_phrases(normalize(document.text).text))
        for key, value in document.metadata.items():
            if key.casefold() in _PEOPLE:
                phrases.append(normalize(value).text)
        own_words = [
            partial(find_matches, "WORD", _word_pattern(word)) for word in self.also
        ]
        return [
            partial(find_personal_data, regions=self.regions),
            *own_words,
            partial(find_names, names=names_in(phrases)),
        ]


@dataclass
class _Eraser:
    """Replaces personal data in the texts of one document, and remembers the placeholders."""

    finders: list[Finder]
    counts: Counter[str] = field(default_factory=Counter)
    _placeholders: dict[tuple[str, str], str] = field(default_factory=dict)
    _numbers: Counter[str] = field(default_factory=Counter)
    _doubts: list[str] = field(default_factory=list)
    _unlisted_doubts: int = 0

    def erase(self, text: str, place: str = "") -> str:
        """Replace personal data by placeholders, then look again at the remainder.

        Findings of the second look are noted with `place`, or with their line.
        """
        normalized = normalize(text)
        redacted: list[str] = []  # pieces of the text itself, and placeholders
        remainder: list[str] = []  # pieces of the normalized text, for the second look
        normalized_end = 0
        original_end = 0
        for span in _merge(self._find(normalized.text)):
            value = normalized.text[span.start : span.end]
            original_start = normalized.offsets[span.start]
            self.counts[span.kind] += 1
            redacted.append(text[original_end:original_start])
            redacted.append(self._placeholder(span.kind, value))
            remainder.append(normalized.text[normalized_end : span.start])
            # With its line breaks, so that the second look counts the same lines.
            remainder.append(_GAP + "\n" * value.count("\n"))
            normalized_end = span.end
            # Behind the last character of the match, even when only a part of it matched (`ﬁ` is
            # normalized to `fi`), and behind the invisible characters that follow it.
            behind_last = normalized.offsets[span.end - 1] + 1
            original_end = max(normalized.offsets[span.end], behind_last)
        redacted.append(text[original_end:])
        remainder.append(normalized.text[normalized_end:])
        self._look_again("".join(remainder), place)
        return "".join(redacted)

    def describe_doubts(self) -> str:
        """Say where personal data may be left; empty when there is no doubt."""
        if not self._doubts:
            return ""
        places = "; ".join(self._doubts)
        more = f"; {self._unlisted_doubts} more" if self._unlisted_doubts else ""
        return f"may still hold personal data, take it out with `also`: {places}{more}"

    def _find(self, text: str) -> Iterator[Span]:
        for find in self.finders:
            yield from find(text)

    def _look_again(self, remainder: str, place: str) -> None:
        missed = self._find(remainder)
        doubtful = find_doubtful(remainder)
        for span in _merge([*missed, *doubtful]):
            if len(self._doubts) < _MOST_LISTED:
                where = place or _line(remainder, span)
                self._doubts.append(f"{where}: {span.kind}")
            else:
                self._unlisted_doubts += 1

    def _placeholder(self, kind: str, value: str) -> str:
        """Return the placeholder of a value, a new one for a new value."""
        key = (kind, _canonical_spelling(kind, value))
        placeholder = self._placeholders.get(key)
        if placeholder is None:
            self._numbers[kind] += 1
            placeholder = f"<{kind}_{self._numbers[kind]}>"
            self._placeholders[key] = placeholder
        return placeholder


def _line(text: str, span: Span) -> str:
    number = text.count("\n", 0, span.start) + 1
    return f"line {number}"


def _skipped(document: Document, stopped: Outcome) -> Outcome:
    reason = f"{stopped.step} was {stopped.status}"
    return Outcome(
        step=STEP,
        status="skipped",
        reason=reason,
        cause="earlier_step",
        sensitivity=document.sensitivity,
    )


def _word_pattern(word: str | re.Pattern[str]) -> re.Pattern[str]:
    """Return a pattern for normalized texts: a word with any white space in it, or the caller's."""
    if isinstance(word, re.Pattern):
        pattern = normalize(word.pattern).text
        return re.compile(pattern, word.flags)
    parts = normalize(word).text.split()
    pattern = r"\s+".join(re.escape(part) for part in parts)
    return re.compile(pattern, re.IGNORECASE)


def _why_not_lowered(document: Document, before: Sensitivity, goal: Sensitivity) -> str:
    """Say why a document cannot be lowered however clean its text is; empty when it can."""
    if before == "restricted" and goal == "restricted":
        return "it is restricted, and `restricted_to` does not say how far that may be lowered"
    if goal == before:
        return f"it is {before} already"
    for step, outcome in document.outcomes.items():
        if step == STEP:
            continue
        if outcome.value is not None or rank(outcome.sensitivity) > rank(goal):
            return f"its outcome of {step} is from the text as it was; redact before that step"
    return ""


def _outcome_sensitivities(document: Document) -> Iterator[Sensitivity]:
    """Yield the outcomes' sensitivities.

    An earlier redaction's outcome does not count, as it holds nothing of the text.
    """
    return (
        outcome.sensitivity
        for step, outcome in document.outcomes.items()
        if step != STEP
    )


def _merge(spans: Iterable[Span]) -> list[Span]:
    """Merge spans that overlap into one, of the longest one's kind."""
    merged: list[Span] = []
    longest = 0  # of those that became the last merged span
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        length = span.end - span.start
        if not merged or span.start >= merged[-1].end:
            merged.append(span)
            longest = length
            continue
        last = merged[-1]
        kind = last.kind
        if length > longest:
            kind = span.kind
            longest = length
        merged[-1] = Span(last.start, max(last.end, span.end), kind)
    return merged


def _canonical_spelling(kind: str, value: str) -> str:
    """Return the same spelling for equal values.

    The case and white space of a text do not matter, nor do the separators in a number.
    """
    if kind in _TEXTUAL_KINDS:
        return " ".join(value.split()).casefold()
    return _SEPARATORS.sub("", value)
