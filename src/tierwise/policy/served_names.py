"""Names that servers give their models: which two are forms of the same one.

The rules are closed. Two names are forms of the same model if they are equal without

- the letter case, and white space around them;
- a folder, a provider or `models/` in front: all up to the last `/` or backslash;
- `.gguf` at the end, and Ollama's tag `:latest`;
- `-latest` at the end;
- a date at the end, or a revision of three digits, where **only one of the two names has it**.

Two different dates or revisions are two models. So is everything else that differs, such as a size,
a quantisation or a version of another form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LONGEST = 100  # characters of a name that are shown
_FILE = ".gguf"
# A date of a release: 2024-08-06, 20240806, 240806, 08-06, 0806 or 2411; a revision: 001.
_RELEASE = re.compile(
    r"[-@_](20\d\d-[01]\d-[0-3]\d|20\d\d[01]\d[0-3]\d|\d\d[01]\d[0-3]\d|[01]\d-[0-3]\d"
    r"|[01]\d[0-3]\d|2[0-9][01]\d|\d{3})$"
)


@dataclass(frozen=True, slots=True)
class ServedName:
    """A server's name of a model in its parts; `release` is its date or revision, if it has one."""

    base: str
    release: str | None


def read_name(name: str) -> ServedName:
    """Return a name without what two forms of it may differ in."""
    text = name.strip().lower().replace("\\", "/")
    text = text.rstrip("/").rpartition("/")[2]
    text = text.removesuffix(_FILE).removesuffix(":latest").removesuffix("-latest")
    match = _RELEASE.search(text)
    if match is None:
        return ServedName(text, None)
    digits = match[1].replace("-", "")
    return ServedName(text[: match.start()], digits)


def is_same_model(one: str, other: str) -> bool:
    """Return True for two forms of the same model's name."""
    left = read_name(one)
    right = read_name(other)
    if left.base != right.base:
        return False
    return (
        left.release is None or right.release is None or left.release == right.release
    )


def with_releases(certified: tuple[str, ...], seen: list[str]) -> tuple[str, ...]:
    """Return the certified names, each with the first release of it that was seen.

    A name without a date may be an alias that moves on. The first date that it came with is the one
    that later ones are compared with.
    """
    names: list[str] = []
    for name in certified:
        own = read_name(name)
        pinned = name
        if own.release is None:
            for each in seen:
                other = read_name(each)
                if other.base == own.base and other.release is not None:
                    pinned = each
                    break
        names.append(pinned)
    return tuple(names)


def shown_name(name: str) -> str:
    """Return a name as messages show it: a server may send anything."""
    printable = "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name
    )
    if len(printable) > _LONGEST:
        return printable[:_LONGEST] + "…"
    return printable
