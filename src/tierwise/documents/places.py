"""Folders by a name that stays: the same for each spelling, and for a project that is moved."""

from __future__ import annotations

import os
from pathlib import Path

from tierwise.errors import Misuse


def place_of(path: Path | str, root: Path) -> str:
    """Return a folder's or file's path below the project's root, or else its absolute path.

    `path` may be relative to the root. Symbolic links are followed.
    """
    base = os.path.realpath(root)
    try:
        real = os.path.realpath(os.path.join(base, path))
    except ValueError:  # a text that is no path, such as one with a NUL
        return str(path)
    if real == base:
        return "."
    inside = base.rstrip(os.sep) + os.sep
    return Path(real.removeprefix(inside)).as_posix()


def source_of(path: Path | str, root: Path) -> str:
    """Return the place of a source; that of a file is its folder, where its id is the same."""
    full = root / path
    return place_of(full.parent if full.is_file() else full, root)


def check_is_no_project(path: Path, root: Path) -> None:
    """Raise Misuse for a source that is the project's folder, or a folder around it."""
    if root.resolve().is_relative_to(path.resolve()):
        raise Misuse(
            f"the source is empty, or the project's own folder ({path.resolve()}): its prompts, "
            "golden sets and results are no documents; name a folder or a file of documents"
        )


def names_place(text: str, place: str, root: Path) -> bool:
    """Return True if a text names a place: its path, a folder above it, or a part of the path."""
    if not text.strip():
        return False
    named = place_of(text, root)
    parts = Path(place).parts
    return named == place or place.startswith(f"{named}/") or text in parts
