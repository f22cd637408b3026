"""Groups: several documents as one, whose text shows where each member begins.

No member can forge such a boundary: the word that marks them derives from all members' texts, and
occurs in none of them.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any

from tierwise.documents.sources import printable_name
from tierwise.errors import Misuse
from tierwise.records import Document, Member, highest
from tierwise.text.amounts import plural

PREFIX = "group/"  # of the ids of groups
KEY = "group"  # the field of a group's metadata that holds its key
# Makes a group's text of its members.
MakeText = Callable[[Sequence[Document]], str]

_LONGEST_KEY = 100  # characters in an id
_HASH_DIGITS = 8
# How an id with a hash ends: a key that ends like this gets one, too.
_LOOKS_HASHED = re.compile(rf"~[0-9a-f]{{{_HASH_DIGITS}}}")
_MOST_NAMED = 3


def key_text(key: Any) -> str | None:
    """Return a key as text; None for no key, and for an empty one.

    Two spellings of a letter in Unicode are the same key. Raises Misuse for other types.
    """
    if isinstance(key, Enum):
        key = key.value
    if key is None:
        return None
    if not isinstance(key, str | int | float | Decimal | date):
        raise Misuse(
            f"group_by: a key is a text, a number, a date or None, not a {type(key).__name__}"
        )
    return unicodedata.normalize("NFC", str(key)).strip() or None


def group_id(key: str, taken: Collection[str]) -> str:
    """Return the id of a group, such as `group/ACME`: no other key's, and none that is taken.

    A hash follows where the key is no plain name, is long, or its id is taken.
    """
    readable = printable_name(key)
    plain = f"{PREFIX}{readable}"
    is_plain = readable == key and len(key) <= _LONGEST_KEY
    if is_plain and not _LOOKS_HASHED.search(key) and plain not in taken:
        return plain
    digest = _hash(key)
    while True:
        unique = f"{PREFIX}{readable[:_LONGEST_KEY]}~{digest}"
        if unique not in taken:
            return unique
        digest = _hash(unique)


def joined_text(members: Sequence[Document]) -> str:
    """Return the texts of the members, each after a line with its number and its id."""
    ids = [printable_name(member.id) for member in members]
    mark = _mark([*ids, *(member.text for member in members)])
    parts = []
    pairs = zip(ids, members, strict=True)
    for number, (name, member) in enumerate(pairs, 1):
        parts.append(f"--- {mark}: {number} of {len(ids)}, {name} ---\n{member.text}")
    return "\n\n".join(parts)


def group_of(
    key: str,
    members: Sequence[Document],
    *,
    id: str,  # noqa: A002 - the group's
    text: str,
    left_out: Sequence[str] = (),
) -> Document:
    """Return the group of some documents. `left_out` are the ids of those that are missing.

    It is as sensitive as the strictest of them, and has the metadata that they all share.
    """
    languages = {member.language for member in members}
    metadata = _shared([member.metadata for member in members])
    metadata[KEY] = key
    note = _incomplete(members, left_out)
    if note:
        metadata["incomplete"] = note
    sources = {member.source for member in members}
    return Document(
        id=id,
        text=text,
        sensitivity=highest(*(member.strictest for member in members)),
        sensitivity_source="members",
        language=languages.pop() if len(languages) == 1 else None,
        metadata=metadata,
        source=sources.pop() if len(sources) == 1 else "",
        members=tuple(_member(member) for member in members),
    )


def _member(document: Document) -> Member:
    values = {
        step: outcome.value
        for step, outcome in document.outcomes.items()
        if outcome.status == "accepted"
    }
    return Member(
        id=document.id,
        hash=document.hash,
        sensitivity=document.strictest,
        language=document.language,
        metadata=dict(document.metadata),
        values=values,
        members=document.members,
    )


def _shared(all_metadata: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the fields that all documents have with the same value."""
    first, *others = all_metadata
    return {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }


def _incomplete(members: Sequence[Document], left_out: Sequence[str]) -> str:
    """Return what a group lacks, in words; empty where it lacks nothing."""
    parts = []
    if left_out:
        parts.append(f"without {plural(len(left_out), 'document')}: {named(left_out)}")
    partly = [member.id for member in members if "incomplete" in member.metadata]
    if partly:
        parts.append(f"{plural(len(partly), 'document')} read in part: {named(partly)}")
    return "; ".join(parts)


def named(ids: Sequence[str]) -> str:
    """Return the first ids, and how many others there are."""
    text = ", ".join(printable_name(name) for name in ids[:_MOST_NAMED])
    others = len(ids) - _MOST_NAMED
    return f"{text} and {others} more" if others > 0 else text


def _mark(texts: Sequence[str]) -> str:
    """Return a word that occurs in none of the texts, the same for the same texts."""
    digest = hashlib.sha256()
    for text in texts:
        # With its length: other texts that are the same in a row give another word.
        data = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    mark = f"member-{digest.hexdigest()[:6]}"
    while any(mark in text for text in texts):
        mark = f"member-{_hash(mark)[:6]}"
    return mark


def _hash(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]
