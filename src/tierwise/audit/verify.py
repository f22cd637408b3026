"""Whether a file, the ledger and its seals still agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tierwise.audit.files import Line, TrailFile, read_trail
from tierwise.ledger.people.chain import START, Block, Scope, Seal, digest, linked


class Sealed(Protocol):
    """What is asked of a ledger: `ledger.trail`."""

    def seals(self) -> Iterator[Seal]:
        """All seals, in order."""
        ...

    def blocks(self, scope: Scope = ...) -> Iterator[Block]:
        """What is on record."""
        ...

    def altered_texts(self, scope: Scope = ...) -> Iterator[str]:
        """Texts that do not fit their hashes."""
        ...

    def altered_labels(self) -> Iterator[str]:
        """Audits whose label is not the one on record."""
        ...


@dataclass
class Report:
    """What was looked at, what is wrong, and what nothing vouches for."""

    records: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify_file(path: Path, ledger: Sealed | None) -> Report:
    """Check a file's own chain, then against the ledger where there is one. Raises Misuse when it is no trail."""
    file = read_trail(path)
    report = Report(file.records, list(file.faults))
    if ledger is not None:
        seals = _seals(ledger, report)
        _same_ledger(file, seals, report)
        held = dict(file.blocks)
        for block in ledger.blocks(file.scope):
            lines = held.pop(block.name, None)
            if lines is not None:
                _compare(block, lines, seals, report)
            elif block.seal and block.seal.number <= file.sealed:
                report.faults.append(f"{block.name} is missing from the file")
        report.faults += (
            f"line {lines[0].number}: the ledger has no {name}" for name, lines in held.items()
        )
    return report


def verify_ledger(ledger: Sealed) -> Report:
    """Check all rows of a ledger against its seals, and the texts that it keeps against their hashes."""
    report = Report()
    seals = _seals(ledger, report)
    gone = {seal.block for seal in seals.values()}
    for block in ledger.blocks():
        gone.discard(block.name)
        digests = [digest(record) for record in block.records]
        report.records += len(digests)
        _check(block, digests, seals, report)
    report.faults += (f"{name} was sealed, and is no longer in the ledger" for name in sorted(gone))
    report.faults += ledger.altered_texts()
    report.faults += ledger.altered_labels()
    return report


def _seals(ledger: Sealed, report: Report) -> dict[int, Seal]:
    """The ledger's seals by number; what is wrong with their own chain goes into the report."""
    previous = START
    seals = dict[int, Seal]()
    for seal in ledger.seals():
        name = f"seal {seal.number} ({seal.kind} {seal.subject})"
        if not seal.holds:
            report.faults.append(f"{name} was changed in the ledger")
        if seal.previous != previous:
            report.faults.append(
                f"{name} does not follow the one before: a seal was removed, added or changed"
            )
        previous = seal.hash
        seals[seal.number] = seal
    return seals


def _same_ledger(file: TrailFile, seals: dict[int, Seal], report: Report) -> None:
    """The newest seal at the time of writing has to be there still: it stands for all before it."""
    if file.end and file.sealed:
        seal = seals.get(file.sealed)
        if seal is None or seal.hash != file.end.get("seal"):
            report.faults.append(f"seal {file.sealed} is not what it was when the file was written")


def _check(block: Block, digests: Sequence[str], seals: dict[int, Seal], report: Report) -> bool:
    """Whether the ledger's records are what was sealed."""
    fault = _broken(block, digests) if block.seal else _unsealed(block, seals)
    if fault:
        report.faults.append(fault)
    elif block.seal is None:
        since = "has not ended" if block.ended is None else "ended before the ledger had seals"
        report.notes.append(f"{block.name} {since}: no seal vouches for its {len(digests)} records")
    return fault is None


def _unsealed(block: Block, seals: dict[int, Seal]) -> str | None:
    """Why it is wrong that a block has no seal, or None where it can have none."""
    first = min((seal.sealed_at for seal in seals.values()), default=None)
    if block.ended is None or first is None or block.ended < first:
        return None
    return f"{block.name} has no seal: it was removed, or never made"


def _broken(block: Block, digests: Sequence[str]) -> str | None:
    """How a block of the ledger departs from its seal."""
    if block.seal is None:
        return None
    if len(digests) != block.seal.records:
        lives = (
            "; its process was taken for gone, perhaps it goes on"
            if block.seal.kind == "crash"
            else ""
        )
        return f"{block.name}: the ledger has {len(digests)} records, {block.seal.records} were sealed{lives}"
    if _head(digests) != block.seal.head:
        return f"{block.name}: a record in the ledger was changed after it was sealed"
    return None


def _compare(block: Block, lines: Sequence[Line], seals: dict[int, Seal], report: Report) -> None:
    """A block of the file with the same of the ledger, and the ledger's with its seal."""
    digests = [digest(record) for record in block.records]
    sound = _check(block, digests, seals, report)
    if [line.digest for line in lines] == digests:
        return
    differs = (
        line.number for line, kept in zip(lines, digests, strict=False) if line.digest != kept
    )
    place = f"line {next(differs, lines[-1].number)}"
    if not sound and block.seal and _head([line.digest for line in lines]) == block.seal.head:
        report.faults.append(
            f"{place}: the file has what was sealed, the ledger has something else"
        )
    else:
        report.faults.append(
            f"{place}: not what the ledger has; changed, or written before the run had ended"
        )


def _head(digests: Sequence[str]) -> str:
    head = START
    for each in digests:
        head = linked(head, each)
    return head
