"""Labelled examples: the file format of golden sets and few-shot examples, and the example selector.

A row has `id`, `text`, optionally `sensitivity`, and the fields of a right answer. In a CSV file the other columns are
the fields, and a row without an `id` is named after its place.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError, Misuse, unknown_name
from tierwise.records import SENSITIVITIES, Document, Sensitivity, canonical_hash
from tierwise.text.neighbours import Neighbours

FEWEST = 5  # fewer say nothing about anything


@dataclass(frozen=True, slots=True)
class Example:
    """A document with what a right answer has."""

    id: str
    text: str = field(repr=False)
    expected: Mapping[str, Any] = field(repr=False)
    sensitivity: Sensitivity = "internal"

    def document(self) -> Document:
        """The example as a document of its own."""
        return Document(id=self.id, text=self.text, sensitivity=self.sensitivity)


@dataclass(frozen=True)
class GoldenSet:
    """The examples of one file."""

    path: Path
    examples: tuple[Example, ...]

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of all examples, whatever their order."""
        return canonical_hash(
            sorted([e.id, e.text, canonical_hash(e.expected)] for e in self.examples)
        )


class ExampleSelector:
    """The examples that a model may be shown for one step."""

    def __init__(self, examples: GoldenSet) -> None:
        self._neighbours: Neighbours[Example] = Neighbours(examples.examples)
        self._by_length = sorted(examples.examples, key=lambda e: (len(e.text), e.id))
        self.hash = examples.hash

    def nearest(self, document: Document, k: int) -> tuple[Example, ...]:
        """Up to `k` examples, the nearest last; never the document itself."""
        return self._neighbours.nearest(document.text, k)

    def fixed(self, k: int, field: str | None) -> tuple[Example, ...]:
        """The `k` shortest examples for each value of an answer's field, in turn; the same for every document."""
        groups: dict[str, list[Example]] = {}
        for example in self._by_length:
            groups.setdefault(str(example.expected.get(field or "")), []).append(example)
        return tuple(
            group[n] for n in range(k) for _, group in sorted(groups.items()) if n < len(group)
        )


def load_golden(
    path: Path, *, at_least: int = FEWEST, allowed: Mapping[str, Collection[Any]] | None = None
) -> GoldenSet:
    """Read a JSON Lines or CSV file of examples. `allowed` names fields that may only take certain values.

    Raises Misuse without the file, ConfigError with file and line for what is damaged, repeated or not allowed.
    """
    if not path.exists():
        raise Misuse(
            f"{path} is missing: a golden set has a line of JSON with id, text and the right answer each"
        )
    examples, faults = read_golden(path, at_least=at_least, allowed=allowed)
    for fault in faults:
        raise fault
    return GoldenSet(path, tuple(examples.values()))


def read_golden(
    path: Path, *, at_least: int = FEWEST, allowed: Mapping[str, Collection[Any]] | None = None
) -> tuple[dict[int, Example], list[ConfigError]]:
    """The examples of a file by their lines, and all that is wrong with it: see `load_golden`."""
    examples: dict[int, Example] = {}
    seen: dict[str, int] = {}
    faults: list[ConfigError] = []
    for line, example in _rows(path):
        if isinstance(example, ConfigError):
            faults.append(example)
            continue
        if example.id in seen:
            message = f"the id '{example.id}' stands in line {seen[example.id]} too"
            faults.append(ConfigError(message, path=path, line=line))
        for name, values in (allowed or {}).items():
            if (value := example.expected.get(name)) not in values:
                faults.append(
                    ConfigError(
                        unknown_name(name, str(value), map(str, values)), path=path, line=line
                    )
                )
        seen[example.id] = line
        examples[line] = example
    if len(examples) < at_least:
        message = (
            f"{len(examples)} examples are too few to prove anything; give at least {at_least}"
        )
        faults.append(ConfigError(message, path=path))
    return examples, faults


def _rows(path: Path) -> Iterator[tuple[int, Example | ConfigError]]:
    """The examples of a file with their lines, and what is wrong with each other line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        yield 0, ConfigError(f"cannot be read: {error}; save it as UTF-8", path=path)
        return
    read = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    for line, row in read(path, text):
        yield line, row if isinstance(row, ConfigError) else _example(row, path, line)


def _example(row: Any, path: Path, line: int) -> Example | ConfigError:
    try:
        example_id = str(row.pop("id"))
        body = row.pop("text")
    except (AttributeError, KeyError, TypeError) as error:
        return ConfigError(f"not an example with id and text: {error}", path=path, line=line)
    sensitivity = row.pop("sensitivity", "internal")
    if sensitivity not in SENSITIVITIES or not isinstance(body, str) or not body.strip():
        return ConfigError(
            "a text is empty, or its sensitivity is not a known one", path=path, line=line
        )
    expected = row.pop("expected", None) or {k: v for k, v in row.items() if k != "difficulty"}
    return Example(example_id, body, expected, sensitivity)


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for line, raw in enumerate(text.split("\n"), 1):  # JSON may hold other line ends, unescaped
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
        except (
            ValueError,
            RecursionError,
        ) as error:  # also of numbers and nestings that are too long
            row = ConfigError(f"not a line of JSON with id and text: {error}", path=path, line=line)
        yield line, row


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    reader = csv.DictReader(StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for number, row in enumerate(reader, 1):
            line = reader.line_num
            fits = None not in row and None not in row.values()
            message = "has another number of columns than the first line"
            yield (
                line,
                {"id": f"{path.name}#{number}", **row}
                if fits
                else ConfigError(message, path=path, line=line),
            )
    except csv.Error as error:
        yield line, ConfigError(f"not valid CSV: {error}", path=path, line=line)
