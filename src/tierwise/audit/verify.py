"""Verification of an audit trail: a file, the ledger and its seals have to agree."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tierwise.audit.files import TrailFile, TrailLine, read_trail
from tierwise.ledger.people.chain import (
    START,
    Block,
    Removal,
    Scope,
    Seal,
    digest,
    linked,
)
from tierwise.text.amounts import plural


class SealedLedger(Protocol):
    """The methods that verification needs of a ledger: `ledger.seals`."""

    def in_order(self) -> Iterator[Seal]:
        """Yield all seals, in order."""
        ...

    def blocks(self, scope: Scope = ...) -> Iterator[Block]:
        """Yield the records, block by block."""
        ...

    def removals(self) -> list[Removal]:
        """Return the removals of runs' rows by retention."""
        ...

    def altered_texts(self, scope: Scope = ...) -> Iterator[str]:
        """Yield a fault for each text that does not fit its hash."""
        ...

    def altered_labels(self) -> Iterator[str]:
        """Yield a fault for each sample whose label is not the one on record."""
        ...

    def altered_costs(self) -> Iterator[str]:
        """Yield a fault for each call whose new cost is not the one on record."""
        ...


@dataclass
class Verification:
    """The number of records checked, the faults, and notes on records that no seal covers."""

    records: int = 0
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verify_file(path: Path, ledger: SealedLedger | None) -> Verification:
    """Check a file's own chain, then compare it with the ledger if there is one.

    Raises Misuse when the file is no audit trail.
    """
    file = read_trail(path)
    result = Verification(file.records, list(file.faults))
    if ledger is None:
        return result
    seals = _check_seals(ledger, result)
    _check_same_ledger(file, seals, result)
    # Each block of the ledger is taken out of it; those that are left are unknown there.
    only_in_file = dict(file.blocks)
    for block in ledger.blocks(file.scope):
        lines = only_in_file.pop(block.name, None)
        if lines is not None:
            _compare_block(block, lines, seals, result)
        elif block.seal and block.seal.number <= file.sealed:
            # it was complete before the file was written
            result.faults.append(f"{block.name} is missing from the file")
    removed = _removed_blocks(ledger, result)
    by_block = {seal.block: seal for seal in seals.values()}
    for name, lines in only_in_file.items():
        if name in removed:
            _check_removed(name, lines, by_block.get(name), result)
            continue
        result.faults.append(f"line {lines[0].number}: the ledger has no {name}")
    return result


def verify_ledger(ledger: SealedLedger) -> Verification:
    """Check all rows of a ledger against its seals, and its texts against their hashes."""
    result = Verification()
    seals = _check_seals(ledger, result)
    # Names of blocks, each taken out when it is found.
    missing = {seal.block for seal in seals.values()}
    for block in ledger.blocks():
        missing.discard(block.name)
        digests = [digest(record) for record in block.records]
        result.records += len(digests)
        _check_block(block, digests, seals, result)
    for name in sorted(missing - _removed_blocks(ledger, result)):
        result.faults.append(f"{name} was sealed, and is no longer in the ledger")
    result.faults += ledger.altered_texts()
    result.faults += ledger.altered_labels()
    result.faults += ledger.altered_costs()
    return result


def _removed_blocks(ledger: SealedLedger, result: Verification) -> set[str]:
    """Return the blocks of the runs that retention removed, and note each removal.

    Each is on record as a deletion, which is checked like any other block.
    """
    blocks: set[str] = set()
    numbers: Counter[tuple[str, str, str]] = Counter()
    for removal in ledger.removals():
        blocks.update(f"run {run_id}" for run_id in removal.runs)
        day = datetime.datetime.fromtimestamp(removal.at, datetime.UTC).date()
        numbers[day.isoformat(), removal.by, removal.why] += len(removal.runs)
    notes = []
    for (day_removed, by, why), number in numbers.items():
        reason = f": {why}" if why else ""
        notes.append(
            f"{plural(number, 'run')} removed by retention on {day_removed} by {by}{reason}"
        )
    result.notes[:0] = notes
    return blocks


def _check_removed(
    name: str, lines: Sequence[TrailLine], seal: Seal | None, result: Verification
) -> None:
    """Compare a run in a file with its seal, which stays when its rows are removed."""
    head = _chain_head([line.digest for line in lines])
    if seal is not None and head != seal.head:
        result.faults.append(
            f"line {lines[0].number}: {name} is not what was sealed before its rows were removed"
        )


