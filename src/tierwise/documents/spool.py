"""Where documents wait between steps: on disk, so that memory does not grow with their number.

A batch in a flow is a handle on a file; its documents are in memory only while a task works on them. The files
live as long as the run, in a folder that only its owner can read. Other processes that work for the run put their
batches there, too; only the run itself removes them.
"""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tierwise.errors import Misuse
from tierwise.records import Batch, Document, Outcome

_LOCK = "alive"


@dataclass(frozen=True, slots=True)
class Spooled:
    """The documents of one file."""

    path: Path

    def load(self) -> tuple[Document, ...]:
        """Read them. Raises Misuse after the end of their run, and where its folder cannot be seen."""
        try:
            lines = self.path.read_text(encoding="utf-8", errors="surrogatepass").splitlines()
        except FileNotFoundError:
            elsewhere = f"a worker elsewhere has to share {self.path.parent.parent}"
            raise Misuse(
                f"this run is over; its documents are in what `write_documents` wrote ({elsewhere})"
            ) from None
        return tuple(_document(json.loads(line)) for line in lines)


class Folder:
    """The folder of a run that goes on, perhaps in another process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, batch: Batch) -> Batch:
        """The same batch as a handle. Attempts and routes are left out: they are in the ledger."""
        path = self.path / f"{uuid.uuid4().hex}.jsonl"
        lines = "".join(json.dumps(_plain(document)) + "\n" for document in batch.documents)
        path.write_text(lines, encoding="ascii")  # nobody knows of it before it is complete
        return batch.held_by(Spooled(path))


class Spool(Folder):
    """The folder of one run. Close it, and its files are gone; those of runs that died go with the next one."""

    def __init__(self, folder: Path, run_id: str) -> None:
        super().__init__(folder / run_id)
        folder.mkdir(parents=True, exist_ok=True)
        self._alive = FileLock(self.path / _LOCK)
        with FileLock(
            folder.with_name(f"{folder.name}.lock")
        ):  # a folder without a lock yet would look dead
            self.path.mkdir(mode=0o700)
            self._alive.acquire()
            for other in folder.iterdir():
                if other != self.path:
                    _remove_if_dead(other)

    def close(self) -> None:
        """Remove all files."""
        self._alive.release()
        shutil.rmtree(self.path, ignore_errors=True)


def _remove_if_dead(folder: Path) -> None:
    with suppress(Timeout, OSError):  # its run goes on, or another run removes it now
        with FileLock(folder / _LOCK).acquire(blocking=False):
            pass
        shutil.rmtree(folder)


def _plain(document: Document) -> dict[str, Any]:
    outcomes = [
        {
            "step": outcome.step,
            "status": outcome.status,
            "value": outcome.value,
            "reason": outcome.reason,
            "model": outcome.model,
            "sensitivity": outcome.sensitivity,
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
    }


def _document(data: dict[str, Any]) -> Document:
    outcomes = [Outcome(**outcome) for outcome in data.pop("outcomes")]
    return Document(**data, outcomes={outcome.step: outcome for outcome in outcomes})
