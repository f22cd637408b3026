"""The done folder: files of a source move there once all their documents are done.

No file of the done folder is ever overwritten, and a file that has changed since it was read stays
in the source. Sub-folders of the source are kept.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tierwise.documents.seen_files import Known, Signature, is_racy, signature_of
from tierwise.errors import Misuse
from tierwise.text.amounts import plural

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file of a source whose documents are all known, as it was when it was read."""

    path: Path
    signature: Signature
    documents: Sequence[Known]
    read_at_ns: int


@dataclass
class Moves:
    """What became of the files that were done."""

    moved: int = 0
    # names below the source of files that have changed
    changed: list[str] = field(default_factory=list)
    # such as `in/a.txt: Permission denied`
    failed: list[str] = field(default_factory=list)

    def describe(self, folder: str) -> list[str]:
        """Return a line for each kind; none where nothing was done. `folder` is its name."""
        lines: list[str] = []
        if self.moved:
            lines.append(f"{plural(self.moved, 'file')} moved to {folder}")
        if self.changed:
            number = plural(len(self.changed), "file")
            names = _first_of(self.changed)
            lines.append(f"{number} changed meanwhile: left for the next run ({names})")
        if self.failed:
            number = plural(len(self.failed), "file")
            lines.append(
                f"{number} not moved to {folder}: {_first_of(self.failed)}; "
                "check the permissions; the next run tries again"
            )
        return lines


def _first_of(names: Sequence[str]) -> str:
    text = ", ".join(names[:_MOST_NAMED])
    return f"{text}, …" if len(names) > _MOST_NAMED else text


def check_done_folder(
    folder: Path, sources: Sequence[Path], outputs: Sequence[Path]
) -> None:
    """Raise Misuse for a done folder that cannot be one; all paths are absolute, without links.

    It must be apart from the sources and the results, and on the device of the sources: a file
    moves there in one step.
    """
    for source in sources:
        if source.is_dir():
            is_apart = not _touch(folder, source)
        else:
            is_apart = folder not in (source, source.parent)
        if not is_apart:
            raise Misuse(
                f"{folder}: the done folder would lie in the source {source}, or around it, and "
                "its files would be read as new ones; name a folder beside the source"
            )
    for output in outputs:
        if _touch(folder, output):
            raise Misuse(
                f"{folder}: the done folder would share a folder with the results in {output}; "
                "name another one"
            )
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise Misuse(f"{existing}: a file is in the way; name a folder as done folder")
    for source in sources:
        if source.exists() and source.stat().st_dev != existing.stat().st_dev:
            raise Misuse(
                f"{folder}: the done folder is on another device than the source {source}; "
                "name one on the same device"
            )


def _touch(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def make_done_folder(folder: Path) -> None:
    """Make the folder. Raises Misuse where it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise Misuse(
            f"{folder}: the done folder cannot be written to: {reason}; name another one"
        )


def move_done_files(
    files: Sequence[ReadFile], done: Collection[Known], base: Path, folder: Path
) -> Moves:
    """Move the files below `base` whose documents are all `done` into `folder`.

    A link moves as a link, and before the file that it leads to. That file stays while a link to
    it does.
    """
    moves = Moves()
    links: list[ReadFile] = []
    others: list[ReadFile] = []
    needed: set[str] = set()
    for file in files:
        is_done = all(document in done for document in file.documents)
        is_link = file.path.is_symlink()
        if is_link and not is_done:
            needed.add(os.path.realpath(file.path))
        elif is_link:
            links.append(file)
        elif is_done:
            others.append(file)
    for file in [*links, *others]:
        if os.path.realpath(file.path) not in needed:
            _move(file, base, folder, moves)
    return moves


def _move(file: ReadFile, base: Path, folder: Path, moves: Moves) -> None:
    """Move a file, or note why it stays. A file that is gone is nothing to say."""
    name = file.path.relative_to(base)
    try:
        now = signature_of(file.path.stat())
        if now != file.signature or is_racy(now, file.read_at_ns):
            moves.changed.append(str(name))
            return
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target = _reserve(target, file.path)
        try:
            # The target is the empty file that was reserved.
            os.replace(file.path, target)
        except OSError:
            with suppress(OSError):
                target.unlink()
            raise
        moves.moved += 1
    except OSError as error:
        # Another run may have moved it.
        if os.path.lexists(file.path):
            moves.failed.append(f"{name}: {error.strerror}")


def _reserve(wanted: Path, path: Path) -> Path:
    """Return a name in the done folder that was free, with an empty file that holds it.

    Where the name is taken, a hash of the file's content follows, then a number.
    """
    target = wanted
    number = 1
    digest = ""
    while True:
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            digest = digest or _short_hash(path)
            copy = "" if number == 1 else f"~{number}"
            target = wanted.with_name(f"{wanted.stem}~{digest}{copy}{wanted.suffix}")
            number += 1
        else:
            return target


def _short_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
