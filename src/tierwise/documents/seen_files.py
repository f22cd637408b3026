"""The files of a watched folder as they were read last, so that no poll converts one twice.

A file is known again by its size, its times and its inode. It counts as unchanged only where a
later change would have changed one of them: git's rule for "racy" files. What was read is kept as
the ids and hashes of its documents. Whether these are done is the ledger's to say. The record can
be deleted at any time: then the files are read once more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson

from tierwise.records import canonical_hash
from tierwise.text.files import write_atomically

# Raise it where the same file gives another text than before, or other ids.
READER_VERSION = 3
_CONVERTERS = (
    *("tierwise", "markitdown", "pdfminer.six", "mammoth", "lxml"),
    *("openpyxl", "python-pptx", "olefile"),
)
_SECOND = 1_000_000_000  # ns
# Two changes within this time may leave the same times of a file.
_FINE_NS = 100_000_000  # file systems with fractions of seconds: a tick of the kernel
_COARSE_NS = 2 * _SECOND  # FAT; others without fractions have 1 s

# Size, time of the last change of the content and of the inode (ns), and the inode.
Signature = tuple[int, int, int, int]
# The id within the source and the hash of a document.
Known = tuple[str, str]


def signature_of(facts: os.stat_result) -> Signature:
    """Return what changes with a file's content."""
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def is_racy(signature: Signature, read_at_ns: int) -> bool:
    """Return True if a change after `read_at_ns` may have left this signature."""
    _, modified, changed, _ = signature
    tick = _COARSE_NS if changed % _SECOND == 0 else _FINE_NS
    return max(modified, changed) + tick > read_at_ns


@dataclass
class SeenFiles:
    """The files of one source, by the path below it. `save` keeps those of this poll alone."""

    path: Path
    reader: str
    _before: Mapping[str, Any] = field(default_factory=dict)
    _young_before: Mapping[str, Any] = field(default_factory=dict)
    _now: dict[str, Any] = field(default_factory=dict)
    _young: dict[str, Any] = field(default_factory=dict)
    _is_changed: bool = False

    @classmethod
    def load(cls, folder: Path, source: str, settings: Sequence[Any]) -> SeenFiles:
        """Return the record for a source that is read with these settings.

        A record of another version, or a damaged one, counts as none.
        """
        name = canonical_hash([source, *settings])[:32]
        seen = cls(folder / f"{name}.json", reader_version())
        try:
            data = orjson.loads(seen.path.read_bytes())
            if data["reader"] == seen.reader:
                seen._before = data["files"]
                seen._young_before = data["young"]
        except (OSError, ValueError, KeyError, TypeError):
            seen._is_changed = True
        return seen

    def documents_of(self, name: str, signature: Signature) -> list[Known] | None:
        """Return the documents of an unchanged file; None for one that has to be read."""
        entry = self._before.get(name)
        if entry is None or tuple(entry[0]) != signature:
            return None
        documents: list[Known] = entry[1]
        return documents

    def keep(self, name: str) -> None:
        """Keep what is on record of an unchanged file."""
        self._now[name] = self._before[name]

    def note(
        self,
        name: str,
        signature: Signature,
        documents: Sequence[Known],
        read_at_ns: int,
    ) -> None:
        """Put a file on record that was read, unless it may have changed since unnoticed."""
        if is_racy(signature, read_at_ns):
            return
        self._now[name] = [signature, list(documents)]
        self._is_changed = True

    def is_young(self, name: str, signature: Signature, minimum_age_s: float) -> bool:
        """Return True for a file that has changed within the minimum age.

        By its time, or where that is in the future, since an earlier poll has seen it like this.
        """
        now = time.time_ns()
        minimum_ns = int(minimum_age_s * _SECOND)
        age = now - signature[1]
        if age >= minimum_ns:
            return False
        seen = self._young_before.get(name)
        first_seen = now
        if seen and tuple(seen[0]) == signature:
            first_seen = min(seen[1], now)
        if now - first_seen >= minimum_ns:
            return False
        self._young[name] = [signature, first_seen]
        return True

    def save(self) -> None:
        """Write the record, if something in it has changed. Does nothing where that fails."""
        is_same = not self._is_changed and len(self._now) == len(self._before)
        if is_same and not self._young and not self._young_before:
            return
        data = {"reader": self.reader, "files": self._now, "young": self._young}
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self.path, orjson.dumps(data))
        except (OSError, TypeError):
            # A full disk, or a name that is no UTF-8: the files are read again.
            return


def reader_version() -> str:
    """Return the versions of everything that decides which text a file gives."""
    versions = [str(READER_VERSION)]
    for package in _CONVERTERS:
        try:
            versions.append(version(package))
        except PackageNotFoundError:
            versions.append("-")
    return " ".join(versions)
