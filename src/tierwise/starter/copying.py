"""What `tierwise init` and `tierwise new` copy: plain files in `files/`, `step/` and `flow/`, with names put in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Literal

from tierwise.errors import Misuse, TierwiseError

FOLDER = Path(__file__).parent
Part = Literal["files", "step", "flow"]


def copies(part: Part, root: Path, names: Mapping[str, str]) -> dict[Path, str]:
    """Where each file of a part goes below a project's root, and its text, every name on the left put in.

    Raises Misuse for the first file that is there already.
    """
    source = FOLDER / part
    found = [
        path.relative_to(source)
        for path in source.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    ]
    texts = {
        root / _named(path.as_posix(), names): _named(
            (source / path).read_text(encoding="utf-8"), names
        )
        for path in sorted(found)
    }
    for path in texts:
        if path.exists():
            raise Misuse(f"{path} is there already; nothing was written")
    return texts


def write(texts: Mapping[Path, str]) -> None:
    """Write files and the folders that they need. Raises TierwiseError."""
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise TierwiseError(f"{path} cannot be written: {error.strerror}") from None


def _named(text: str, names: Mapping[str, str]) -> str:
    return reduce(lambda done, name: done.replace(name, names[name]), names, text)
