"""Results as files: one line and one readable page a document, the same bytes for the same outcomes."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tierwise.documents.markdown import page
from tierwise.errors import Misuse
from tierwise.records import Batch, Document

LINES = "outcomes.jsonl"
_LONGEST_NAME = 150  # bytes; file systems end at 255


def write_documents(batches: Iterable[Batch], folder: Path, *, keep: bool = False) -> Path:
    """Write `outcomes.jsonl` and a Markdown page for each document into `folder`; returns the former's path.

    Nothing in the files depends on when, or at what price, they were made. `outcomes.jsonl` appears
    only when it is complete; with `keep`, the lines of other documents stay in it, after the new ones.
    Raises Misuse when the folder cannot be used.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken: set[str] = set()
        written: set[str] = set()
        with _replacing(folder / LINES) as lines:
            for batch in batches:
                for document in batch.documents:
                    lines.write(_line(document))
                    written.add(document.id)
                    with _replacing(folder / _file_name(document.id, taken)) as file:
                        file.write(page(document))
            if keep and (folder / LINES).exists():
                lines.writelines(_others(folder / LINES, written))
    except (FileExistsError, NotADirectoryError):
        raise Misuse(f"{folder}: a file is in the way; name a folder") from None
    except PermissionError as error:
        raise Misuse(
            f"{error.filename or folder}: cannot be written: {error.strerror}; name another folder"
        ) from None
    return folder / LINES


def _others(path: Path, written: set[str]) -> Iterator[str]:
    """The lines of an earlier file but for these documents'."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        yield from (line for line in lines if json.loads(line)["id"] not in written)


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """A file that takes the place of `path` when it is complete, and leaves nothing behind when it is not."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        # lone surrogates, which UTF-8 lacks, are spelt out
        with draft.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            yield file
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _line(document: Document) -> str:
    """One document as a line of JSON."""
    steps = {
        outcome.step: {
            "status": outcome.status,
            "value": outcome.value,
            "reason": outcome.reason,
            "model": outcome.model,
        }
        for outcome in document.outcomes.values()
    }
    line = {
        "id": document.id,
        "hash": document.hash,
        "sensitivity": document.strictest,
        "language": document.language,
        "metadata": dict(document.metadata),
        "outcomes": steps,
    }
    return json.dumps(line, ensure_ascii=False, default=str) + "\n"


def _file_name(id: str, taken: set[str]) -> str:  # noqa: A002 - the document's
    """A name of its own for a document's page; never a path, never hidden, whatever the id holds."""
    safe = re.sub(r"[^\w.#@+-]+", "_", id).lstrip(".-")
    stem = safe.encode()[:_LONGEST_NAME].decode("utf-8", "ignore") or "document"
    number = 1
    name = stem
    while (
        key := unicodedata.normalize("NFKC", name).casefold()
    ) in taken:  # some file systems take them for the same
        number += 1
        name = f"{stem}~{number}"
    taken.add(key)
    return f"{name}.md"
