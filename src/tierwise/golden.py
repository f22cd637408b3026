"""Golden sets: labelled examples that say what a right answer is, and others that a model may be shown.

`golden/<step>.jsonl` is measured on; `golden/<step>-examples.jsonl` is shown; `golden/<step>.yaml` holds the
parameters that both are for. A row has `id`, `text`, optionally `sensitivity`, and the fields of a right answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tierwise.catalog import Settings
from tierwise.errors import ConfigError, Misuse
from tierwise.learned import Neighbours
from tierwise.records import SENSITIVITIES, Document, Sensitivity, canonical_hash
from tierwise.yamlfile import read_yaml

FEWEST = 20  # fewer prove nothing worth writing down


@dataclass(frozen=True, slots=True)
class Example:
    """A document with what a right answer has."""

    id: str
    text: str
    expected: Mapping[str, Any]
    sensitivity: Sensitivity = "internal"

    def document(self) -> Document:
        """The example as a document of its own."""
        return Document(id=self.id, text=self.text, sensitivity=self.sensitivity)


class GoldenSettings(Settings):
    """`golden/<step>.yaml`: the step's parameters, as a flow gives them."""

    parameters: Mapping[str, Any] = {}


@dataclass(frozen=True)
class GoldenSet:
    """The examples of one file."""

    path: Path
    examples: tuple[Example, ...]

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of all examples, whatever their order."""
        return canonical_hash(sorted([e.id, e.text, canonical_hash(e.expected)] for e in self.examples))


class Teacher:
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
        return tuple(group[n] for n in range(k) for _, group in sorted(groups.items()) if n < len(group))


def load_golden(path: Path, *, at_least: int = FEWEST) -> GoldenSet:
    """Read a JSON Lines file of examples. Raises Misuse without the file, ConfigError with file and line."""
    if not path.exists():
        raise Misuse(f"{path} is missing: a golden set has a line of JSON with id, text and the right answer each")
    examples, faults = read_golden(path, at_least=at_least)
    for fault in faults:
        raise fault
    return GoldenSet(path, tuple(examples.values()))


def read_golden(path: Path, *, at_least: int = FEWEST) -> tuple[dict[int, Example], list[ConfigError]]:
    """The examples of a file by their lines, and all that is wrong with it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return {}, [ConfigError(f"cannot be read: {error}", path=path)]
    examples: dict[int, Example] = {}
    seen: dict[str, int] = {}
    faults: list[ConfigError] = []
    for line, text in enumerate(lines, 1):
        try:
            example = _example(text, path, line) if text.strip() else None
        except ConfigError as fault:
            faults.append(fault)
            continue
        if example is None:
            continue
        if example.id in seen:
            message = f"the id '{example.id}' stands in line {seen[example.id]} too"
            faults.append(ConfigError(message, path=path, line=line))
        seen[example.id] = line
        examples[line] = example
    if len(examples) < at_least:
        message = f"{len(examples)} examples are too few to prove anything; give at least {at_least}"
        faults.append(ConfigError(message, path=path))
    return examples, faults


def load_parameters(path: Path) -> dict[str, Any]:
    """The parameters in a `golden/<step>.yaml`; none where there is no such file."""
    return dict(read_yaml(path).validate(GoldenSettings).parameters) if path.exists() else {}


def _example(text: str, path: Path, line: int) -> Example:
    try:
        row = json.loads(text)
        example_id, body = str(row.pop("id")), row.pop("text")
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ConfigError(f"not a line of JSON with id and text: {error}", path=path, line=line) from None
    sensitivity = row.pop("sensitivity", "internal")
    if sensitivity not in SENSITIVITIES or not isinstance(body, str) or not body.strip():
        raise ConfigError("a text is empty, or its sensitivity is not a known one", path=path, line=line)
    expected = row.pop("expected", None) or {k: v for k, v in row.items() if k != "difficulty"}
    return Example(example_id, body, expected, sensitivity)
