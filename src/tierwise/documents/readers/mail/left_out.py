"""The parts of a mail that are not in its text: their names, sizes and hashes."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from tierwise.documents.readers.archives import unique
from tierwise.documents.readers.results import Part

# `attached` and `unreadable` hold something that is not in the text; a `picture` is small and part
# of the layout, a `signature` proves who wrote, `read` is in the text, too.
LeftOutStatus = Literal[
    "attached", "encrypted", "unreadable", "picture", "signature", "read"
]

OUTLOOK = ("application/ms-tnef", "application/vnd.ms-tnef")  # winmail.dat

DECRYPT = "save a decrypted copy"

# contacts, and references to files elsewhere
_NO_FILES = ("message/", "text/vcard", "text/x-vcard", "text/css", "text/javascript")
_LONGEST_NAME = 100
_MOST_NAMES = 100
_MOST_PHRASES = 20
_HASH_LENGTH = 12


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part that is not in the text. `phrase` names it for a person."""

    name: str = field(repr=False)
    phrase: str = field(repr=False)
    status: LeftOutStatus
    kind: str
    charset: str | None = None
    data: bytes = field(default=b"", repr=False)

    @property
    def digest(self) -> str:
        """A short hash of the content: equal names with other content differ."""
        return hashlib.sha256(self.data).hexdigest()[:_HASH_LENGTH]


def left_out(
    name: str,
    data: bytes,
    *,
    status: LeftOutStatus,
    kind: str,
    charset: str | None = None,
    phrase: str = "",
) -> LeftOut:
    """Return a part that is left out, with a name that is fit to be shown."""
    shown = printable(name) or f"unnamed {kind}"
    return LeftOut(
        shown, phrase or f"the attached file {shown}", status, kind, charset, data
    )


def printable(name: str) -> str:
    """Return a name from a mail on one line, without marks that change how others read."""
    line = " ".join(name.split())
    clean = "".join(character for character in line if character.isprintable())
    if len(clean) <= _LONGEST_NAME:
        return clean
    return f"{clean[: _LONGEST_NAME - 16]}…{clean[-15:]}"


def is_document(part: LeftOut) -> bool:
    """Return True for an attached file that can be read as a document of its own."""
    if part.status != "attached" or not part.data:
        return False
    return part.kind not in OUTLOOK and not part.kind.startswith(_NO_FILES)


def attached_parts(parts: Iterable[LeftOut]) -> tuple[Part, ...]:
    """Return the attached files, to be read as documents of their own.

    One whose name has no ending gets that of its type.
    """
    keys: set[str] = set()
    found: list[Part] = []
    for part in parts:
        if not is_document(part):
            continue
        name = part.name.replace("/", "_").replace("\\", "_")
        if not PurePosixPath(name).suffix:
            name = f"{name}{mimetypes.guess_extension(part.kind) or ''}"
        found.append(Part(key=unique(f"/{name}", keys), name=name, data=part.data))
    return tuple(found)


def attachments_line(parts: Sequence[LeftOut]) -> str:
    """Return the last line of a mail's text; empty when nothing is left out.

    The hashes keep two mails apart that differ in their attachments alone.
    """
    listed = [part for part in parts if part.status != "signature"]
    if not listed:
        return ""
    items = [
        f"{part.name} ({_size(len(part.data))}, {part.digest})"
        for part in listed[:_MOST_NAMES]
    ]
    others = listed[_MOST_NAMES:]
    if others:
        joined = "".join(part.name + part.digest for part in others)
        digest = hashlib.sha256(joined.encode()).hexdigest()[:_HASH_LENGTH]
        items.append(f"and {len(others):,} more ({digest})")
    return f"Attachments: {', '.join(items)}"


def attachment_names(parts: Iterable[LeftOut]) -> str:
    """Return the names for the metadata."""
    return _limited([part.name for part in parts], _MOST_NAMES, ", ")


def unread_phrases(parts: Iterable[LeftOut], others: Iterable[str]) -> tuple[str, ...]:
    """Return what is not in the text, one phrase a part, each phrase once."""
    phrases = [
        part.phrase for part in parts if part.status in ("attached", "unreadable")
    ]
    return _shortened([*phrases, *others])


def encrypted_phrases(parts: Iterable[LeftOut]) -> tuple[str, ...]:
    """Return which encrypted parts are not in the text."""
    return _shortened([part.phrase for part in parts if part.status == "encrypted"])


def _shortened(phrases: Iterable[str]) -> tuple[str, ...]:
    unique = tuple(dict.fromkeys(phrases))
    if len(unique) <= _MOST_PHRASES:
        return unique
    more = len(unique) - _MOST_PHRASES
    return (*unique[:_MOST_PHRASES], f"{more:,} more parts")


def why_it_waits(parts: Sequence[LeftOut], others: Sequence[str]) -> str:
    """Say why a mail without a text of its own waits; empty when it has lost nothing."""
    encrypted = [part for part in parts if part.status == "encrypted"]
    if encrypted:
        return f"the e-mail is encrypted ({encrypted[0].name}); {DECRYPT}"
    unreadable = [part for part in parts if part.status == "unreadable"]
    if unreadable:
        phrases = _limited([part.phrase for part in unreadable], 3, "; ")
        return f"its text cannot be read: {phrases}"
    files = [part for part in parts if part.status in ("attached", "picture")]
    if files and all(part.kind in OUTLOOK for part in files):
        return (
            f"its text is in {files[0].name}, which only Outlook reads; "
            "ask for the e-mail in HTML or plain text"
        )
    if files:
        names = _limited([part.name for part in files], 5, ", ")
        them = "that" if len(files) == 1 else "those"
        return f"its text is in {names}: save {them}"
    if others:
        missing = _limited(others, 3, "; ")
        return (
            f"it has no text of its own, and misses {missing}; ask for it as plain text"
        )
    return ""


def _limited(items: Sequence[str], most: int, separator: str) -> str:
    shown = separator.join(items[:most])
    more = len(items) - most
    return f"{shown}{separator}and {more:,} more" if more > 0 else shown


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} byte" if count == 1 else f"{count} bytes"
    if count < 1_000_000:
        return f"{count / 1000:.0f} kB"
    return f"{count / 1_000_000:.1f} MB"
