"""Checks: small functions that validate an output against its document.

A check is written as a function that returns the reason for a failure, or None for a pass; it may
be `async def`. One that judges field by field returns a mapping of fields to reasons.
`@check(name)` turns it into a Check that returns a Verdict. Keyword-only parameters
are filled from the step's parameters, so that `labels=...` reaches both the prompt and the check.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import unicodedata
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from pydantic import BaseModel

from tierwise.errors import Misuse, describe_exception
from tierwise.records import Document, Verdict
from tierwise.steps.check_functions import (
    refuse_wrong_returns,
    step_parameters,
    wrong_field,
    wrong_result,
)
from tierwise.text.numbers import missing_number, numbers_of, plain_digits

# The fields of an output, as plain JSON data, that quote the document: path and quotation of each.
Quotes = Callable[[Any], Iterator[tuple[str, str]]]
# Of an async check, the function returns an awaitable of the reason.
CheckFunction = Callable[..., str | None]
# One that judges field by field returns reasons by field.
Reasons = str | Mapping[str, str | None] | None
AnyCheckFunction = Callable[..., Reasons] | Callable[..., Awaitable[Reasons]]

# The names of the checks that tierwise brings. `schema` and `low_confidence` are made by the
# cascade: an answer that is no valid output, and one below its certificate's confidence.
BUILT_IN = (
    "schema",
    "label",
    "length",
    "grounding",
    "placeholders",
    "language",
    "low_confidence",
)

_PLACEHOLDER = re.compile(
    r"\[[^\]\n]{2,40}\]|\{\{?[^}\n]{2,40}\}?\}|<[A-Z][^>\n]{2,40}>"
)
_NO_REASON = "the check gave no reason"
_END_OF_FIELD = re.compile(r"[.\[]")
_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"\d[\d.,']*")  # with its separators: 2,140.00
# Per cent of a long quotation's characters that must occur in the document, in order.
SAME_WORDS = 95
LONG_QUOTE = 20  # characters; a shorter quotation must occur exactly
CONTEXT = 9  # characters around a match, so that a number at its edge is read whole
_SAME_VALUE = 85  # per cent of a value's characters that must occur in its quotation
_ALIKE = str.maketrans(
    {
        **dict.fromkeys("“”„‟«»", '"'),
        **dict.fromkeys("‘’‚‛‹›′`", "'"),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        # Invisible characters: they get lost in copies.
        **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", None),
    }
)


# The names of all checks made in this process.
_made: set[str] = set(BUILT_IN)


def names_made() -> frozenset[str]:
    """Return the names of all checks that exist in this process so far."""
    return frozenset(_made)


@dataclass(frozen=True)
class Raised:
    """What a check's function raised."""

    error: Exception


