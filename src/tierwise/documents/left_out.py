"""Files of a source that are not read: files of other programs, hidden ones, and earlier results."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from tierwise.documents.html_page import BEGINNING

# Files and folders that operating systems and file servers make by themselves.
_SYSTEM_FILES = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r")
)
_SYSTEM_FOLDERS = frozenset(
    ("__macosx", "$recycle.bin", "system volume information", "@eadir", "#recycle")
)
# An open document's lock (Office, LibreOffice), temporary files, and editors' backup copies.
_OTHER_PROGRAMS = re.compile(r"~\$.*|~lock\..*#|.*\.tmp|.*~|#.*#", re.DOTALL)
# The beginning of what `write_documents` writes: a document's page, and a line of outcomes.jsonl.
_PAGE = re.compile(r"---\nsensitivity: [a-z]+\n---\n\n# `[^\n]+\n\n- `language`: `")
_LINE = re.compile(
    r'\{"id": "(?:[^"\\]|\\.)*", "hash": "[0-9a-f]{64}", "sensitivity": "[a-z]+", "language": '
)
_BEGINNING = 8_000  # bytes; more than the longest beginning
_MOST_NAMED = 3
_MOST_LOOKED_AT = 1_000


@dataclass
class LeftOut:
    """The files and folders that were left out, by kind: their number and the first names."""

    _counts: dict[str, int] = field(default_factory=dict)
    _names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, name: str) -> None:
        """Count a file or folder as one of its kind."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        names = self._names.setdefault(kind, [])
        if len(names) < _MOST_NAMED:
            names.append(name)

    def has(self, kind: str) -> bool:
        """Return True if something of this kind was left out."""
        return kind in self._counts

    def describe(self) -> str:
        """Such as `2 files of other programs (Thumbs.db, ~$a.docx)`; empty when there are none."""
        parts: list[str] = []
        for kind, count in self._counts.items():
            names = ", ".join(self._names[kind])
            if count > _MOST_NAMED:
                names += ", …"
            parts.append(f"{count} {kind} ({names})")
        return "; ".join(parts)


def kind_of_name(name: str, *, is_folder: bool) -> str:
    """Return what a file or folder is that no person wrote as a document; empty for any other."""
    if name.startswith("."):
        return "hidden"
    name = name.casefold()
    if is_folder:
        return "of other programs" if name in _SYSTEM_FOLDERS else ""
    if name in _SYSTEM_FILES or _OTHER_PROGRAMS.fullmatch(name):
        return "of other programs"
    return ""


def is_folder_of(entry: os.DirEntry[str]) -> bool:
    """Return True for a folder, or a link to one; False for a link that leads in a circle."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_result(path: Path) -> bool:
    """Return True for a file that `write_documents` wrote, by its beginning."""
    suffix = path.suffix.lower()
    if suffix not in (".md", ".jsonl", ".html") or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING).decode("utf-8", "replace")
    except OSError:
        return False  # reading it says so
    if suffix == ".html":
        return beginning.startswith(BEGINNING)
    if suffix == ".md":
        return _PAGE.match(beginning) is not None
    if path.name == "outcomes.jsonl" and not beginning:
        return True
    return _LINE.match(beginning) is not None


def holds_only_results(folder: Path) -> bool:
    """Return True for a folder of earlier results and nothing else.

    Such a folder is read when it is the source, so that one flow can work on another's results.
    Results in its subfolders alone do not make it one: they are left when a watched folder, below
    which a run writes, has no letter for a while.
    """
    looked_at = 0
    has_own = False
    to_visit = [folder]
    while to_visit and looked_at < _MOST_LOOKED_AT:
        visited = to_visit.pop()
        try:
            with os.scandir(visited) as scanned:
                children = sorted(scanned, key=lambda entry: entry.name)
        except OSError:
            return False
        for child in children:
            if kind_of_name(child.name, is_folder=is_folder_of(child)):
                continue
            if child.is_dir(follow_symlinks=False):
                to_visit.append(Path(child.path))
                continue
            if not is_result(Path(child.path)):
                return False
            looked_at += 1
            has_own = has_own or visited == folder
        if not has_own:
            return False
    return has_own
