"""Results as files: one line of JSON and one readable page a document.

The same outcomes give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from tierwise.documents.html_page import html_page
from tierwise.documents.markdown import document_page
from tierwise.documents.page_names import page_name
from tierwise.errors import Misuse, TierwiseError
from tierwise.records import Batch, Document, Outcome, Place, id_in_run
from tierwise.text.files import open_atomically

LINES = "outcomes.jsonl"
# Half characters (lone surrogates), which UTF-8 lacks, are written as escapes.
_ERRORS = "backslashreplace"
# In the names of pages of a program's own documents, in a folder that belongs to a source.
_NO_SOURCE = "made by a program"


# The source whose documents have the plain names in a folder, given that of the first document.
FindOwner = Callable[[str], str]


def _same(source: str) -> str:
    return source


def write_documents(
    batches: Iterable[Batch],
    folder: Path,
    *,
    keep: bool = False,
    html: bool = False,
    find_owner: FindOwner = _same,
) -> Path:
    """Write `outcomes.jsonl` and a Markdown page for each document; return the path of the former.

    A document that waits for a provider batch has its line and no page. Nothing in the files
    depends on when, or at what price, they were made. `outcomes.jsonl` appears only when it is
    complete. With `keep`, the lines of other documents stay in it, after
    the new ones. With `html`, each document has an HTML page, too: with its text, and the quoted words
    marked. `find_owner` says which source a folder of several sources belongs to: pages of
    the others have a hash in their names. Raises Misuse when the folder cannot be used, and TierwiseError when the disk
    fails otherwise.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_all(batches, folder, keep=keep, html=html, find_owner=find_owner)
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


def _write_all(
    batches: Iterable[Batch],
    folder: Path,
    *,
    keep: bool,
    html: bool,
    find_owner: FindOwner,
) -> None:
    path = folder / LINES
    owner: str | None = None
    written: set[tuple[str, str]] = set()
    with open_atomically(path, errors=_ERRORS) as lines:
        for batch in batches:
            for document in batch.load():
                if owner is None:
                    owner = find_owner(document.source)
                lines.write(_json_line(document, owner))
                written.add((document.source, document.own_id))
                if document.waiting:
                    continue  # its answer is still in a batch, so there is no result yet
                name = _name_in(owner, document)
                with open_atomically(folder / name, errors=_ERRORS) as page:
                    page.write(document_page(document))
                if html:
                    path_of_html = folder / f"{name.removesuffix('.md')}.html"
                    with open_atomically(path_of_html, errors=_ERRORS) as page:
                        page.write(html_page(document))
        if keep and path.exists():
            lines.writelines(_lines_of_others(path, written, owner or ""))


def _name_in(owner: str, document: Document) -> str:
    """Return the name of a document's page in a folder of the source `owner`."""
    if document.source == owner:
        return page_name(document.own_id)
    return page_name(document.own_id, document.source or _NO_SOURCE)


def _lines_of_others(
    path: Path, written: set[tuple[str, str]], owner: str
) -> Iterator[str]:
    """Yield the lines of an earlier file, except those of the documents that were written."""
    with path.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
            fields = json.loads(line)
            # those of earlier versions name no source
            source = fields.get("source", owner)
            own_id = fields["id"].removeprefix(id_in_run(source, ""))
            if (source, own_id) not in written:
                yield line


def _place_rows(outcome: Outcome) -> dict[str, Any]:
    """Return the field `places`; none where nothing is quoted."""
    if not outcome.places:
        return {}
    return {"places": [_place_fields(place) for place in outcome.places]}


def _place_fields(place: Place) -> dict[str, Any]:
    """Return a place as `outcomes.jsonl` has it: with page and boxes where there are pages."""
    fields: dict[str, Any] = {
        "path": place.path,
        "start": place.start,
        "end": place.end,
    }
    if place.page is not None:
        fields["page"] = place.page
        fields["boxes"] = place.boxes
    return fields


def fields_data(outcome: Outcome) -> dict[str, Any]:
    """Return the source of each field and the open fields as plain data; empty without any."""
    data: dict[str, Any] = {}
    if outcome.sources:
        data["sources"] = {
            name: {"reviewer" if source.is_reviewer else "model": source.model}
            for name, source in outcome.sources.items()
        }
    if outcome.open_fields:
        data["open_fields"] = list(outcome.open_fields)
    return data


def _json_line(document: Document, owner: str) -> str:
    """Return one document as a line of JSON, with its source unless that is a program's own."""
    steps = {
        outcome.step: {
            "status": outcome.status,
            "value": outcome.value,
            "reason": outcome.reason,
            "cause": outcome.cause,
            "model": outcome.model,
            **_place_rows(outcome),
            **fields_data(outcome),
        }
        for outcome in document.outcomes.values()
    }
    fields: dict[str, Any] = {
        "id": document.id,
        "hash": document.hash,
        "sensitivity": document.strictest,
        "language": document.language,
        "metadata": dict(document.metadata),
        "outcomes": steps,
    }
    if document.members:
        fields["members"] = [
            {"id": member.id, "hash": member.hash, "sensitivity": member.sensitivity}
            for member in document.members
        ]
    if document.source or owner:
        fields["source"] = document.source
    return json.dumps(fields, ensure_ascii=False, default=str) + "\n"
