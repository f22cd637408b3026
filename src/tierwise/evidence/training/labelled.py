"""Labelled examples: read from a file, hashed, and split into parts that share no text."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError, unknown_name
from tierwise.records import canonical_hash
from tierwise.text.neighbours import T
from tierwise.text.terms import normalised

LEAST = 20
_LABEL_COLUMNS = ("label", "intent")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and the one label that a person gave it."""

    id: str
    text: str
    label: str


def load_labelled(
    path: Path, labels: Sequence[str] | None = None, *, at_least: int = LEAST
) -> tuple[Labelled, ...]:
    """The examples of a JSON Lines file (`id`, `text`, `label`) or a CSV file (`text`, `label` or `intent`).

    Other fields are ignored. A CSV row without an `id` is called after its place: `messages.csv#7`.
    Raises ConfigError, with file and line, for what is missing, damaged, repeated, or not one of `labels`,
    and when there are fewer examples than `at_least`.
    """
    found: dict[str, tuple[int, Labelled]] = {}
    rows = _csv_rows if path.suffix.lower() == ".csv" else _json_rows
    for line, row in rows(path, _read(path)):
        example = _example(row, labels, path, line)
        if example.id in found:
            before = found[example.id][0]
            raise ConfigError(
                f"the id '{example.id}' is that of line {before} already", path=path, line=line
            )
        found[example.id] = line, example
    if len(found) < at_least:
        least = f"{len(found)} examples are not evidence; label at least {at_least}"
        raise ConfigError(least, path=path)
    return tuple(example for _, example in found.values())


def data_hash(examples: Iterable[Labelled]) -> str:
    """SHA-256 (hex) of the texts with their labels, in whatever order and under whatever ids."""
    return canonical_hash(sorted([example.text, example.label] for example in examples))


def split(
    examples: Iterable[T], share: float, salt: str = ""
) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """Two parts: about `share` (0 to 1) of the examples, and the rest.

    The part hangs on the hash of the salt and the text alone: another example moves none of the others,
    and two of the same text never stand on both sides.
    """
    first: list[T] = []
    second: list[T] = []
    for example in examples:
        digest = hashlib.sha256(
            f"{salt}\0{normalised(example.text)}".encode("utf-8", "surrogatepass")
        ).digest()
        (first if int.from_bytes(digest[:8], "big") < share * 2**64 else second).append(example)
    return tuple(first), tuple(second)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("this file of labelled examples is missing", path=path) from None
    except UnicodeDecodeError:
        raise ConfigError("it is not UTF-8; save it as UTF-8", path=path) from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error}", path=path) from None


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, raw in enumerate(text.split("\n"), 1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
        except ValueError as error:
            raise ConfigError(
                f"not valid JSON: {error}; each line holds one example", path=path, line=line
            ) from None
        if not isinstance(row, dict):
            raise ConfigError(
                'not an example; write {"id": …, "text": …, "label": …}', path=path, line=line
            )
        yield line, row


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(StringIO(text, newline=""), strict=True)
    line = 1
    try:
        columns = reader.fieldnames or []
        label = next((name for name in _LABEL_COLUMNS if name in columns), "label")
        line = reader.line_num + 1
        for number, row in enumerate(reader, 1):
            yield line, {"id": f"{path.name}#{number}", **row, "label": row.get(label)}
            line = reader.line_num + 1
    except csv.Error as error:
        raise ConfigError(f"not valid CSV: {error}", path=path, line=line) from None


def _example(
    row: Mapping[str, Any], labels: Sequence[str] | None, path: Path, line: int
) -> Labelled:
    values: list[str] = []
    for name in ("id", "text", "label"):
        value = row.get(name)
        if value is None:
            there = ", ".join(str(key) for key, given in row.items() if given is not None)
            raise ConfigError(f"has no '{name}'; found: {there or 'nothing'}", path=path, line=line)
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(
                f"'{name}' must be a text that is not empty (found {value!r})", path=path, line=line
            )
        values.append(value)
    example = Labelled(*values)
    if labels is not None and example.label not in labels:
        raise ConfigError(unknown_name("label", example.label, labels), path=path, line=line)
    return example
