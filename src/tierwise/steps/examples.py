"""Labelled examples: the file format of golden sets and few-shot examples, and their selector.

A row has `id`, `text` and the fields of a right answer, directly or under `expected`. It may have
what else production knows of the document: `sensitivity`, `language`, `metadata`, and `outcomes`,
the answers of earlier steps, and `page_file`, the picture or PDF whose pages a step shows, as a
path from the golden file. In a CSV file the other columns are the fields, and a row without an
`id` is named after its place.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError, Misuse, unknown_name
from tierwise.records import (
    SENSITIVITIES,
    Document,
    Outcome,
    PageFile,
    Sensitivity,
    canonical_hash,
    text_hash,
)
from tierwise.steps.teacher_mark import MARK, teacher_of
from tierwise.text.neighbours import Neighbours
from tierwise.text.rows import Row, read_rows
from tierwise.text.vectors import Encoder

FEWEST = 5  # fewer examples say nothing about anything
# fields of a row that say something about the document
_OF_DOCUMENT = ("language", "metadata", "outcomes")
# fields of a row that are no part of the right answer
_NOT_EXPECTED = (
    *("id", "text", "sensitivity", "expected"),
    *_OF_DOCUMENT,
    "difficulty",
    "page_file",
    MARK,
)


@dataclass(frozen=True, slots=True)
class Example:
    """A document together with the fields of a right answer.

    `outcomes` maps earlier steps to their answers; None where the row says nothing about them.
    `line` is the row's place in its file, 0 if it is in none.
    """

    id: str
    text: str = field(repr=False)
    expected: Mapping[str, Any] = field(repr=False)
    sensitivity: Sensitivity = "internal"
    language: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    outcomes: Mapping[str, Any] | None = field(default=None, repr=False)
    # for a step that shows the pages: its `text_hash` is decided by the finished text
    page_file: PageFile | None = field(default=None, repr=False)
    # the model whose label it is, where no person gave it; see `teacher_mark`
    teacher: str | None = field(default=None, compare=False)
    # the person who gave the label, where the row says it
    reviewer: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    def document(self) -> Document:
        """Return the example as production has it after reading and its earlier steps.

        The language is detected where the row does not say it.
        """
        text = self.text.replace("\r\n", "\n").strip()
        outcomes = {
            step: Outcome(
                step=step,
                status="accepted",
                value=value,
                sensitivity=self.sensitivity,
            )
            for step, value in (self.outcomes or {}).items()
        }
        page_file = None
        if self.page_file is not None:
            page_file = replace(self.page_file, text_hash=text_hash(text))
        return Document(
            id=self.id,
            text=text,
            sensitivity=self.sensitivity,
            language=self.language or _language(text),
            metadata=self.metadata,
            outcomes=outcomes,
            page_file=page_file,
        )

    @property
    def identity(self) -> list[str]:
        """Everything that an answer and its rightness depend on, as texts."""
        parts = [self.id, self.text, canonical_hash(self.expected)]
        # left out where empty: the hash of such a row is that of its text and answer alone
        if self.language or self.metadata or self.outcomes:
            known = [self.language, dict(self.metadata), dict(self.outcomes or {})]
            parts.append(canonical_hash(known))
        if self.page_file is not None:
            parts.append(self.page_file.sha256)
        return parts


# returns what is wrong with an example, or None
FaultOf = Callable[[Example], str | None]


@dataclass(frozen=True)
class GoldenSet:
    """The examples of one file."""

    path: Path
    examples: tuple[Example, ...]

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of all examples, independent of their order."""
        return canonical_hash(sorted(example.identity for example in self.examples))


