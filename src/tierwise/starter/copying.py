"""The files that `tierwise init` and `tierwise new` copy, with names put in.

They are plain files in `files/`, `step/` and `flow/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from tierwise.errors import Misuse, TierwiseError

FOLDER = Path(__file__).parent
Part = Literal["files", "step", "flow"]


def copies(part: Part, root: Path, names: Mapping[str, str]) -> dict[Path, str]:
    """Return the text of each file of a part, by its path below a project's root.

    Each key of `names` is replaced by its value, in paths and texts. Raises Misuse for the first
    file that exists already.
    """
    source = FOLDER / part
    texts: dict[Path, str] = {}
    for file in sorted(source.rglob("*")):
        if not file.is_file() or file.suffix == ".pyc":
            continue
        path = root / _replace_names(file.relative_to(source).as_posix(), names)
        if path.exists():
            raise Misuse(f"{path} is there already; nothing was written")
        texts[path] = _replace_names(file.read_text(encoding="utf-8"), names)
    return texts


def write(texts: Mapping[Path, str]) -> None:
    """Write files and the folders that they need. Raises TierwiseError."""
    for path, text in texts.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise TierwiseError(f"{path} cannot be written: {error.strerror}") from None


def _replace_names(text: str, names: Mapping[str, str]) -> str:
    for name, replacement in names.items():
        text = text.replace(name, replacement)
    return text
