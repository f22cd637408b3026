"""The audit trail as a chain: each record's hash depends on the record before it.

There is one record for each run, attempt, outcome, decision, label, acknowledgement and deletion. A
record is a flat mapping. It has no text of a document, a prompt or an answer, only SHA-256 hashes of them, so texts
can be deleted and the trail remains valid. Its digest is the same in every file format.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tierwise.records import canonical_hash, text_hash

Record = Mapping[str, Any]
# A crash ends a run whose process is dead. If the run ends by itself after all, that end counts.
Kind = Literal[
    "run",
    "crash",
    "decision",
    "label",
    "comparison",
    "acknowledgement",
    "deletion",
    "repricing",
]
_NUMBERED = (
    "decision",
    "label",
    "comparison",
    "acknowledgement",
    "deletion",
    "repricing",
)
START = "0" * 64  # takes the place of the hash before the first record


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """The head of a chain of records, kept in the ledger.

    `previous` is the hash of the previous seal.
    """

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
        """The name of the block that it seals."""
        kind = self.kind
        # A crashed run has the same records as any other run.
        if kind == "crash":
            kind = "run"
        return f"{kind} {self.subject}"

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
    """The records that one seal covers: those of a run, or one decision, label or deletion."""

    kind: Kind
    subject: str
    records: Iterable[Record]
    ended: float | None  # seconds since the epoch; None for a run that has not ended
    seal: Seal | None  # a run that has not ended has none

    @property
    def name(self) -> str:
        """The block's name, such as `run 20261101-101500-ab12`."""
        return f"{self.kind} {self.subject}"


@dataclass(frozen=True, slots=True)
class Removal:
    """The removal of the rows of some runs, on record: by whom, when (epoch seconds) and why."""

    number: int
    runs: frozenset[str]
    by: str
    at: float
    why: str


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of a ledger: one run, or all since a time (seconds since the epoch), or all."""

    run: str | None = None
    since: float | None = None


def cells(record: Record) -> dict[str, str]:
    """Return a record's non-empty fields as text, for a CSV file and for the digest."""
    texts = {name: _cell(value) for name, value in record.items()}
    # In a CSV file an empty field looks like a missing one, and the digest must not differ.
    return {name: text for name, text in texts.items() if text}


def digest(record: Record) -> str:
    """Return the SHA-256 (hex) of a record's content."""
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
    """Return the SHA-256 (hex) of a seal's content."""
    return canonical_hash([kind, subject, records, head, sealed_at, previous])


def block_name(record: Record) -> str:
    """Return a record's block, such as `run 20261101-101500-ab12` or `decision 3`."""
    kind = record.get("record")
    if kind in _NUMBERED:
        return f"{kind} {record.get('number')}"
    return f"run {record.get('run')}"


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str
    )
