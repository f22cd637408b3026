"""What a project decides about reading: the settings that readers get with a file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tierwise.documents.readers.pages.recognizer import installed_version

Tables = Literal["auto", "rows", "document"]
Attachments = Literal["documents", "names"]


@dataclass(frozen=True, slots=True)
class ReadingSettings:
    """The project's settings for all files.

    `tables` says what a spreadsheet, a JSON or an XML file gives: a document for each row, or one
    for each sheet or file; `auto` gives rows where there is a text column. `rows_at` is the path of
    the rows in JSON and XML, such as `data.items`. `attachments` of e-mails become documents, or
    only their names are read. `ocr` says whether text recognition reads scans, and
    `keep_recognized` whether its results are kept below `root`. `own` has the project's own readers
    by ending, as `module:function` below `root`.
    """

    tables: Tables = "auto"
    rows_at: str = ""
    attachments: Attachments = "documents"
    ocr: bool = True
    keep_recognized: bool = True
    own: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None

    def key(self) -> list[object]:
        """Return what decides, with a file's bytes, which documents it gives.

        It changes with a reader's module, not with modules that this one imports; and with text
        recognition, so that scans that wait for it are read once it is installed.
        """
        own: list[tuple[str, str, str]] = []
        for ending, reader in sorted(self.own.items()):
            module = reader.partition(":")[0].replace(".", "/")
            path = (self.root or Path()) / f"{module}.py"
            digest = ""
            if path.is_file():
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            own.append((ending, reader, digest))
        recognition = installed_version() if self.ocr else ""
        return [self.tables, self.rows_at, self.attachments, own, recognition]


DEFAULTS = ReadingSettings()


@dataclass(frozen=True, slots=True)
class Request:
    """How one file is to be read: its ending, the settings, and the column with the text."""

    suffix: str
    text_column: str = "text"
    max_bytes: int = 20_000_000
    settings: ReadingSettings = DEFAULTS
    # pages to return as images, in place of the text
    show: int = 0
