"""Readers: the bytes of a file become text and metadata, one format a module.

formats        the table of converters, by a file's ending; add a format here
html, mail, pdf, word    one converter each
rows           CSV and JSON Lines, one document a row
front_matter   the fields at the top of a text file
decoding       bytes to text, with a guess at the encoding
sandbox        the child process that runs the converters, with limits on time and memory
sandbox_child  the child's side of it
results        the values that readers return
"""

from __future__ import annotations

from tierwise.documents.readers.decoding import decode
from tierwise.documents.readers.formats import (
    ACCEPTED,
    CONVERTERS,
    ROWS,
    TEXTS,
    extract,
)
from tierwise.documents.readers.front_matter import FrontMatter, split_front_matter
from tierwise.documents.readers.results import Extracted, RawDocument
from tierwise.documents.readers.rows import RowFile, row_document
from tierwise.documents.readers.sandbox import ConversionStopped, Sandbox

__all__ = [
    "ACCEPTED",
    "CONVERTERS",
    "ROWS",
    "TEXTS",
    "ConversionStopped",
    "Extracted",
    "FrontMatter",
    "RawDocument",
    "RowFile",
    "Sandbox",
    "decode",
    "extract",
    "row_document",
    "split_front_matter",
]
