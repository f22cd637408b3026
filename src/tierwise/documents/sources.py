"""The files of a source: a folder, or one file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tierwise.documents.left_out import (
    LeftOut,
    holds_only_results,
    is_result,
    kind_of_other,
)
from tierwise.documents.readers import ACCEPTED
from tierwise.errors import Misuse

_RESULTS = "of earlier results"


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


def find_files(source: Path, left_out: LeftOut | None = None) -> Iterator[SourceFile]:
    """Return the files of a folder in sorted order, or the one file that `source` is.

    Hidden files, files of other programs and earlier results below the source are counted in
    `left_out` instead. Raises Misuse at once, not at the first file, when there is no such source
    or no file in it.
    """
    left_out = left_out or LeftOut()
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
    files = _walk(source, left_out)
    first = next(files, None)
    if first is None:
        others = left_out.describe()
        but = f" but {others}, which are not read" if others else ""
        if left_out.has(_RESULTS):
            but += " (to read results, name their own folder)"
        raise Misuse(f"{source}: the folder holds no document{but}; {accepted}")
    return chain([first], files)


def is_empty(source: Path) -> bool:
    """Return True for a folder without a file to read."""
    return source.is_dir() and next(_walk(source, LeftOut()), None) is None


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


def _walk(root: Path, left_out: LeftOut) -> Iterator[SourceFile]:
    """Yield the files below `root`, depth first and sorted."""
    reads_results = holds_only_results(root)
    to_visit = [root]
    while to_visit:
        path = to_visit.pop()
        name = printable_name(path.relative_to(root).as_posix())
        if path != root and kind_of_other(path):
            left_out.add(kind_of_other(path), name)
        elif path.is_symlink() and path != root:
            yield from _follow_link(path, name, root, left_out)
        elif not path.is_dir():
            if not reads_results and is_result(path):
                left_out.add(_RESULTS, name)
            else:
                yield SourceFile(path, name, _why_unreadable(path))
        else:
            try:
                children = sorted(path.iterdir())
            except OSError as error:
                problem = f"the folder cannot be opened: {error.strerror}; check its permissions"
                yield SourceFile(path, f"{name}/", problem)
                continue
            to_visit += reversed(children)  # the last one is visited first


def _follow_link(
    path: Path, name: str, root: Path, left_out: LeftOut
) -> Iterator[SourceFile]:
    """Yield the file that a link leads to, as far as it is below `root`.

    A link to a folder yields nothing: the folder is read at its own place, and one of results is
    left out wherever it is.
    """
    target = Path(os.path.realpath(path))
    if is_result(target) or (target.is_dir() and holds_only_results(target)):
        left_out.add(_RESULTS, name)
    elif not target.is_relative_to(os.path.realpath(root)):
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
