"""Labelled examples: the file format of golden sets and few-shot examples, and their selector.

A row has `id`, `text`, optionally `sensitivity`, and the fields of a right answer. In a CSV file
the other columns are the fields, and a row without an `id` is named after its place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError, Misuse, unknown_name
from tierwise.records import SENSITIVITIES, Document, Sensitivity, canonical_hash
from tierwise.text.neighbours import Neighbours
from tierwise.text.rows import Row, read_rows

FEWEST = 5  # fewer examples say nothing about anything
_NOT_EXPECTED = ("difficulty",)  # fields of a row that are no part of the right answer


@dataclass(frozen=True, slots=True)
class Example:
    """A document together with the fields of a right answer."""

    id: str
    text: str = field(repr=False)
    expected: Mapping[str, Any] = field(repr=False)
    sensitivity: Sensitivity = "internal"

    def document(self) -> Document:
        """Return the example as a document of its own."""
        return Document(id=self.id, text=self.text, sensitivity=self.sensitivity)


@dataclass(frozen=True)
class GoldenSet:
    """The examples of one file."""

    path: Path
    examples: tuple[Example, ...]

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of all examples, independent of their order."""
        rows = [[e.id, e.text, canonical_hash(e.expected)] for e in self.examples]
        return canonical_hash(sorted(rows))


class ExampleSelector:
    """The few-shot examples of one step, and two ways to pick some for a prompt."""

    def __init__(self, examples: GoldenSet) -> None:
        self._neighbours: Neighbours[Example] = Neighbours(examples.examples)
        self._by_length = sorted(examples.examples, key=lambda e: (len(e.text), e.id))
        self.hash = examples.hash

    def nearest(self, document: Document, k: int) -> tuple[Example, ...]:
        """Return up to `k` examples, the nearest last; never the document itself."""
        return self._neighbours.nearest(document.text, k)

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
            for _, group in sorted(groups.items()):
                selected += group[place : place + 1]  # empty where a group has no more
        return tuple(selected)


def load_golden(
    path: Path,
    *,
    at_least: int = FEWEST,
    allowed: Mapping[str, Collection[Any]] | None = None,
) -> GoldenSet:
    """Read a JSON Lines or CSV file of examples.

    `allowed` names fields that may only take certain values. Raises Misuse without the file, and
    ConfigError with file and line for a row that is damaged, repeated or not allowed.
    """
    if not path.exists():
        raise Misuse(
            f"{path} is missing: a golden set has one line of JSON an example, "
            "with id, text and the right answer"
        )
    examples, faults = read_golden(path, at_least=at_least, allowed=allowed)
    for fault in faults:
        raise fault
    return GoldenSet(path, tuple(examples.values()))


def read_golden(
    path: Path,
    *,
    at_least: int = FEWEST,
    allowed: Mapping[str, Collection[Any]] | None = None,
) -> tuple[dict[int, Example], list[ConfigError]]:
    """Return the examples of a file by their lines, and all its faults; see `load_golden`."""
    examples: dict[int, Example] = {}
    lines: dict[str, int] = {}  # of the ids
    faults: list[ConfigError] = []
    for line, row in read_rows(path):
        example = row if isinstance(row, ConfigError) else _example(row, path, line)
        if isinstance(example, ConfigError):
            faults.append(example)
            continue
        if example.id in lines:
            message = f"the id '{example.id}' is already on line {lines[example.id]}"
            faults.append(ConfigError(message, path=path, line=line))
        faults += [
            ConfigError(message, path=path, line=line)
            for message in _not_allowed(example, allowed or {})
        ]
        lines[example.id] = line
        examples[line] = example
    if len(examples) < at_least:
        message = f"{len(examples)} examples are too few to prove anything; give at least {at_least}"
        faults.append(ConfigError(message, path=path))
    return examples, faults


def _not_allowed(
    example: Example, allowed: Mapping[str, Collection[Any]]
) -> Iterator[str]:
    """Yield a message for each field whose value is not an allowed one."""
    for name, values in allowed.items():
        value = example.expected.get(name)
        if value not in values:
            yield unknown_name(name, str(value), map(str, values))


def _example(row: Row, path: Path, line: int) -> Example | ConfigError:
    for name in ("id", "text"):
        if name not in row:
            message = f"not an example with id and text: '{name}' is missing"
            return ConfigError(message, path=path, line=line)
    text = row["text"]
    sensitivity = row.get("sensitivity", "internal")
    if (
        sensitivity not in SENSITIVITIES
        or not isinstance(text, str)
        or not text.strip()
    ):
        message = "a text is empty, or its sensitivity is not a known one"
        return ConfigError(message, path=path, line=line)
    expected = row.get("expected")
    if not expected:  # without that field, the right answer is all the others
        own = ("id", "text", "sensitivity", "expected", *_NOT_EXPECTED)
        expected = {name: value for name, value in row.items() if name not in own}
    if not isinstance(expected, Mapping):
        message = f"`expected` must be an object with the fields of a right answer: {expected!r}"
        return ConfigError(message, path=path, line=line)
    return Example(str(row["id"]), text, expected, sensitivity)
