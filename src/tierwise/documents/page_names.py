"""File names of documents' pages: each document has its own, decided by its id alone.

A name that is plain is its own page's name, `letter.txt.md`. What file systems may take for
another name, or refuse, gets a hash of the whole id behind it. So a page's name depends neither on
other documents nor on the order in which they come.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

# Bytes of a name without its ending. Some file systems end at 143, and a draft needs 12 more.
_LONGEST_NAME = 120
_HASH_DIGITS = 16
_PLAIN = re.compile(r"[\w#@+][\w.#@+-]*")
# In the place of the slashes in an id; other ids with this character are not plain.
_FOLDER = "~"
# How a name with a hash ends. An id that ends like this gets one, too.
_LOOKS_HASHED = re.compile(rf"~[0-9a-f]{{{_HASH_DIGITS}}}")
# Windows keeps these names for devices, whatever the ending is.
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\.|~|$)")


def page_name(id: str, source: str = "") -> str:  # noqa: A002 - the document's
    """Return the file name of a document's page: never a path, never hidden, no other one's.

    Different ids give names that are different on every file system, also where it takes upper
    and lower case, or two Unicode spellings of a letter, for the same. `source` is that of a
    document in a folder whose plain names belong to another source.
    """
    flat = id.replace("/", _FOLDER)
    if not source and _is_plain(id, flat):
        return f"{flat}.md"
    data = f"{source}\0{id}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]
    readable = re.sub(r"[^\w.#@+~-]+", "_", flat).lstrip(".-~")
    if _DEVICES.match(readable.casefold()):
        readable = f"_{readable}"
    longest = _LONGEST_NAME - len(digest) - 1
    stem = readable.encode()[:longest].decode("utf-8", "ignore")
    return f"{stem or 'document'}~{digest}.md"


def _is_plain(id: str, flat: str) -> bool:  # noqa: A002 - the document's
    """Return True if no other id has this name, and each file system takes it."""
    parts = id.split("/")
    return (
        all(_PLAIN.fullmatch(part) and not part.endswith(".") for part in parts)
        and _file_system_key(flat) == flat
        and len(flat.encode()) <= _LONGEST_NAME
        and not _LOOKS_HASHED.search(flat)
        and not _DEVICES.match(flat)
    )


def _file_system_key(name: str) -> str:
    """Return the same key for names that some file systems take for one name."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    # Windows compares capitals: they take the dotless i for an i.
    return unicodedata.normalize("NFKC", folded.upper()).casefold()
