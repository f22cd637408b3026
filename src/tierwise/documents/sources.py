"""The files of a source: a folder, or one file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tierwise.documents.readers import ACCEPTED
from tierwise.errors import Misuse


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Its `id` is the path below the source; `problem` is a reason not to open it.
    """

    path: Path
    id: str
    problem: str = ""

    @property
    def suffix(self) -> str:
        """Lower-case ending with its dot, such as `.txt`."""
        return self.path.suffix.lower()


def find_files(source: Path) -> Iterator[SourceFile]:
    """Return the files of a folder in sorted order, or the one file that `source` is.

    Hidden files are left out. Raises Misuse at once, not at the first file, when there is no such
    source or no file in it.
    """
    accepted = f"give a folder or a file ({', '.join(ACCEPTED)})"
    try:
        if not source.is_dir():
            source.stat()
            name = printable_name(source.name)
            return iter([SourceFile(source, name, _why_unreadable(source))])
        next(source.iterdir(), None)  # raises what hinders to list the folder
    except FileNotFoundError:
        raise Misuse(f"{source}: there is no such file or folder; {accepted}") from None
    except OSError as error:
        raise Misuse(
            f"{source}: cannot be opened: {error.strerror}; {accepted}"
        ) from None
    files = _walk(source)
    first = next(files, None)
    if first is None:
        raise Misuse(f"{source}: the folder holds no document; {accepted}")
    return chain([first], files)


def printable_name(name: str) -> str:
    """Return a file name that can be printed and stored.

    Bytes that are not UTF-8 and control characters are written as escapes.
    """
    decoded = os.fsencode(name).decode("utf-8", "backslashreplace")
    characters = (
        character
        if character.isprintable()
        else character.encode("unicode_escape").decode()
        for character in decoded
    )
    return "".join(characters)


def _walk(root: Path) -> Iterator[SourceFile]:
    """Yield the files below `root`, depth first and sorted."""
    to_visit = [root]
    while to_visit:
        path = to_visit.pop()
        name = printable_name(path.relative_to(root).as_posix())
        if path.is_symlink() and path != root:
            yield from _follow_link(path, name, root)
            continue
        if not path.is_dir():
            yield SourceFile(path, name, _why_unreadable(path))
            continue
        try:
            children = sorted(path.iterdir())
        except OSError as error:
            problem = (
                f"the folder cannot be opened: {error.strerror}; check its permissions"
            )
            yield SourceFile(path, f"{name}/", problem)
            continue
        visible = [child for child in children if not child.name.startswith(".")]
        to_visit += reversed(visible)  # the last one is visited first


def _follow_link(path: Path, name: str, root: Path) -> Iterator[SourceFile]:
    """Yield the file that a link leads to, as far as it is below `root`.

    A link to a folder yields nothing: the folder is read at its own place.
    """
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(root)):
        problem = (
            "it is a link that leads out of the folder; copy the file into the folder"
        )
        yield SourceFile(path, name, problem)
    elif not target.is_dir():
        yield SourceFile(path, name, _why_unreadable(target))


def _why_unreadable(path: Path) -> str:
    """Say why a path cannot be read as a file; empty when it can."""
    try:
        is_regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return (
            f"it cannot be opened: {error.strerror}; check the link and its permissions"
        )
    if not is_regular:
        # opening a pipe would wait forever
        return "it is not a regular file; copy its content into one"
    return ""
