"""Records that a process could not write, in a file, until the next run writes them.

While the database is away, what was paid is in memory and in this file, so that it is not lost when
the process ends. Writing it again is safe: see `operations.apply`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tierwise.ledger.budgets import Settlement
from tierwise.ledger.operations import Kind, Operation
from tierwise.ledger.processes import is_dead, is_here
from tierwise.text.amounts import plural

log = logging.getLogger(__name__)
FOLDER = Path(".tierwise") / "unwritten"  # below the project's root
# A file from another machine is taken when it was not written for so long.
_QUIET_S = 3600.0
# Claims end with their process; leases too.
_KEPT: tuple[Kind, ...] = (
    "attempt",
    "paid",
    "verdict",
    "outcome",
    "audit",
    "finish",
    "batch_submitted",
    "batch_status",
    "item_end",
)
_CLOSED = json.dumps(
    {"closed": True}
)  # the last line of a process that is done with it
_USD = "$usd"  # marks an exact amount


@dataclass(frozen=True, slots=True)
class UnwrittenFile:
    """The records that a process left behind."""

    path: Path
    operations: Sequence[Operation]

    def run_ids(self) -> list[str]:
        """Return the runs that these records belong to, each once."""
        found: dict[str, None] = {}
        for operation in self.operations:
            found.update(dict.fromkeys(run_ids_of(operation)))
        return list(found)

    @property
    def calls(self) -> int:
        """The number of calls among these records."""
        return sum(len(each.rows.get("attempt", ())) for each in self.operations)

    def remove(self) -> None:
        """Remove the file, as its records are written."""
        with suppress(FileNotFoundError):
            self.path.unlink()

    def set_aside(self) -> Path:
        """Rename the file, so that no run takes it again, and return its new name."""
        aside = self.path.with_suffix(".refused")
        with suppress(FileNotFoundError):
            self.path.rename(aside)
        return aside


class Unwritten:
    """The file of one process."""

    def __init__(self, folder: Path, owner: str) -> None:
        self._folder = folder
        self._owner = owner
        self._lock = threading.Lock()
        self._is_refused = False
        self._begin()

    def _begin(self) -> None:
        self._path = self._folder / f"{uuid.uuid4().hex}.jsonl"
        self._number = 0  # operations in the file
        self._calls = 0  # of them, those that record a call
        self._is_left = False

    def add(self, operations: Iterable[Operation]) -> None:
        """Add what these operations record. A file that cannot be written is said once."""
        kept = [operation for operation in operations if _is_kept(operation)]
        if not kept:
            return
        lines = [_line(operation) for operation in kept]
        with self._lock:
            try:
                self._append(lines)
            except OSError as error:
                self._say_refused(error)
                return
            self._number += len(lines)
            self._calls += sum("attempt" in operation.rows for operation in kept)

    def clear(self) -> None:
        """Remove the file, as its records are in the ledger.

        One that was left stays: the records that are written again change nothing.
        """
        with self._lock:
            if not self._number or self._is_left:
                return
            with suppress(OSError):
                self._path.unlink()
            self._begin()

    def leave(self) -> str:
        """Leave the file to the next run, and return where it is, in words; empty for none."""
        with self._lock:
            if not self._number:
                return ""
            self._is_left = True
            return (
                f"{plural(self._calls, 'call')} and all else that was not written is in "
                f"{self._path}, and the next run writes it"
            )

    def begin_another(self) -> None:
        """Write no more to a file that was left: a run is about to take it."""
        with self._lock:
            if self._is_left:
                self._begin()

    def close(self) -> None:
        """Let others take the file, though this process may live on."""
        with self._lock, suppress(OSError):
            if self._number:
                self._append([_CLOSED])

    def _append(self, lines: Sequence[str]) -> None:
        if not self._number:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lines = [json.dumps({"owner": self._owner}), *lines]
        # It holds answers: for its owner alone.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with os.fdopen(os.open(self._path, flags, 0o600), "a") as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def _say_refused(self, error: OSError) -> None:
        if not self._is_refused:
            self._is_refused = True
            log.warning(
                "what the ledger cannot take is kept in memory alone; %s cannot be written: %s",
                self._path,
                error.strerror or error,
            )


def run_ids_of(operation: Operation) -> set[str]:
    """Return the runs that an operation's records belong to."""
    found: set[str] = set()
    with_run: tuple[Kind, ...] = ("attempt", "outcome", "audit")
    for kind in with_run:
        found.update(row["run_id"] for row in operation.rows.get(kind, ()))
    found.update(row["run"] for row in operation.rows.get("finish", ()))
    return found


def left_behind(folder: Path, owner: str) -> list[UnwrittenFile]:
    """Return the files of processes that ended, and of this one (`owner`)."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        try:
            text = path.read_text(encoding="ascii")
            written_at = path.stat().st_mtime
        except (OSError, UnicodeDecodeError) as error:
            log.warning("%s cannot be read: %s", path, error)
            continue
        first, *lines = text.splitlines() or [""]
        its_owner = _owner_of(first)
        is_free = its_owner == owner or _CLOSED in lines
        if not is_free and not _has_ended(its_owner, written_at):
            continue
        found.append(UnwrittenFile(path, tuple(_operations(lines))))
    return found


def _has_ended(owner: str, written_at: float) -> bool:
    if is_here(owner):
        return is_dead(owner)
    return written_at < time.time() - _QUIET_S


def _owner_of(line: str) -> str:
    with suppress(ValueError, KeyError, TypeError):
        return str(json.loads(line)["owner"])
    return ""


def _is_kept(operation: Operation) -> bool:
    return bool(operation.settlement) or any(kind in operation.rows for kind in _KEPT)


def _line(operation: Operation) -> str:
    rows = {kind: operation.rows[kind] for kind in _KEPT if kind in operation.rows}
    settlement = None
    if operation.settlement:
        settlement = {
            "id": operation.settlement.id,
            "budgets": operation.settlement.budgets,
            "cost": operation.settlement.cost,
            "note": operation.settlement.note,
        }
    return json.dumps({"rows": rows, "settlement": settlement}, default=_as_json)


def _as_json(value: Any) -> Any:
    if isinstance(value, Decimal):
        return {_USD: str(value)}
    return str(value)  # as the ledger stores a path or a date


def _operations(lines: Iterable[str]) -> Iterable[Operation]:
    for line in lines:
        if line == _CLOSED:
            return
        try:
            data = json.loads(line, object_hook=_from_json)
        except ValueError:
            return  # the process was killed while it wrote its last line
        settlement = None
        if data["settlement"] is not None:
            stored = data["settlement"]
            settlement = Settlement(
                stored["id"], tuple(stored["budgets"]), stored["cost"], stored["note"]
            )
        yield Operation(rows=data["rows"], settlement=settlement, repeated=True)


def _from_json(data: dict[str, Any]) -> Any:
    if data.keys() == {_USD}:
        return Decimal(data[_USD])
    return data
