"""What a document says of itself: front matter, and a sensitivity that can only be raised."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tierwise.records import SENSITIVITIES, Sensitivity, highest

_BLOCK = re.compile(r"---[ \t]*\n(.*?\n)??---[ \t]*(?:\n|\Z)", re.DOTALL)
_PAIR = re.compile(r"""["']?(\w[\w .-]{0,60}?)["']?[ \t]*:(?:[ \t]+(.*))?""")
_CONTINUED = re.compile(r"[ \t]+\S|-[ \t]|#|\s*$")
_SENSITIVITY = re.compile(
    r"""^[ \t]*["']?sensitivity["']?[ \t]*:(.*)$""", re.IGNORECASE | re.MULTILINE
)


def raised(base: Sensitivity, declared: Iterable[str]) -> tuple[Sensitivity, str]:
    """The strictest of the flow's sensitivity and the declared ones, with a note when one is unknown.

    A declaration never lowers; a word that is none of ours means restricted.
    """
    words = [word for word in (text.strip().casefold() for text in declared) if word]
    unknown = [word for word in words if word not in SENSITIVITIES]
    levels = [base, *(level for level in SENSITIVITIES if level in words)]
    if not unknown:
        return highest(*levels), ""
    return (
        "restricted",
        f"'{unknown[0][:40]}' is not one of {', '.join(SENSITIVITIES)}; taken as restricted",
    )


def front_matter(text: str) -> tuple[dict[str, str], tuple[str, ...], str]:
    """Fields, declared sensitivities and the text without its front matter.

    Front matter is a first block of `key: value` lines between `---` lines. Any other block stays
    text, but a `sensitivity:` line in it counts: a slip of form must not make a document public.
    """
    text = text.lstrip()
    if not text.startswith("---"):
        return {}, (), text
    block = _BLOCK.match(text)
    inside = (block[1] or "") if block else text.partition("\n\n")[0]
    declared = tuple(_scalar(match[1]) for match in _SENSITIVITY.finditer(inside))
    if not block:
        return {}, declared, text
    fields: dict[str, str] = {}
    key = ""
    for line in inside.splitlines():
        if pair := _PAIR.fullmatch(line.rstrip()):
            key = pair[1]
            fields[key] = _scalar(pair[2] or "")
        elif not _CONTINUED.match(line):
            return {}, declared, text
        elif key and not line.lstrip().startswith("#"):
            fields[key] = f"{fields[key]} {line.strip()}".strip()
    if not fields:
        return {}, declared, text
    extra = {k: v for k, v in fields.items() if v and k.casefold() != "sensitivity"}
    lists = tuple(v for k, v in fields.items() if k.casefold() == "sensitivity")
    return extra, declared + lists, text[block.end() :]


def _scalar(value: str) -> str:
    """A YAML scalar's text: without a comment and without its quotes."""
    value = re.sub(r"(?:^|\s)#.*$", "", value).strip()
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