@dataclass(frozen=True)
class Check:
    """A named check. `escalate.on` in rules.yaml lists these names.

    `parameters` are those of the step that it needs, `optional` those that it has defaults for.
    `quotes` yields the quotations that it checks, for `places_of`; None where it checks none.
    """

    name: str
    function: CheckFunction
    parameters: tuple[str, ...]
    optional: tuple[str, ...] = ()
    quotes: Quotes | None = None

    def __call__(
        self, output: BaseModel, document: Document, parameters: Mapping[str, Any]
    ) -> Verdict:
        """Return the verdict: unscored without a required parameter, failed if the check raises.

        Of a check that judges field by field, it is that of the first field that fails. An async
        check gets an event loop of its own. Raises ConfigError for a result of another kind.
        """
        return self.on(output, document, parameters)[0]

    def on(
        self, output: BaseModel, document: Document, parameters: Mapping[str, Any]
    ) -> tuple[Verdict, ...]:
        """Return all verdicts, one for each field that fails; see `__call__`."""
        verdict = self.unscored(parameters)
        if verdict is not None:
            return (verdict,)
        result = self.run(output, document, parameters)
        if inspect.isawaitable(result):
            result = asyncio.run(awaited(result))
        return self.verdicts(result, output)

    @cached_property
    def is_async(self) -> bool:
        """True if a call of the function only makes a coroutine."""
        return inspect.iscoroutinefunction(self.function)

    def unscored(self, parameters: Mapping[str, Any]) -> Verdict | None:
        """Return the unscored verdict if a required parameter is missing, else None."""
        for name in self.parameters:
            if name not in parameters:
                return Verdict(self.name, None, f"not scored: no `{name}` was given")
        return None

    def run(
        self, output: BaseModel, document: Document, parameters: Mapping[str, Any]
    ) -> Any:
        """Call the function; return its result, which may have to be awaited, or `Raised`."""
        arguments = {name: parameters[name] for name in self.parameters}
        for name in self.optional:
            if name in parameters:
                arguments[name] = parameters[name]
        try:
            return self.function(output, document, **arguments)
        except Exception as error:  # noqa: BLE001 - project code must not stop a run
            return Raised(error)

    def verdicts(self, result: Any, output: BaseModel) -> tuple[Verdict, ...]:
        """Return the verdicts of a result: one, or one for each field that fails.

        Raises ConfigError for a result that is no text, no mapping of fields to texts, and not
        None; also for a field that the output does not have.
        """
        if isinstance(result, Raised):
            reason = f"the check raised {describe_exception(result.error)}"
            return (Verdict(self.name, False, reason),)
        if result is None:
            return (Verdict(self.name, True),)
        if isinstance(result, str):
            return (Verdict(self.name, False, result or _NO_REASON),)
        if isinstance(result, Mapping):
            return self._verdicts_by_field(result, type(output))
        raise wrong_result(self.name, self.function, result)

    def _verdicts_by_field(
        self, reasons: Mapping[Any, Any], output_model: type[BaseModel]
    ) -> tuple[Verdict, ...]:
        """Return a failed verdict for each field with a reason, or one that passed."""
        failed: dict[str, Verdict] = {}
        for path, reason in reasons.items():
            if reason is None:
                continue
            if not isinstance(reason, str) or not isinstance(path, str):
                raise wrong_result(self.name, self.function, reasons)
            # A path such as `items[2].price` is about the field `items`.
            name = _END_OF_FIELD.split(path, maxsplit=1)[0]
            if name not in output_model.model_fields:
                raise wrong_field(self.name, self.function, name, output_model)
            verdict = Verdict(self.name, False, reason or _NO_REASON, field=name)
            failed.setdefault(name, verdict)
        return tuple(failed.values()) or (Verdict(self.name, True),)


async def awaited(result: Awaitable[Any]) -> Any:
    """Return an async check's result, or `Raised`."""
    try:
        return await result
    except Exception as error:  # noqa: BLE001 - project code must not stop a run
        return Raised(error)


def check(
    name: str, *, quotes: Quotes | None = None
) -> Callable[[AnyCheckFunction], Check]:
    """Make a Check of a function `(output, document, *, parameter, …) -> reason or None`.

    A function that judges field by field returns a mapping of fields to reasons. It may be
    `async def`. `quotes` takes an output as plain JSON data and yields the path and the words of
    each quotation in it: an accepted outcome has their places. Raises ConfigError for a function
    that cannot be called like that, or that returns something else.
    """
    if not isinstance(name, str):
        raise Misuse(
            'a check needs a name: write `@check("name")` above the function, not `@check`'
        )

    def wrap(function: AnyCheckFunction) -> Check:
        needed, optional = step_parameters(name, function)
        refuse_wrong_returns(name, function)
        _made.add(name)
        return Check(name, cast("CheckFunction", function), needed, optional, quotes)

    return wrap


@check("label")
def label_is_allowed(
    output: BaseModel, _: Document, *, labels: Sequence[str]
) -> str | None:
    """Require that the output's `label` is one of the allowed labels."""
    label = getattr(output, "label", None)
    if label in labels:
        return None
    return f"{label!r} is not one of {', '.join(labels)}"


def quoted_evidence(data: Any) -> Iterator[tuple[str, str]]:
    """Yield the output's `evidence`, as `evidence_is_quoted` reads it."""
    evidence = data.get("evidence") if isinstance(data, dict) else None
    if evidence:
        yield "evidence", str(evidence)


