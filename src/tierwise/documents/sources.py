"""The files of a source: a folder, or one file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from tierwise.documents.left_out import (
    LeftOut,
    holds_only_results,
    is_folder_of,
    is_result,
    kind_of_name,
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
    # as the file was when it was found; None where there is a problem
    facts: os.stat_result | None = field(default=None, compare=False)

    @property
    def suffix(self) -> str:
        """Lower-case ending with its dot, such as `.txt`."""
        return self.path.suffix.lower()


# Is this file known as a document, so that it need not be opened to see that it is no result?
IsDocument = Callable[[SourceFile], bool]


def _unknown(file: SourceFile) -> bool:  # noqa: ARG001
    return False


def find_files(
    source: Path,
    left_out: LeftOut | None = None,
    *,
    may_be_empty: bool = False,
    is_document: IsDocument = _unknown,
) -> Iterator[SourceFile]:
    """Return the files of a folder in sorted order, or the one file that `source` is.

    Hidden files, files of other programs and earlier results below the source are counted in
    `left_out` instead. Raises Misuse at once, not at the first file, when there is no such source
    or no file in it, unless the folder `may_be_empty`. `is_document` knows files of earlier polls
    that are no results.
    """
    left_out = left_out or LeftOut()
    accepted = f"give a folder or a file ({', '.join(ACCEPTED)})"
    try:
        if not source.is_dir():
            source.stat()
            name = printable_name(source.name)
            return iter([_source_file(source, name, source.stat)])
        next(source.iterdir(), None)  # raises what hinders to list the folder
    except FileNotFoundError:
        raise Misuse(f"{source}: there is no such file or folder; {accepted}") from None
    except OSError as error:
        raise Misuse(
            f"{source}: cannot be opened: {error.strerror}; {accepted}"
        ) from None
    files = _walk(source, left_out, is_document)
    first = next(files, None)
    if first is None and may_be_empty:
        return iter(())
    if first is None:
        others = left_out.describe()
        but = f" but {others}, which are not read" if others else ""
        if left_out.has(_RESULTS):
            but += " (to read results, name their own folder)"
        raise Misuse(f"{source}: the folder holds no document{but}; {accepted}")
    return chain([first], files)


def file_of(source: Path, document_id: str) -> Path | None:
    """Return the file of a source that a document is from; None where it is gone.

    An id is the file's path. A row, a member of an archive and an attached file go on behind it.
    """
    if source.is_file():
        return source
    path = source / document_id.partition("#")[0]
    while path != source and not path.is_file():
        if path == path.parent:
            return None
        path = path.parent
    return path if path.is_file() else None


def printable_name(name: str) -> str:
    """Return a file name that can be printed and stored.

    Bytes that are not UTF-8 and control characters are written as escapes.
    """
    if name.isprintable():
        # such as nearly all of 100,000 names
        return name
    decoded = os.fsencode(name).decode("utf-8", "backslashreplace")
    characters = (
        character
        if character.isprintable()
        else character.encode("unicode_escape").decode()
        for character in decoded
    )
    return "".join(characters)


def _walk(
    root: Path, left_out: LeftOut, is_document: IsDocument = _unknown
) -> Iterator[SourceFile]:
    """Yield the files below `root`, depth first and sorted.

    With `scandir` and names as text: the folder may have 100,000 files.
    """
    if not root.is_dir():
        return
    reads_results = holds_only_results(root)
    try:
        to_visit = _children(str(root), "")
    except OSError as error:
        yield SourceFile(root, "./", _why_closed(error))
        return
    while to_visit:
        entry, name = to_visit.pop()
        is_folder = is_folder_of(entry)
        other = kind_of_name(entry.name, is_folder=is_folder)
        if other:
            left_out.add(other, name)
        elif entry.is_symlink():
            yield from _follow_link(Path(entry.path), name, root, left_out)
        elif is_folder:
            try:
                to_visit += _children(entry.path, name)
            except OSError as error:
                yield SourceFile(Path(entry.path), f"{name}/", _why_closed(error))
        else:
            file = _source_file(Path(entry.path), name, entry.stat)
            # Of the results in a folder that is read, the HTML pages repeat what others say.
            is_read = reads_results and file.suffix != ".html"
            may_be_result = not is_read and not is_document(file)
            if may_be_result and is_result(file.path):
                left_out.add(_RESULTS, name)
            else:
                yield file


def _children(folder: str, name: str) -> list[tuple[os.DirEntry[str], str]]:
    """Return the entries of a folder with their names below the source, the first one last."""
    with os.scandir(folder) as scanned:
        entries = sorted(scanned, key=lambda entry: entry.name, reverse=True)
    in_front = f"{name}/" if name else ""
    return [(entry, in_front + printable_name(entry.name)) for entry in entries]


def _why_closed(error: OSError) -> str:
    return f"the folder cannot be opened: {error.strerror}; check its permissions"


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
        yield _source_file(path, name, target.stat)


def _source_file(
    path: Path, name: str, look: Callable[[], os.stat_result]
) -> SourceFile:
    """Return a file, with the reason why it cannot be read as one."""
    try:
        facts = look()
    except OSError as error:
        problem = (
            f"it cannot be opened: {error.strerror}; check the link and its permissions"
        )
        return SourceFile(path, name, problem)
    if not stat.S_ISREG(facts.st_mode):
        # opening a pipe would wait forever
        problem = "it is not a regular file; copy its content into one"
        return SourceFile(path, name, problem)
    return SourceFile(path, name, facts=facts)
