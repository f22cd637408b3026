"""A download that is resumed: a growing file, with a note of each finished part."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import IO

from tierwise.errors import WeightsError

_CHUNK = 1 << 20
_NOTE = re.compile(r"(\d+) ([0-9a-f]{64})")  # bytes, SHA-256


class PartialFile:
    """A growing file, and beside it the notes of its finished parts (a line each: bytes, SHA-256).

    Bytes count only once their part is noted. `resume` verifies the noted parts, and cuts off the
    bytes after them.
    """

    def __init__(self, path: Path, *, limit: int) -> None:
        self.path = path
        self.notes = path.with_suffix(".parts")
        self.limit = limit
        self.finished_parts = 0
        self.size = 0
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the finished parts."""
        return self._hash.hexdigest()

    def resume(self, *, most: int) -> None:
        """Continue after the parts of an earlier run that are intact, `most` of them."""
        self.path.touch()
        self.notes.touch()
        notes = self.notes.read_text(encoding="ascii", errors="replace").splitlines()[
            :most
        ]
        with self.path.open("rb") as file:
            for note in notes:
                if not self._verify_part(note, file):
                    break
        os.truncate(self.path, self.size)
        intact = [f"{note}\n" for note in notes[: self.finished_parts]]
        self.notes.write_text("".join(intact), encoding="ascii")

    def append(self, stream: IO[bytes], name: str) -> None:
        """Add one part and note it.

        Raises WeightsError with the part's name when the file would grow beyond its limit.
        """
        size = 0
        part_hash = hashlib.sha256()
        whole_hash = self._hash.copy()
        with self.path.open("r+b") as file:
            file.seek(self.size)
            while chunk := stream.read(_CHUNK):
                size += len(chunk)
                if self.size + size > self.limit:
                    raise WeightsError(
                        f"{name}: the parts hold more than the catalog's {self.limit} bytes"
                    )
                file.write(chunk)
                part_hash.update(chunk)
                whole_hash.update(chunk)
            # On the disk before it is noted: a note never counts bytes that a crash can lose.
            file.flush()
            os.fsync(file.fileno())
        with self.notes.open("a", encoding="ascii") as notes:
            notes.write(f"{size} {part_hash.hexdigest()}\n")
        self._count_part(size, whole_hash)

    def rename(self, path: Path) -> None:
        """Give the finished file its name."""
        self.path.replace(path)
        self.notes.unlink(missing_ok=True)

    def delete(self) -> None:
        """Delete the file and its notes."""
        self.path.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)

    def _verify_part(self, note: str, file: IO[bytes]) -> bool:
        """Count the next bytes of the file as a finished part if they are the noted one."""
        match = _NOTE.fullmatch(note)
        if not match:
            return False
        size = int(match[1])
        missing = size
        part_hash = hashlib.sha256()
        whole_hash = self._hash.copy()
        while missing and (chunk := file.read(min(missing, _CHUNK))):
            missing -= len(chunk)
            part_hash.update(chunk)
            whole_hash.update(chunk)
        if missing or part_hash.hexdigest() != match[2]:
            return False
        self._count_part(size, whole_hash)
        return True

    def _count_part(self, size: int, whole_hash: hashlib._Hash) -> None:
        self.finished_parts += 1
        self.size += size
        self._hash = whole_hash
