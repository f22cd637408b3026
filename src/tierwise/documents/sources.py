"""Which files a source holds, and what each of them gave before anything was decided about it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from tierwise.errors import Misuse

ROWS = (".csv", ".jsonl")  # a row a document
TEXTS = (".md", ".txt")
FOREIGN = (".docx", ".eml", ".htm", ".html", ".pdf")  # converted in a process of their own
ACCEPTED = tuple(sorted(ROWS + TEXTS + FOREIGN))


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source: its `id` is the path below the source; `problem` says why not to open it."""

    path: Path
    id: str
    problem: str = ""

    @property
    def suffix(self) -> str:
        """Lower-case ending with its dot, such as `.txt`."""
        return self.path.suffix.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Raw:
    """What one file or row gave: text, or the `problem` that a person has to solve.

    `declared` holds what it says of its own sensitivity, in its own words.
    """

    id: str
    text: str = field(default="", repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    declared: tuple[str, ...] = ()
    problem: str = ""


def find_files(source: Path) -> Iterator[SourceFile]:
    """The files of a folder in sorted order, hidden ones left out, or the one file that `source` is.

    Raises Misuse at once when there is no such source or no file in it.
    """
    accepted = f"give a folder or a file ({', '.join(ACCEPTED)})"
    try:
        if not source.is_dir():
            source.stat()
            return iter([SourceFile(source, readable(source.name), _not_a_file(source))])
        next(source.iterdir(), None)
    except FileNotFoundError:
        raise Misuse(f"{source}: there is no such file or folder; {accepted}") from None
    except OSError as error:
        raise Misuse(f"{source}: cannot be opened: {error.strerror}; {accepted}") from None
    files = _walk(source)
    if (first := next(files, None)) is None:
        raise Misuse(f"{source}: the folder holds no document; {accepted}")
    return chain([first], files)


def readable(name: str) -> str:
    """A file name as text that can be printed and stored: odd bytes and control characters are spelt out."""
    decoded = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in decoded)


def _walk(root: Path) -> Iterator[SourceFile]:
    waiting = [root]
    while waiting:
        path = waiting.pop()
        name = readable(path.relative_to(root).as_posix())
        if path.is_symlink() and path != root:
            yield from _link(path, name, root)
        elif path.is_dir():
            try:
                inside = sorted(child for child in path.iterdir() if not child.name.startswith("."))
            except OSError as error:
                yield SourceFile(
                    path,
                    f"{name}/",
                    f"the folder cannot be opened: {error.strerror}; check its permissions",
                )
            else:
                waiting += reversed(inside)
        else:
            yield SourceFile(path, name, _not_a_file(path))


def _link(path: Path, name: str, root: Path) -> Iterator[SourceFile]:
    """A link is only followed to a file below the folder; a folder below it is read at its own place."""
    target = Path(os.path.realpath(path))
    if not target.is_relative_to(os.path.realpath(root)):
        yield SourceFile(
            path, name, "it is a link that leads out of the folder; copy the file into the folder"
        )
    elif not target.is_dir():
        yield SourceFile(path, name, _not_a_file(target))


def _not_a_file(path: Path) -> str:
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        return f"it cannot be opened: {error.strerror}; check the link and its permissions"
    return (
        "" if regular else "it is not a regular file; copy its content into one"
    )  # opening a pipe would wait forever
