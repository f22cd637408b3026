"""Checks: small functions of an output and its document that say whether the output holds.

A check is written as a function that returns why the output fails, or None when it passes;
`@check(name)` turns it into a Check that gives a Verdict. Keyword-only parameters are filled
from the step's parameters, so that `labels=...` reaches both the prompt and the check.
"""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tierwise.errors import describe_exception
from tierwise.records import Document, Verdict

_PLACEHOLDER = re.compile(r"\[[^\]\n]{2,40}\]|\{\{?[^}\n]{2,40}\}?\}|<[A-Z][^>\n]{2,40}>")
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"\d[\d.,']*")  # with its separators: 2,140.00
SAME_WORDS = (
    95  # per cent of a long quotation's characters that have to stand in the document, in order
)
_ALIKE = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»", '"'),
        **dict.fromkeys("‘’‚‛‹›′`", "'"),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys(
            "\u00ad\u200b\u200c\u200d\u2060\ufeff", None
        ),  # invisible, so copies lose them
    }
)


@dataclass(frozen=True)
class Check:
    """A named check. Names are what `escalate.on` in rules.yaml lists."""

    name: str
    function: Callable[..., str | None]
    parameters: tuple[str, ...]

    def __call__(
        self, output: BaseModel, document: Document, parameters: Mapping[str, Any]
    ) -> Verdict:
        """The verdict; unscored when a parameter that the check needs was not given, failed when the check raises."""
        missing = [name for name in self.parameters if name not in parameters]
        if missing:
            return Verdict(self.name, None, f"not scored: no `{missing[0]}` was given")
        try:
            reason = self.function(
                output, document, **{name: parameters[name] for name in self.parameters}
            )
        except Exception as error:  # noqa: BLE001 - a check is the project's code, and one document must not stop a run
            return Verdict(self.name, False, f"the check raised {describe_exception(error)}")
        return Verdict(self.name, reason is None, reason or "")


def check(name: str) -> Callable[[Callable[..., str | None]], Check]:
    """Make a Check of a function `(output, document, *, parameter, …) -> why it fails, or None`."""

    def wrap(function: Callable[..., str | None]) -> Check:
        parameters = inspect.signature(function).parameters.values()
        return Check(name, function, tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY))

    return wrap


@check("label")
def label_is_allowed(output: BaseModel, _: Document, *, labels: Sequence[str]) -> str | None:
    """The output's `label` is one of the labels asked for."""
    label = getattr(output, "label", None)
    return None if label in labels else f"{label!r} is not one of {', '.join(labels)}"


@check("grounding")
def evidence_is_quoted(output: BaseModel, document: Document) -> str | None:
    """The output's `evidence` occurs in the document, but for white space, case and a slip in copying."""
    return _unquoted("evidence", str(getattr(output, "evidence", "") or ""), document)


@check("grounding")
def fields_are_quoted(output: BaseModel, document: Document) -> str | None:
    """Every field that has a value has a quotation that occurs in the document and holds the value."""
    for name, value, quote in _quoted_fields(output.model_dump(mode="json")):
        if value is None or value == "":
            continue
        if not quote:
            return f"`{name}` has a value but no quotation"
        if reason := _unquoted(name, quote, document):
            return reason
        if not _holds(quote, value):
            return f"`{name}`: the quotation does not hold the value {value!r}"
    return None


def taken_from_the_document(*fields: str) -> Check:
    """A check that every one of these fields that has a value, however deep in the output, occurs in the document.

    As in `evidence_is_quoted`, white space, case and a slip in copying are forgiven.
    """

    def taken(output: BaseModel, document: Document) -> str | None:
        found = _named(output.model_dump(mode="json"), frozenset(fields))
        return next(
            (reason for name, value in found if (reason := _unquoted(name, value, document))), None
        )

    return check("grounding")(taken)


@check("grounding")
def numbers_are_in_the_document(output: BaseModel, document: Document) -> str | None:
    """Every number in the output, an amount, a date or an order, stands in the document too."""
    for text in _texts(output.model_dump(mode="json")):
        for number in _NUMBER.findall(text):
            if not _has_numbers(document.text, number):
                return f"has a number that the document does not have: {number}"
    return None


