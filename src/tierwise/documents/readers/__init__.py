"""Readers: the bytes of a file become text and metadata, one format a module.

formats        the table of converters, by a file's ending; add a format here
html, mail, pdf, word    one converter each
rows           CSV and JSON Lines, one document a row
front_matter   the fields at the top of a text file
decoding       bytes to text, with a guess at the encoding
archives       the members of .zip
own            a project's own readers
unpacking      limits on what is compressed
settings       what a project decides about reading
sandbox        the child process that runs the converters, with limits on time and memory
sandbox_child  the child's side of it
messages       what goes between the two
results        the values that readers return
"""

from __future__ import annotations

from tierwise.documents.readers.decoding import decode
from tierwise.documents.readers.formats import (
    ACCEPTED,
    CONVERTERS,
    ROWS,
    SEVERAL,
    TEXTS,
    extract,
    why_not_accepted,
)
from tierwise.documents.readers.front_matter import FrontMatter, split_front_matter
from tierwise.documents.readers.results import Extracted, Part, RawDocument
from tierwise.documents.readers.rows import RowFile, row_document
from tierwise.documents.readers.sandbox import ConversionStopped, Sandbox
from tierwise.documents.readers.settings import DEFAULTS, ReadingSettings, Request

__all__ = [
    "ACCEPTED",
    "CONVERTERS",
    "DEFAULTS",
    "ROWS",
    "SEVERAL",
    "TEXTS",
    "ConversionStopped",
    "Extracted",
    "FrontMatter",
    "Part",
    "RawDocument",
    "ReadingSettings",
    "Request",
    "RowFile",
    "Sandbox",
    "decode",
    "extract",
    "row_document",
    "split_front_matter",
    "why_not_accepted",
]
