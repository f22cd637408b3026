"""A project's own readers: a function in a module of the project, by the ending of its files.

`".edi" = "readers.edi:read"` in `[tool.tierwise.readers]` names the function `read` of
`readers/edi.py`. It takes the bytes of a file and returns its text; a mapping with `text`, which is
read like a row of a table; or several of them, one a document. It runs in the sandbox.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tierwise.documents.readers.results import Extracted, Part, RawDocument
from tierwise.documents.readers.rows import row_document
from tierwise.documents.readers.settings import Request
from tierwise.errors import DocumentError

_ITSELF = "text"  # the key with the text in a mapping


def read_own(data: bytes, request: Request) -> Extracted:
    """Return what the project's reader of this ending makes of a file.

    Raises DocumentError with the reader's name for each of its failures.
    """
    reader = request.settings.own[request.suffix]
    root = request.settings.root
    try:
        result = _call(reader, data, root)
        if isinstance(result, Extracted):
            return result
        if isinstance(result, str):
            return Extracted(result)
        if isinstance(result, Mapping):
            return as_extracted(row_document(result, 1, set(), _ITSELF))
        if isinstance(result, Iterable) and not isinstance(result, bytes):
            return _documents(list(result))
    except DocumentError as error:
        raise DocumentError(f"the reader {reader} says: {error}") from error
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        # Its text may quote the document, so it is left out.
        name = type(error).__name__
        raise DocumentError(
            f"the reader {reader} failed: {name}{_place(error, root)}; mend it, or correct the file"
        ) from error
    raise DocumentError(
        f"the reader {reader} returned a {type(result).__name__}; let it return a text, a mapping "
        "with 'text', or a list of these"
    )


def _call(reader: str, data: bytes, root: Path | None) -> Any:
    """Import the reader from the project, and call it."""
    module, _, function = reader.partition(":")
    if root and str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return getattr(importlib.import_module(module), function)(data)


def _documents(items: list[Any]) -> Extracted:
    """Return several documents. Raises DocumentError for an item that is none."""
    parts: list[Part] = []
    seen: set[str] = set()
    for number, item in enumerate(items, 1):
        row = {_ITSELF: item} if isinstance(item, str) else item
        if not isinstance(row, Mapping):
            raise DocumentError(
                f"document {number} is a {type(item).__name__}; it has to be a text or a mapping"
            )
        parts.append(row_part(row_document(row, number, seen, _ITSELF)))
    return Extracted("", parts=tuple(parts), is_document=False)


def as_extracted(raw: RawDocument) -> Extracted:
    """Return a row as the content of a whole file. Raises DocumentError where it has a problem."""
    if raw.problem:
        raise DocumentError(raw.problem)
    return Extracted(raw.text, dict(raw.metadata), raw.declared)


def row_part(raw: RawDocument, *, table: str = "", place: str = "") -> Part:
    """Return a row as a part; `table` and `place` say where it is, such as `Prices` and `row 7`."""
    key = f"#{table}!{raw.id}" if table else f"#{raw.id}"
    problem = raw.problem
    if problem and place:
        problem = f"{place}: {problem}"
    extracted = None
    if not problem:
        extracted = Extracted(raw.text, dict(raw.metadata), raw.declared)
    return Part(key=key, extracted=extracted, problem=problem)


def _place(error: BaseException, root: Path | None) -> str:
    """Return the last line of the project's own code in an error's way, such as ` (edi.py:7)`."""
    if root is None:
        return ""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(root):
            return f" ({path.relative_to(root)}:{frame.lineno})"
    return ""
