"""SQLite files that this user may not write: how they can be read all the same, correctly."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import quote

from tierwise.errors import LedgerError


def read_only_file(path: Path) -> ReadOnlyFile | None:
    """Return the way to read a file that this user may not write; None where it may.

    SQLite writes a log and an index beside the file, so the folder counts too.
    """
    if not path.is_file():
        return None
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        return None
    return ReadOnlyFile(path)


class ReadOnlyFile:
    """A SQLite file that is only read; its text says why it cannot be written.

    With the log and its index there, SQLite reads all three. Without a log, the file has
    everything, but SQLite takes no lock on it: `refuse_changed` sees a writer who came meanwhile.
    With a log but no index, a private copy is read, as SQLite would have to write the index.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._copy: tempfile.TemporaryDirectory[str] | None = None
        self._options = "mode=ro"
        self._stamp: object = None
        log = _beside(path, "-wal")
        has_log = log.exists()
        if has_log and _beside(path, "-shm").exists():
            return
        if has_log and log.stat().st_size:
            self._path = self._copied(path, log)
            self._options = "mode=rw"
            return
        self._options = "mode=ro&immutable=1"
        self._stamp = _stamp(path)

    def __str__(self) -> str:
        return "the file or its folder is read-only; give this user the right to write both"

    def connect(self, timeout_s: float) -> sqlite3.Connection:
        """Return a connection that can only read."""
        address = f"file:{quote(str(self._path))}?{self._options}"
        connection = sqlite3.connect(
            address, uri=True, timeout=timeout_s, check_same_thread=False
        )
        connection.isolation_level = None  # we say BEGIN ourselves
        connection.execute("PRAGMA query_only=ON")
        return connection

    def refuse_changed(self) -> None:
        """Raise LedgerError if a file that is read without a lock was written meanwhile."""
        if self._stamp is not None and _stamp(self._path) != self._stamp:
            raise LedgerError(
                f"the ledger {self._path} was written while it was read; run the command again"
            )

    def _copied(self, path: Path, log: Path) -> Path:
        """Return a copy of the file and its log, which lives as long as this object."""
        self._copy = tempfile.TemporaryDirectory(prefix="tierwise-ledger-")
        copy = Path(self._copy.name) / path.name
        shutil.copyfile(path, copy)
        shutil.copyfile(log, _beside(copy, "-wal"))
        return copy


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _stamp(path: Path) -> object:
    """Return a value that changes when a file or its log is written."""
    status = path.stat()
    log = _beside(path, "-wal")
    log_size = log.stat().st_size if log.exists() else 0
    return status.st_mtime_ns, status.st_size, log_size
