"""The audit trail: one record for each run, attempt, outcome, decision, label and deletion, each tied to the last.

A record is a flat mapping. It holds no text of a document, a prompt or an answer, only SHA-256 hashes of them, so
texts can be deleted and the trail still holds. Its digest is the same in every format that it is written in.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tierwise.records import canonical_hash, text_hash

Record = Mapping[str, Any]
# a crash is the end of a run whose process is gone; the run's own end, if it comes all the same, counts instead
Kind = Literal["run", "crash", "decision", "label", "deletion"]
_NUMBERED = ("decision", "label", "deletion")
START = "0" * 64  # what the first record of a chain follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """The head of a chain of records, kept in the ledger; `previous` is the hash of the seal before."""

    number: int
    kind: Kind
    subject: str
    records: int
    head: str
    sealed_at: float
    previous: str
    hash: str

    @property
    def block(self) -> str:
        """The name of the block that it vouches for."""
        return f"{'run' if self.kind == 'crash' else self.kind} {self.subject}"

    @property
    def holds(self) -> bool:
        """True if the hash fits the seal's content."""
        return self.hash == seal_hash(
            self.kind,
            self.subject,
            self.records,
            self.head,
            sealed_at=self.sealed_at,
            previous=self.previous,
        )


@dataclass(frozen=True, slots=True)
class Block:
    """The records that one seal covers: a run's, or a decision, a label or a deletion alone.

    `ended` is in seconds since the epoch, None for a run that has not ended; such a one has no seal.
    """

    kind: Kind
    subject: str
    records: Iterable[Record]
    ended: float | None
    seal: Seal | None

    @property
    def name(self) -> str:
        """Such as `run 20261101-101500-ab12`."""
        return f"{self.kind} {self.subject}"


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of a ledger: one run, or all since a time (seconds since the epoch), or all."""

    run: str | None = None
    since: float | None = None


def cells(record: Record) -> dict[str, str]:
    """Return a record's non-empty fields as text, for a CSV file and for the digest."""
    return {name: text for name, value in record.items() if (text := _cell(value))}


def digest(record: Record) -> str:
    """SHA-256 (hex) of a record's content."""
    return canonical_hash(cells(record))


def linked(head: str, next_digest: str) -> str:
    """Return the head of a chain after one more record."""
    return text_hash(head + next_digest)


def chained(records: Iterable[Record]) -> tuple[int, str]:
    """Return the number of records, and the head of their chain."""
    number = 0
    head = START
    for number, record in enumerate(records, 1):  # noqa: B007 - the last number is the count
        head = linked(head, digest(record))
    return number, head


def seal_hash(
    kind: str, subject: str, records: int, head: str, *, sealed_at: float, previous: str
) -> str:
    """SHA-256 (hex) of a seal's content."""
    return canonical_hash([kind, subject, records, head, sealed_at, previous])


def block_name(record: Record) -> str:
    """Return a record's block, such as `run 20261101-101500-ab12` or `decision 3`."""
    kind = record.get("record")
    return (
        f"{kind} {record.get('number')}"
        if kind in _NUMBERED
        else f"run {record.get('run')}"
    )


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str
    )
