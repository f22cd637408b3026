"""Front matter: the `key: value` lines at the top of a text file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_BLOCK = re.compile(r"---[ \t]*\n(.*?\n)??---[ \t]*(?:\n|\Z)", re.DOTALL)
_PAIR = re.compile(r"""["']?(\w[\w .-]{0,60}?)["']?[ \t]*:(?:[ \t]+(.*))?""")
_CONTINUED = re.compile(r"[ \t]+\S|-[ \t]|#|\s*$")
_SENSITIVITY = re.compile(
    r"""^[ \t]*["']?sensitivity["']?[ \t]*:(.*)$""", re.IGNORECASE | re.MULTILINE
)
_COMMENT = re.compile(r"(?:^|\s)#.*$")


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """The fields, the declared sensitivities, and the body: the text without its front matter."""

    body: str = field(repr=False)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    declared: tuple[str, ...] = ()


def split_front_matter(text: str) -> FrontMatter:
    """Separate a text's front matter from its body.

    Front matter is a first block of `key: value` lines between `---` lines. Any other block stays
    in the body, but a `sensitivity:` line in it counts: a slip of form must not make a document
    public.
    """
    text = text.lstrip()
    if not text.startswith("---"):
        return FrontMatter(text)
    block = _BLOCK.match(text)
    if block is None:
        # The closing `---` is missing: a sensitivity in the first paragraph still counts.
        first_paragraph = text.partition("\n\n")[0]
        return FrontMatter(text, declared=_sensitivity_lines(first_paragraph))
    inside = block[1] or ""
    declared = _sensitivity_lines(inside)
    fields = _parse_fields(inside)
    if not fields:
        return FrontMatter(text, declared=declared)
    others: dict[str, str] = {}
    for key, value in fields.items():
        if key.casefold() == "sensitivity":
            # Once more, as the field may go on over several lines, such as a YAML list.
            declared += (value,)
        elif value:
            others[key] = value
    return FrontMatter(text[block.end() :], others, declared)


def _sensitivity_lines(inside: str) -> tuple[str, ...]:
    values = _SENSITIVITY.findall(inside)
    return tuple(_unquote(value) for value in values)


def _parse_fields(inside: str) -> dict[str, str]:
    """Return the fields; empty when a line is neither a field, its continuation nor a comment."""
    fields: dict[str, str] = {}
    key = ""
    for line in inside.splitlines():
        pair = _PAIR.fullmatch(line.rstrip())
        if pair:
            key = pair[1]
            fields[key] = _unquote(pair[2] or "")
        elif not _CONTINUED.match(line):
            return {}
        elif key and not line.lstrip().startswith("#"):
            fields[key] = f"{fields[key]} {line.strip()}".strip()
    return fields


def _unquote(value: str) -> str:
    """Return a YAML scalar's text, without a comment and without its quotes."""
    value = _COMMENT.sub("", value).strip()
    if len(value) < 2:
        return value
    for quote in ("'", '"'):
        if value.startswith(quote) and value.endswith(quote):
            return value[1:-1]
    return value
