"""Front matter: the `key: value` lines at the top of a text file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tierwise.errors import ConfigError
from tierwise.text.yaml import parse_yaml

_BLOCK = re.compile(r"---[ \t]*\n(.*?\n)??---[ \t]*(?:\n|\Z)", re.DOTALL)
# As Hugo writes it. It is no front matter here, but its sensitivity counts.
_TOML_BLOCK = re.compile(
    r"\+\+\+[ \t]*\n(.*?)(?:^\+\+\+|\n\n|\Z)", re.DOTALL | re.MULTILINE
)
_PAIR = re.compile(r"""["']?(\w[\w .-]{0,60}?)["']?[ \t]*:(?:[ \t]+(.*))?""")
_CONTINUED = re.compile(r"[ \t]+\S|-[ \t]|#|\s*$")
_SENSITIVITY = re.compile(
    r"""^[ \t]*["']?sensitivity["']?[ \t]*[:=](.*)$""", re.IGNORECASE | re.MULTILINE
)
# Anchors, aliases and tags, which could make a small text a huge value.
_ALIAS = re.compile(r"(?:^|[\s\[{,])[&*!]", re.MULTILINE)
_PLAIN_KEY = re.compile(r"[^\W\d][\w.-]*")
_LONGEST_BLOCK = 20_000  # characters
_COMMENT = re.compile(r"(?:^|\s)#.*$")
# In front of the first line: white space, and characters that nobody sees.
_UNSEEN = re.compile("[\\s\ufeff\u200b-\u200f\u2060\u00ad]*")


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """The fields, the declared sensitivities, and the body: the text without its front matter."""

    body: str = field(repr=False)
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)
    declared: tuple[str, ...] = ()


def split_front_matter(text: str, *, has_fields: bool = True) -> FrontMatter:
    """Separate a text's front matter from its body.

    Front matter is a first block between `---` lines that is a YAML mapping, with text below it.
    Any other block stays in the body, as do all blocks without `has_fields`: a letter may begin
    with a rule. A `sensitivity:` line in it counts all the same: a slip of form must not make a
    document public.
    """
    text = text[_UNSEEN.match(text).end() :]  # type: ignore[union-attr] # matches any text
    toml = _TOML_BLOCK.match(text)
    if toml:
        return FrontMatter(text, declared=_sensitivity_lines(toml[1]))
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
    others: dict[str, str] = {}
    for key, value in fields.items():
        if key.casefold() == "sensitivity":
            # Once more, as the field may go on over several lines, such as a YAML list.
            declared += (value,)
        elif value:
            others[key] = value
    body = text[block.end() :]
    # A block with nothing below it is the letter itself.
    is_all = bool(others) and not body.strip()
    if not has_fields or is_all or not fields or not _is_mapping(inside):
        return FrontMatter(text, declared=declared)
    return FrontMatter(body, others, declared)


def _is_mapping(inside: str) -> bool:
    """Return True for a YAML mapping whose keys are single words."""
    if len(inside) > _LONGEST_BLOCK or _ALIAS.search(inside):
        return False
    try:
        content = parse_yaml(inside, "front matter").data
    except ConfigError:
        return False
    return isinstance(content, dict) and all(map(_PLAIN_KEY.fullmatch, content))


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
