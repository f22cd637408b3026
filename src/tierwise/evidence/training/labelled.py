"""Labelled examples: read from a file, hashed, and split into parts that share no text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tierwise.errors import ConfigError, unknown_name
from tierwise.records import canonical_hash
from tierwise.text.hashing import hash_share
from tierwise.text.neighbours import T
from tierwise.text.rows import Row, read_rows
from tierwise.text.terms import normalised

LEAST = 20


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and the one label that a person gave it."""

    id: str
    text: str
    label: str


def load_labelled(
    path: Path, labels: Sequence[str] | None = None, *, at_least: int = LEAST
) -> tuple[Labelled, ...]:
    """Return the examples of a JSON Lines or CSV file with `id`, `text` and `label` (or `intent`).

    Other fields are ignored. A CSV row without an `id` is named after its place: `messages.csv#7`.
    Raises ConfigError, with file and line, for a row that is damaged, incomplete or repeated or
    has a label that is not in `labels`, and when there are fewer examples than `at_least`.
    """
    examples: list[Labelled] = []
    lines: dict[str, int] = {}  # of the ids
    for line, row in read_rows(path):
        if isinstance(row, ConfigError):
            raise row
        example = _example(row, labels, path, line)
        if example.id in lines:
            message = f"the id '{example.id}' is already on line {lines[example.id]}"
            raise ConfigError(message, path=path, line=line)
        lines[example.id] = line
        examples.append(example)
    if len(examples) < at_least:
        message = f"{len(examples)} examples are too few to learn from; label at least {at_least}"
        raise ConfigError(message, path=path)
    return tuple(examples)


def data_hash(examples: Iterable[Labelled]) -> str:
    """Return the SHA-256 (hex) of the texts and labels, independent of their order and ids."""
    pairs = [[example.text, example.label] for example in examples]
    return canonical_hash(sorted(pairs))


def split(
    examples: Iterable[T], share: float, salt: str = ""
) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """Return two parts: about `share` (0 to 1) of the examples, and the rest.

    The part depends on the hash of the salt and the text alone. So another example moves none of
    the others, and two examples with the same text are always on the same side.
    """
    first: list[T] = []
    second: list[T] = []
    for example in examples:
        # a number from 0 to 1, evenly spread over texts
        position = hash_share(salt, normalised(example.text))
        if position < share:
            first.append(example)
        else:
            second.append(example)
    return tuple(first), tuple(second)


def _example(row: Row, labels: Sequence[str] | None, path: Path, line: int) -> Labelled:
    if "label" not in row and "intent" in row:
        row = {**row, "label": row["intent"]}
    example = Labelled(
        id=_text_field(row, "id", path, line),
        text=_text_field(row, "text", path, line),
        label=_text_field(row, "label", path, line),
    )
    if labels is not None and example.label not in labels:
        raise ConfigError(
            unknown_name("label", example.label, labels), path=path, line=line
        )
    return example


def _text_field(row: Row, name: str, path: Path, line: int) -> str:
    value = row.get(name)
    if value is None:
        present = [key for key, given in row.items() if given is not None]
        found = ", ".join(present) or "nothing"
        message = f"has no '{name}'; found: {found}"
        raise ConfigError(message, path=path, line=line)
    if not isinstance(value, str) or not value.strip():
        message = f"'{name}' must be a text that is not empty (found {value!r})"
        raise ConfigError(message, path=path, line=line)
    return value
