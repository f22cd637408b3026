"""Rotation of the logs of `tierwise up` by size: copy, then truncate.

A service writes by a descriptor that it got at its start, so its file cannot be renamed. The
descriptor appends: after the truncation it goes on at the beginning of the same file.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tierwise.text.private import open_private

MAX_BYTES = 10_000_000
KEPT = 4  # rotated files, besides the one that is written


def rotate(log: Path, *, max_bytes: int = MAX_BYTES, kept: int = KEPT) -> bool:
    """Move a log that is too long to `NAME.log.1`, and so on; return True if it was.

    Lines that are written between the copy and the truncation are lost: a few in a thousandth of a
    second. Raises OSError, such as on a full disk; then the log stays as it is.
    """
    try:
        if log.stat().st_size <= max_bytes:
            return False
    except FileNotFoundError:
        return False
    # The oldest goes first, so that a full disk has room for the copy.
    _numbered(log, kept).unlink(missing_ok=True)
    copy = log.with_name(f"{log.name}.copy")
    try:
        with log.open("rb") as source, open(copy, "wb", opener=open_private) as target:
            shutil.copyfileobj(source, target)
        for number in range(kept - 1, 0, -1):
            older = _numbered(log, number)
            if older.exists():
                older.replace(_numbered(log, number + 1))
        copy.replace(_numbered(log, 1))
    finally:
        copy.unlink(missing_ok=True)
    os.truncate(log, 0)
    return True


def _numbered(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")
