"""The values that readers return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Extracted:
    """The content of a converted file. `declared` is the sensitivity in the file's own words.

    `unread` lists the parts of the file that are not in the text, such as `page 3 has no text`.
    """

    text: str = field(repr=False)
    metadata: dict[str, str] = field(default_factory=dict, repr=False)
    declared: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDocument:
    """The content of a file or row, or the `problem` that a person has to solve.

    Its final sensitivity and language are not decided yet, and its id may not be unique.
    `declared` is the sensitivity in the document's own words; `unread` lists its parts that are
    not in the text.
    """

    id: str
    text: str = field(default="", repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    declared: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    problem: str = ""