def quotes_of_fields(data: Any) -> Iterator[tuple[str, str]]:
    """Yield the quote of each `{value, quote}` pair with a value."""
    for name, value, quote in quoted_fields(data):
        if value is not None and value != "" and quote:
            yield name, str(quote)


@check("grounding", quotes=quoted_evidence)
def evidence_is_quoted(output: BaseModel, document: Document) -> str | None:
    """Require that the output's `evidence` occurs in the document.

    White space, case and small copying errors are ignored.
    """
    evidence = getattr(output, "evidence", "") or ""
    return _quote_error("evidence", str(evidence), document)


@check("grounding", quotes=quotes_of_fields)
def fields_are_quoted(output: BaseModel, document: Document) -> str | None:
    """Require for each value a quotation that occurs in the document and contains the value."""
    for name, value, quote in quoted_fields(output.model_dump(mode="json")):
        if value is None or value == "":
            continue
        if not quote:
            return f"`{name}` has a value but no quotation"
        reason = _quote_error(name, quote, document)
        if reason:
            return reason
        if not _contains_value(quote, value):
            return f"`{name}`: the quotation does not hold the value {value!r}"
    return None


@check("grounding", quotes=quotes_of_fields)
def each_field_is_quoted(
    output: BaseModel, document: Document
) -> Mapping[str, str | None]:
    """Require what `fields_are_quoted` does, field by field: the fields that pass are kept."""
    reasons: dict[str, str | None] = {}
    for name, value, quote in quoted_fields(output.model_dump(mode="json")):
        field = _END_OF_FIELD.split(name, maxsplit=1)[0]
        if reasons.get(field) is None:
            reasons[field] = _quotation_fault(name, value, quote, document)
    return reasons


def _quotation_fault(
    name: str, value: Any, quote: str | None, document: Document
) -> str | None:
    """Return why a value is not shown by its quotation, or None."""
    if value is None or value == "":
        return None
    if not quote:
        return f"`{name}` has a value but no quotation"
    reason = _quote_error(name, quote, document)
    if reason:
        return reason
    if not _contains_value(quote, value):
        return f"`{name}`: the quotation does not hold the value {value!r}"
    return None


def taken_from_the_document(*fields: str) -> Check:
    """Return a check that the values of these fields, at any depth, occur in the document.

    As in `evidence_is_quoted`, white space, case and small copying errors are ignored.
    """

    def taken(output: BaseModel, document: Document) -> str | None:
        data = output.model_dump(mode="json")
        for path, value in named_texts(data, frozenset(fields)):
            reason = _quote_error(path, value, document)
            if reason:
                return reason
        return None

    names = frozenset(fields)
    return check("grounding", quotes=lambda data: named_texts(data, names))(taken)


@check("grounding")
def numbers_are_in_the_document(output: BaseModel, document: Document) -> str | None:
    """Require that each number in the output (amount, date, order) is in the document too.

    The document may write it in digits of any script, with any separators, or in words.
    """
    known = numbers_of(document.text, document.language)
    for text in _texts(output.model_dump(mode="json")):
        number = missing_number(text, known)
        if number is not None:
            return f"has a number that the document does not have: {number}"
    return None


@check("placeholders")
def no_placeholders(output: BaseModel, document: Document) -> str | None:
    """Reject a placeholder such as `[Your Name]` or `{{ name }}` that is not in the document."""
    for text in _texts(output.model_dump(mode="json")):
        for placeholder in _PLACEHOLDER.findall(text):
            if placeholder not in document.text:
                return f"left a placeholder: {placeholder}"
    return None


@check("language")
def same_language(output: BaseModel, document: Document) -> str | None:
    """Require the document's language in the output, where both languages are detected."""
    from tierwise.text.language import detect

    text = " ".join(_texts(output.model_dump(mode="json")))
    language = detect(text)
    if language is None or document.language is None or language == document.language:
        return None
    return f"answers in '{language}', the document is in '{document.language}'"


def at_most_words(field: str) -> Check:
    """Return a check that a text field has 1 to `max_words` words (a parameter of the step)."""

    def length(output: BaseModel, _: Document, *, max_words: int) -> str | None:
        text = str(getattr(output, field) or "")
        words = len(text.split())
        if words == 0:
            return f"`{field}` is empty"
        if words > max_words:
            return f"`{field}` has {words} words, more than {max_words}"
        return None

    return check("length")(length)