def _check_seals(ledger: SealedLedger, result: Verification) -> dict[int, Seal]:
    """Return the ledger's seals by number, with the faults of their own chain noted."""
    seals: dict[int, Seal] = {}
    previous = START
    for seal in ledger.in_order():
        name = f"seal {seal.number} ({seal.kind} {seal.subject})"
        if not seal.holds:
            result.faults.append(f"{name} was changed in the ledger")
        if seal.previous != previous:
            result.faults.append(
                f"{name} does not follow the one before: a seal was removed, added or changed"
            )
        # The hash as stored: a changed seal is one fault, not one for every seal after it.
        previous = seal.hash
        seals[seal.number] = seal
    return seals


def _check_same_ledger(
    file: TrailFile, seals: dict[int, Seal], result: Verification
) -> None:
    """Look for the newest seal of the time of writing, which vouches for all seals before it."""
    # 0: the ledger had no seals when the file was written
    if not file.end or not file.sealed:
        return
    seal = seals.get(file.sealed)
    if seal is None or seal.hash != file.end.get("seal"):
        result.faults.append(
            f"seal {file.sealed} is not what it was when the file was written"
        )


def _check_block(
    block: Block, digests: Sequence[str], seals: dict[int, Seal], result: Verification
) -> bool:
    """Compare the ledger's records with their seal; return True if nothing is wrong."""
    fault = _seal_fault(block, digests, seals)
    if fault is not None:
        result.faults.append(fault)
        return False
    if block.seal is None:
        state = (
            "has not ended"
            if block.ended is None
            else "ended before the ledger had seals"
        )
        result.notes.append(
            f"{block.name} {state}: no seal vouches for its {len(digests)} records"
        )
    return True


def _missing_seal_fault(block: Block, seals: dict[int, Seal]) -> str | None:
    """Return the fault of a block without a seal, or None where it can have none."""
    if block.ended is None or not seals:
        return None
    # An older version made no seals: what ended before the first one never had any.
    first_sealed_at = min(seal.sealed_at for seal in seals.values())
    if block.ended < first_sealed_at:
        return None
    return f"{block.name} has no seal: it was removed, or never made"


def _seal_fault(
    block: Block, digests: Sequence[str], seals: dict[int, Seal]
) -> str | None:
    """Describe how a block of the ledger departs from its seal, or return None."""
    seal = block.seal
    if seal is None:
        return _missing_seal_fault(block, seals)
    # The number first: another number always changes the head too, and says more.
    if len(digests) != seal.records:
        fault = f"{block.name}: the ledger has {len(digests)} records, {seal.records} were sealed"
        if seal.kind == "crash":
            fault += "; its process was taken for dead, but may still be running"
        return fault
    if _chain_head(digests) != seal.head:
        return f"{block.name}: a record in the ledger was changed after it was sealed"
    return None


def _compare_block(
    block: Block,
    lines: Sequence[TrailLine],
    seals: dict[int, Seal],
    result: Verification,
) -> None:
    """Compare a block of the ledger with its seal, and with the same block of the file."""
    digests = [digest(record) for record in block.records]
    sound = _check_block(block, digests, seals, result)
    file_digests = [line.digest for line in lines]
    if file_digests == digests:
        return
    place = f"line {_first_difference(lines, digests)}"
    # The two differ. If the file has the sealed records, the ledger is the one that changed.
    sealed_in_file = (
        block.seal is not None and _chain_head(file_digests) == block.seal.head
    )
    if not sound and sealed_in_file:
        result.faults.append(
            f"{place}: the file has what was sealed, the ledger has something else"
        )
    else:
        result.faults.append(
            f"{place}: not what the ledger has; changed, or written before the run had ended"
        )


def _first_difference(lines: Sequence[TrailLine], digests: Sequence[str]) -> int:
    """Return the first line that differs from the ledger; the last if only the number does."""
    # Not strict: compared as far as both go.
    for line, ledger_digest in zip(lines, digests, strict=False):
        if line.digest != ledger_digest:
            return line.number
    return lines[-1].number


def _chain_head(digests: Sequence[str]) -> str:
    head = START
    for each in digests:
        head = linked(head, each)
    return head
