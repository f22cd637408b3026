"""The values that readers return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tierwise.records import PageFile, PageWords


@dataclass(frozen=True, slots=True)
class Extracted:
    """The content of a converted file. `declared` is the sensitivity in the file's own words.

    `unread_pages` says which whole pages are not in the text, such as `page 3 of 4 has no text`;
    `unread` lists the other parts that are not, such as `the attached file plan.pdf`. The encrypted
    parts of an e-mail count as pages. `remedy` is what a person can do about it, in the imperative.
    `parts` are documents of their own.
    `pages` are those that text recognition read, and `page_total` is the number of pages that can
    be looked at.
    """

    text: str = field(repr=False)
    metadata: dict[str, str] = field(default_factory=dict, repr=False)
    declared: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    unread_pages: tuple[str, ...] = ()
    remedy: str = ""
    parts: tuple[Part, ...] = field(default=(), repr=False)
    # False for an archive and a table: their parts alone are documents
    is_document: bool = True
    pages: tuple[PageWords, ...] = field(default=(), repr=False)
    page_total: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A document inside of a file: a row, a sheet, an archive's member, an attached file.

    `key` follows the id of the file: `#Prices!7`, or `/invoice.pdf`. The content is `extracted`, or
    `data` that is to be read by the ending of `name`. A part that cannot be read has its `problem`.
    """

    key: str
    name: str = ""
    extracted: Extracted | None = field(default=None, repr=False)
    data: bytes | None = field(default=None, repr=False)
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawDocument:
    """The content of a file or row, or the `problem` that a person has to solve.

    Its final sensitivity and language are not decided yet, and its id may not be unique.
    `declared` is the sensitivity in the document's own words; `unread`, `unread_pages` and `remedy`
    are about its parts that are not in the text, as in Extracted. `parent` is the id of the document
    around it, such as the e-mail of an attached file. `format` is its own ending, where it is not
    that of its file. `shard_id` decides about its shard in the place of its id: an attached file is
    read where its e-mail is.
    """

    id: str
    text: str = field(default="", repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    declared: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    unread_pages: tuple[str, ...] = ()
    remedy: str = ""
    problem: str = ""
    parent: str = ""
    format: str = ""
    shard_id: str = ""
    pages: tuple[PageWords, ...] = field(default=(), repr=False)
    # its `text_hash` is that of the finished text
    page_file: PageFile | None = field(default=None, repr=False)