@check("placeholders")
def no_placeholders(output: BaseModel, document: Document) -> str | None:
    """No `[Your Name]` or `{{ name }}` that the document itself does not have."""
    for text in _texts(output.model_dump(mode="json")):
        for found in _PLACEHOLDER.findall(text):
            if found not in document.text:
                return f"left a placeholder: {found}"
    return None


@check("language")
def same_language(output: BaseModel, document: Document) -> str | None:
    """The output's text is in the document's language, where both are sure enough to tell."""
    from tierwise.text.language import detect

    spoken = detect(" ".join(_texts(output.model_dump(mode="json"))))
    if spoken is None or document.language is None or spoken == document.language:
        return None
    return f"answers in '{spoken}', the document is in '{document.language}'"


def at_most_words(field: str) -> Check:
    """A check that a text field has at most `max_words` words (the step's parameter) and is not empty."""

    def length(output: BaseModel, _: Document, *, max_words: int) -> str | None:
        words = len(str(getattr(output, field) or "").split())
        if words == 0:
            return f"`{field}` is empty"
        return None if words <= max_words else f"`{field}` has {words} words, more than {max_words}"

    return check("length")(length)


def _quoted_fields(data: Any, name: str = "") -> Iterator[tuple[str, str | None, str | None]]:
    """All `{value, quote}` pairs in an output, with their names."""
    if isinstance(data, dict) and set(data) == {"value", "quote"}:
        yield name, data["value"], data["quote"]
    elif isinstance(data, dict):
        for key, item in data.items():
            yield from _quoted_fields(item, f"{name}.{key}".lstrip("."))
    elif isinstance(data, list):
        for position, item in enumerate(data, 1):
            yield from _quoted_fields(item, f"{name}[{position}]")


def _named(data: Any, names: frozenset[str], place: str = "") -> Iterator[tuple[str, str]]:
    """All texts under these names in an output, but for empty ones, each with its place."""
    items = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data, 1)
        if isinstance(data, list)
        else ()
    )
    for key, item in items:
        here = f"{place}[{key}]" if isinstance(data, list) else f"{place}.{key}".lstrip(".")
        if key in names and isinstance(item, str) and item:
            yield here, item
        else:
            yield from _named(item, names, here)


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for item in data.values() if isinstance(data, dict) else data:
            yield from _texts(item)


def _unquoted(name: str, quote: str, document: Document) -> str | None:
    wanted = squeezed(quote).strip("\"'.")
    text = squeezed(document.text)
    if not wanted:
        return f"`{name}` quotes nothing"
    if wanted in text or (len(wanted) >= 20 and _with_a_slip(wanted, text)):
        return None
    return f"`{name}` quotes words that are not in the document: {quote[:80]!r}"


def _with_a_slip(quote: str, text: str) -> bool:
    """Whether a long quotation stands in a text but for small slips in its words, none in its numbers."""
    from rapidfuzz.fuzz import partial_ratio_alignment

    found = partial_ratio_alignment(quote, text, score_cutoff=SAME_WORDS)
    if found is None or len(quote) > len(text):
        return False
    around = text[max(0, found.dest_start - 9) : found.dest_end + 9]
    return _has_numbers(around, quote)


def _holds(quote: str, value: Any) -> bool:
    """Whether a value stands in its quotation: small slips in words are forgiven, in numbers none."""
    from rapidfuzz.fuzz import partial_ratio, ratio

    wanted = squeezed(str(value))
    words = squeezed(quote)
    alike = (
        partial_ratio if len(wanted) <= len(words) else ratio
    )  # else one letter would hold any value
    return alike(wanted, words) >= 85 and _has_numbers(words, wanted)


def _has_numbers(text: str, wanted: str) -> bool:
    """Whether a text has all numbers of another, digit by digit or but for separators (2140 for 2,140)."""

    def whole(text: str) -> set[str]:
        return {re.sub(r"\D", "", number) for number in _NUMBER.findall(text)}

    return set(_DIGITS.findall(wanted)) <= set(_DIGITS.findall(text)) or whole(wanted) <= whole(
        text
    )


def squeezed(text: str) -> str:
    """Text for comparison: no white space, one case, one kind of quotes and dashes."""
    return "".join(unicodedata.normalize("NFKC", text).translate(_ALIKE).casefold().split())
