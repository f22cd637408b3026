"""Results as files: one line of JSON and one readable page a document.

The same outcomes give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tierwise.documents.markdown import document_page
from tierwise.documents.page_names import page_name
from tierwise.errors import Misuse, TierwiseError
from tierwise.records import Batch, Document
from tierwise.text.files import open_atomically

LINES = "outcomes.jsonl"
# Half characters (lone surrogates), which UTF-8 lacks, are written as escapes.
_ERRORS = "backslashreplace"


def write_documents(
    batches: Iterable[Batch], folder: Path, *, keep: bool = False
) -> Path:
    """Write `outcomes.jsonl` and a Markdown page for each document; return the path of the former.

    Nothing in the files depends on when, or at what price, they were made. `outcomes.jsonl`
    appears only when it is complete. With `keep`, the lines of other documents stay in it, after
    the new ones. Raises Misuse when the folder cannot be used, and TierwiseError when the disk
    fails otherwise.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_all(batches, folder, keep=keep)
    except (FileExistsError, NotADirectoryError):
        raise Misuse(f"{folder}: a file is in the way; name a folder") from None
    except PermissionError as error:
        place = error.filename or folder
        message = f"{place}: cannot be written: {error.strerror}; name another folder"
        raise Misuse(message) from None
    except OSError as error:
        place = error.filename or folder
        raise TierwiseError(f"{place}: cannot be written: {error.strerror}") from None
    return folder / LINES


def _write_all(batches: Iterable[Batch], folder: Path, *, keep: bool) -> None:
    path = folder / LINES
    written_ids: set[str] = set()
    with open_atomically(path, errors=_ERRORS) as lines:
        for batch in batches:
            for document in batch.load():
                lines.write(_json_line(document))
                written_ids.add(document.id)
                name = page_name(document.id)
                with open_atomically(folder / name, errors=_ERRORS) as page:
                    page.write(document_page(document))
        if keep and path.exists():
            lines.writelines(_lines_of_others(path, written_ids))


def _lines_of_others(path: Path, written_ids: set[str]) -> Iterator[str]:
    """Yield the lines of an earlier file, except those of the documents in `written_ids`."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            if json.loads(line)["id"] not in written_ids:
                yield line


def _json_line(document: Document) -> str:
    """Return one document as a line of JSON."""
    steps = {
        outcome.step: {
            "status": outcome.status,
            "value": outcome.value,
            "reason": outcome.reason,
            "cause": outcome.cause,
            "model": outcome.model,
        }
        for outcome in document.outcomes.values()
    }
    fields = {
        "id": document.id,
        "hash": document.hash,
        "sensitivity": document.strictest,
        "language": document.language,
        "metadata": dict(document.metadata),
        "outcomes": steps,
    }
    return json.dumps(fields, ensure_ascii=False, default=str) + "\n"
