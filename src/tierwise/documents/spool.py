"""The spool: documents wait on disk between steps, so that memory does not grow with their number.

A batch in a flow is a handle on a file; its documents are in memory only while a task works on
them. The files live as long as the run, in a folder that only its owner can read. Other processes
that work for the run put their batches there, too; only the run itself removes them.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tierwise.errors import Misuse
from tierwise.records import (
    Batch,
    Document,
    FieldSource,
    Member,
    Outcome,
    PageFile,
    page_words,
    place_of_row,
)
from tierwise.text.private import FILE_MODE, FOLDER_MODE, open_private, private_folder

_LOCK = "alive"  # held as long as the run lives; a folder whose lock is free is dead


@dataclass(frozen=True, slots=True)
class SpooledDocuments:
    """The documents of one file."""

    path: Path

    def load(self) -> tuple[Document, ...]:
        """Read the documents.

        Raises Misuse after the end of their run, and where the run's folder cannot be seen.
        """
        try:
            text = self.path.read_text(encoding="utf-8", errors="surrogatepass")
        except FileNotFoundError:
            elsewhere = f"a worker elsewhere has to share {self.path.parent.parent}"
            raise Misuse(
                f"this run is over; its documents are in what `write_documents` wrote ({elsewhere})"
            ) from None
        return tuple(_from_json(json.loads(line)) for line in text.splitlines())


class SpoolFolder:
    """The folder of a run that is under way, perhaps in another process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, batch: Batch) -> Batch:
        """Write a batch's documents to a new file, and return the batch as a handle on it.

        Attempts and routes are left out: they are in the ledger.
        """
        path = self.path / f"{uuid.uuid4().hex}.jsonl"
        lines = [json.dumps(_to_json(document)) + "\n" for document in batch.load()]
        # no reader knows its name yet
        with open(path, "w", encoding="ascii", opener=open_private) as file:
            file.writelines(lines)
        return batch.as_handle(SpooledDocuments(path))


class Spool(SpoolFolder):
    """The folder of one run, with all its files removed when it is closed.

    The next run removes the folders of runs that died.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        super().__init__(folder / run_id)
        private_folder(folder)
        self._alive = FileLock(self.path / _LOCK, mode=FILE_MODE)
        # Another run must not see this folder before it has its lock: it would look dead.
        beside = folder.with_name(f"{folder.name}.lock")
        with FileLock(beside, mode=FILE_MODE):
            self.path.mkdir(mode=FOLDER_MODE)
            self._alive.acquire()
            for other in folder.iterdir():
                if other != self.path:
                    _remove_if_dead(other)

    def close(self) -> None:
        """Remove all files."""
        self._alive.release()
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_if_dead(folder: Path) -> None:
    # Timeout: its run is alive. OSError: another run is removing it now.
    with suppress(Timeout, OSError):
        with FileLock(folder / _LOCK, mode=FILE_MODE).acquire(blocking=False):
            pass
        shutil.rmtree(folder)


def _to_json(document: Document) -> dict[str, Any]:
    outcomes = [
        {
            "step": outcome.step,
            "status": outcome.status,
            "value": outcome.value,
            "reason": outcome.reason,
            "cause": outcome.cause,
            "quotes": outcome.quotes,
            "model": outcome.model,
            "sensitivity": outcome.sensitivity,
            "places": [place.as_row() for place in outcome.places],
            "sources": {name: asdict(each) for name, each in outcome.sources.items()},
            "open_fields": outcome.open_fields,
        }
        for outcome in document.outcomes.values()
    ]
    return {
        "id": document.id,
        "text": document.text,
        "sensitivity": document.sensitivity,
        "sensitivity_source": document.sensitivity_source,
        "language": document.language,
        "metadata": dict(document.metadata),
        "outcomes": outcomes,
        "source": document.source,
        "pages": [page.as_data() for page in document.pages],
        "page_file": asdict(document.page_file) if document.page_file else None,
        "members": [asdict(member) for member in document.members],
    }


def _from_json(data: dict[str, Any]) -> Document:
    outcomes: dict[str, Outcome] = {}
    for fields in data.pop("outcomes"):
        places = tuple(place_of_row(row) for row in fields.pop("places"))
        sources = fields.pop("sources")
        outcome = Outcome(
            **{**fields, "open_fields": tuple(fields["open_fields"])},
            places=places,
            sources={name: FieldSource(**each) for name, each in sources.items()},
        )
        outcomes[outcome.step] = outcome
    pages = tuple(page_words(page, data["text"]) for page in data.pop("pages"))
    page_file = data.pop("page_file")
    members = _members(data.pop("members"))
    return Document(
        **data,
        members=members,
        outcomes=outcomes,
        pages=pages,
        page_file=_page_file(page_file) if page_file else None,
    )


def _members(rows: Sequence[Mapping[str, Any]]) -> tuple[Member, ...]:
    """Return members as they were written; one that is a group has its own."""
    return tuple(Member(**{**row, "members": _members(row["members"])}) for row in rows)


def _page_file(data: dict[str, Any]) -> PageFile:
    inside = tuple(data.pop("inside", ()))
    return PageFile(**data, inside=inside)