class ExampleSelector:
    """The few-shot examples of one step, and two ways to pick some for a prompt."""

    def __init__(
        self, examples: GoldenSet, encoders: Mapping[str, Encoder] | None = None
    ) -> None:
        """Read the examples; `encoders` are embedders by their names, which embed them all.

        Raises what an encoder raises.
        """
        # by the embedder's name, empty for TF-IDF
        self._neighbours: dict[str, Neighbours[Example]] = {
            "": Neighbours(examples.examples)
        }
        for name, encoder in (encoders or {}).items():
            self._neighbours[name] = Neighbours(examples.examples, encoder)
        # the id decides among equal lengths, so that the order of the file does not count
        self._by_length = sorted(examples.examples, key=lambda e: (len(e.text), e.id))
        self.hash = examples.hash

    def nearest(
        self, document: Document, k: int, embedder: str = ""
    ) -> tuple[Example, ...]:
        """Return up to `k` examples, the nearest last; never the document itself.

        The nearest by TF-IDF, or by the vectors of an embedder.
        """
        neighbours = self._neighbours[embedder]
        return neighbours.nearest(document.text, k, sensitivity=document.sensitivity)

    def fixed(self, k: int, field: str | None) -> tuple[Example, ...]:
        """Return the `k` shortest examples for each value of an answer's field.

        They are the same for every document: first the shortest of each value, then the second
        shortest, and so on. Without a field, all examples count as of one value.
        """
        groups: defaultdict[str, list[Example]] = defaultdict(list)
        for example in self._by_length:
            value = str(example.expected.get(field or ""))
            groups[value].append(example)
        selected = []
        for place in range(k):
            # by the value, so that the order of the file does not count
            for _, group in sorted(groups.items()):
                selected += group[place : place + 1]  # empty where a group has no more
        return tuple(selected)


def load_golden(
    path: Path,
    *,
    at_least: int = FEWEST,
    allowed: Mapping[str, Collection[Any]] | None = None,
    fault_of: FaultOf | None = None,
) -> GoldenSet:
    """Read a JSON Lines or CSV file of examples.

    `allowed` names fields that may only take certain values; `fault_of` says what else is wrong
    with an example. Raises Misuse without the file, and ConfigError with file and line for a row
    that is damaged, repeated or not allowed.
    """
    if not path.exists():
        raise Misuse(
            f"{path} is missing: a golden set has one line of JSON an example, "
            "with id, text and the right answer"
        )
    examples, faults = read_golden(
        path, at_least=at_least, allowed=allowed, fault_of=fault_of
    )
    for fault in faults:
        raise fault
    return GoldenSet(path, tuple(examples.values()))


def read_golden(
    path: Path,
    *,
    at_least: int = FEWEST,
    allowed: Mapping[str, Collection[Any]] | None = None,
    fault_of: FaultOf | None = None,
) -> tuple[dict[int, Example], list[ConfigError]]:
    """Return the examples of a file by their lines, and all its faults; see `load_golden`."""
    examples: dict[int, Example] = {}
    lines: dict[str, int] = {}  # of the ids
    faults: list[ConfigError] = []
    for line, row in read_rows(path):
        if isinstance(row, ConfigError):
            faults.append(row)
            continue
        example = _example(row, path, line)
        if isinstance(example, ConfigError):
            faults.append(example)
            continue
        if example.id in lines:
            message = f"the id '{example.id}' is already on line {lines[example.id]}"
            faults.append(ConfigError(message, path=path, line=line))
        faults += [
            ConfigError(message, path=path, line=line)
            for message in _faults(example, allowed or {}, fault_of)
        ]
        lines[example.id] = line
        examples[line] = example
    if len(examples) < at_least:
        message = f"{len(examples)} examples are too few to prove anything; give at least {at_least}"
        faults.append(ConfigError(message, path=path))
    return examples, faults


def _faults(
    example: Example,
    allowed: Mapping[str, Collection[Any]],
    fault_of: FaultOf | None,
) -> Iterator[str]:
    """Yield what is wrong with an example: a message for each value that is not allowed, or one."""
    # the project's measure is not tried on a row that is wrong in itself: it might raise
    not_allowed = list(_not_allowed(example, allowed))
    yield from not_allowed
    if not_allowed or fault_of is None:
        return
    fault = fault_of(example)
    if fault:
        yield fault


def _not_allowed(
    example: Example, allowed: Mapping[str, Collection[Any]]
) -> Iterator[str]:
    """Yield a message for each field that is missing, or whose value is not an allowed one."""
    for name, values in allowed.items():
        if name not in example.expected:
            yield missing_answer(name, example)
        elif example.expected[name] not in values:
            yield unknown_name(name, str(example.expected[name]), map(str, values))


def missing_answer(name: str, example: Example) -> str:
    """Return the message for a right answer without a field."""
    present = ", ".join(example.expected) or "nothing"
    return f"the right answer has no '{name}' (it has {present}); write it into the row"