def quoted_fields(
    data: Any, name: str = ""
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the path, value and quote of each `{value, quote}` pair in an output."""
    if isinstance(data, dict) and set(data) == {"value", "quote"}:
        yield name, data["value"], data["quote"]
    elif isinstance(data, dict):
        for key, item in data.items():
            path = f"{name}.{key}".lstrip(".")
            yield from quoted_fields(item, path)
    elif isinstance(data, list):
        for position, item in enumerate(data, 1):
            yield from quoted_fields(item, f"{name}[{position}]")


def named_texts(
    data: Any, names: frozenset[str], parent: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the path and text of each non-empty text under one of these names."""
    for key, path, item in _items(data, parent):
        if key in names and isinstance(item, str) and item:
            yield path, item
        else:
            yield from named_texts(item, names, path)


def _items(data: Any, parent: str) -> Iterator[tuple[Any, str, Any]]:
    """Yield the key, path and value of each item of an object or list."""
    if isinstance(data, dict):
        for key, item in data.items():
            yield key, f"{parent}.{key}".lstrip("."), item
    elif isinstance(data, list):
        for position, item in enumerate(data, 1):
            yield position, f"{parent}[{position}]", item


def _texts(data: Any) -> Iterator[str]:
    """Yield all texts in an output, at any depth."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict):
        for item in data.values():
            yield from _texts(item)
    elif isinstance(data, list):
        for item in data:
            yield from _texts(item)


def _quote_error(name: str, quote: str, document: Document) -> str | None:
    """Return the reason why a quotation is not accepted, or None."""
    wanted = squeezed(quote).strip("\"'.")
    text = squeezed(document.text)
    if not wanted:
        return f"`{name}` quotes nothing"
    if wanted in text:
        return None
    if len(wanted) >= LONG_QUOTE and _occurs_with_typos(wanted, text):
        return None
    return f"`{name}` quotes words that are not in the document: {quote[:80]!r}"


def _occurs_with_typos(quote: str, text: str) -> bool:
    """Return True if a text has a long quotation: typos are allowed, other numbers are not."""
    from rapidfuzz.fuzz import partial_ratio_alignment

    match = partial_ratio_alignment(quote, text, score_cutoff=SAME_WORDS)
    # With a quotation longer than the text, the match is the text in the quotation.
    if match is None or len(quote) > len(text):
        return False
    start = max(0, match.dest_start - CONTEXT)
    end = match.dest_end + CONTEXT
    return has_numbers(text[start:end], quote)


def _contains_value(quote: str, value: Any) -> bool:
    """Return True if a quotation contains a value: typos are allowed, other numbers are not."""
    from rapidfuzz.fuzz import partial_ratio, ratio

    wanted = plain_digits(squeezed(str(value)))
    words = plain_digits(squeezed(quote))
    if len(wanted) <= len(words):
        similarity = partial_ratio(wanted, words)
    else:
        # A partial match would accept a quotation of one letter for any value with that letter.
        similarity = ratio(wanted, words)
    return similarity >= _SAME_VALUE and has_numbers(words, wanted)


def has_numbers(text: str, wanted: str) -> bool:
    """Return True if a text has all numbers of another, with the same or other separators.

    The first comparison is of the digits between separators, the second of whole numbers, so that
    2140 equals 2,140.
    """
    if set(_DIGITS.findall(wanted)) <= set(_DIGITS.findall(text)):
        return True
    return _whole_numbers(wanted) <= _whole_numbers(text)


def _whole_numbers(text: str) -> set[str]:
    """Return the numbers of a text without their separators."""
    return {re.sub(r"\D", "", number) for number in _NUMBER.findall(text)}


def squeezed(text: str) -> str:
    """Return a text for comparison: no white space, one case, one kind of quotes and dashes."""
    normalized = unicodedata.normalize("NFKC", text)
    letters = normalized.translate(_ALIKE).casefold()
    return "".join(letters.split())
