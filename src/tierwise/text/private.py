"""Files that only their owner can read: made so, and narrowed where they are not.

Everything in `.tierwise` may quote documents. Where systems have no modes, nothing happens.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FOLDER_MODE = 0o700
FILE_MODE = 0o600
# For a process all of whose files are private.
PRIVATE_UMASK = 0o077
_OTHERS = 0o077  # what other users may do


def open_private(path: str | Path, flags: int) -> int:
    """Open a file; if it is new, only its owner can read it. An `opener` for `open`."""
    return os.open(path, flags, FILE_MODE)


def create_private(path: Path) -> None:
    """Create an empty file unless there is one: SQLite takes its mode for those beside it.

    Where that fails, the program that needs the file says why.
    """
    with suppress(OSError):
        os.close(open_private(path, os.O_CREAT | os.O_RDWR))


def private_folder(path: Path) -> Path:
    """Create a folder, and all above it that are missing, for its owner alone; return it."""
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    return path


def narrow_folder(folder: Path) -> list[Path]:
    """Take the rights of other users from a folder and all below; return what had any.

    Looks at the folder and its entries, and further down where one of these is too wide: nobody
    else gets into the rest.
    """
    if os.name == "nt" or folder.is_symlink() or not folder.is_dir():
        return []
    first = [folder, *_entries(folder)]
    if not any(_is_wide(path) for path in first):
        return []
    return [path for path in (folder, *_tree(folder)) if _narrow(path)]


def _entries(folder: Path) -> Iterator[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            yield Path(entry.path)


def _tree(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(place, name)


def _is_wide(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    # A link has no rights of its own, and its target may be anywhere.
    return not stat.S_ISLNK(mode) and bool(mode & _OTHERS)


def _narrow(path: Path) -> bool:
    """Take the rights of other users from a file or folder that has such; return True if done."""
    if not _is_wide(path):
        return False
    # OSError: it belongs to another user, or has just been removed.
    with suppress(OSError):
        path.chmod(stat.S_IMODE(path.lstat().st_mode) & ~_OTHERS)
        return True
    return False