def _example(row: Row, path: Path, line: int) -> Example | ConfigError:
    try:
        return _parsed(row, line, path.parent)
    except _Fault as fault:
        return ConfigError(str(fault), path=path, line=line)


class _Fault(Exception):
    """What is wrong with a row."""


def _parsed(row: Row, line: int, folder: Path) -> Example:
    """Return a row as an example; its page file is below the folder. Raises _Fault."""
    for name in ("id", "text"):
        if name not in row:
            raise _Fault(f"not an example with id and text: '{name}' is missing")
    text = row["text"]
    sensitivity = row.get("sensitivity", "internal")
    is_text = isinstance(text, str) and text.strip()
    if sensitivity not in SENSITIVITIES or not is_text:
        raise _Fault("a text is empty, or its sensitivity is not a known one")
    # a CSV file has the column for every row, so it may be empty
    expected = row.get("expected")
    if expected in (None, ""):  # without that field, the right answer is all the others
        expected = {
            name: value for name, value in row.items() if name not in _NOT_EXPECTED
        }
    if not isinstance(expected, Mapping):
        raise _Fault(
            f"`expected` must be an object with the fields of a right answer: {expected!r}"
        )
    return Example(
        id=str(row["id"]),
        text=text,
        expected=expected,
        sensitivity=sensitivity,
        language=_given_language(row),
        metadata=_given_metadata(row),
        outcomes=_given_outcomes(row),
        page_file=_given_page_file(row, folder),
        teacher=teacher_of(row),
        reviewer=str(row.get("reviewer") or row.get("by") or ""),
        line=line,
    )


def _given_page_file(row: Row, folder: Path) -> PageFile | None:
    """Return the file whose pages are shown: its path, or `{"path": …, "pages": 3}`."""
    given = row.get("page_file")
    if given is None or given == "":
        return None
    if isinstance(given, str):
        given = {"path": given}
    path = given.get("path") if isinstance(given, Mapping) else None
    pages = given.get("pages", 1) if isinstance(given, Mapping) else None
    if not isinstance(path, str) or not isinstance(pages, int) or pages < 1:
        raise _Fault(
            '`page_file` is the path of a picture or PDF, or `{"path": …, "pages": 3}` '
            f"(found {given!r})"
        )
    full = (folder / path).absolute()
    try:
        digest = hashlib.sha256(full.read_bytes()).hexdigest()
    except OSError as error:
        raise _Fault(f"`page_file`: {path}: {error.strerror}") from None
    return PageFile(str(full), digest, pages, text_hash="")


def _given_language(row: Row) -> str | None:
    language = row.get("language")
    if language is None or language == "":
        return None
    if not isinstance(language, str):
        raise _Fault(
            f"`language` is the document's, a code such as 'de' (found {language!r}); "
            "a right answer of that name goes under `expected`"
        )
    return language


def _given_metadata(row: Row) -> dict[str, str]:
    """Return a row's metadata, values that are no texts as JSON: reading gives texts alone."""
    metadata = _object(row, "metadata")
    if metadata is None:
        return {}
    texts = {}
    for name, value in metadata.items():
        is_text = isinstance(value, str)
        texts[name] = value if is_text else json.dumps(value, ensure_ascii=False)
    return texts


def _given_outcomes(row: Row) -> dict[str, Any] | None:
    outcomes = _object(row, "outcomes")
    for step, answer in (outcomes or {}).items():
        if not isinstance(answer, Mapping):
            raise _Fault(
                f"the outcome of '{step}' must be an object with the fields of its answer "
                f"(found {answer!r})"
            )
    return outcomes


def _object(row: Row, name: str) -> dict[str, Any] | None:
    """Return a field that holds an object, in a CSV file as JSON; None where it is missing."""
    value = row.get(name)
    if value is None or value == "":
        return None
    if isinstance(value, str):
        # what is no JSON is reported with the other values that are no objects
        with suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, dict):
        raise _Fault(
            f"`{name}` is the document's, and must be an object (found {value!r}); "
            "a right answer of that name goes under `expected`"
        )
    return value


@cache
def _language(text: str) -> str | None:
    from tierwise.text.language import detect

    return detect(text)
