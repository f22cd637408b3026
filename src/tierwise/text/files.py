"""Text files: read with errors that name the remedy, and written as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tierwise.errors import ConfigError
from tierwise.text.private import open_private


def write_atomically(
    path: Path, content: str | bytes, *, private: bool = False
) -> None:
    """Replace a file in one step: a reader sees the old content or the new one, never a part.

    Text is written as UTF-8, its line ends as they are. Only its owner can read a private file.
    Raises OSError; the old file then stays.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    draft = _draft_of(path)
    try:
        with open(draft, "wb", opener=_opener(private)) as file:
            file.write(data)
        os.replace(draft, path)
    except BaseException:  # a cancelled run, too, leaves no draft
        _remove(draft)
        raise


@contextmanager
def open_atomically(
    path: Path, *, errors: str = "strict", private: bool = False
) -> Iterator[IO[str]]:
    """Open a text file that takes the place of `path` at the end of the block, if nothing failed.

    For content that is too large for memory; `errors` is that of `open`. Only its owner can read a
    private file. Raises OSError.
    """
    opener = _opener(private)
    draft = _draft_of(path)
    try:
        with open(
            draft, "w", encoding="utf-8", errors=errors, newline="\n", opener=opener
        ) as file:
            yield file
        os.replace(draft, path)
    except BaseException:
        _remove(draft)
        raise


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte-order mark. Raises ConfigError."""
    with read_errors(path):
        return path.read_text(encoding="utf-8-sig")


@contextmanager
def read_errors(path: Path, kind: str = "file") -> Iterator[None]:
    """Turn the errors of opening, reading and decoding a file into ConfigError.

    `kind` names the file in the message about a missing one: "this file of outcomes is missing".
    """
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(
            f"this {kind} is missing; check its name", path=path
        ) from None
    except UnicodeDecodeError:
        raise ConfigError("it is not UTF-8; save it as UTF-8", path=path) from None
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror or error}", path=path
        ) from None


def _opener(private: bool) -> Callable[[str, int], int] | None:
    return open_private if private else None


def _draft_of(path: Path) -> str:
    # In the same folder, since a rename is atomic within one file system alone. A plain name, as a
    # run writes a page for each document, and a path takes longer to make than the file.
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name}.{os.getpid()}")


def _remove(draft: str) -> None:
    """Remove what a failed write left behind."""
    with suppress(OSError):
        os.unlink(draft)


def folder_with(name: str, start: Path) -> Path | None:
    """Return the folder that has a folder of this name: `start`, or the closest one above it."""
    for candidate in (start, *start.parents):
        if (candidate / name).is_dir():
            return candidate
    return None
