"""Which alerts people have acknowledged: by whom and when, in a file of the project."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from tierwise.desk.people import FOLDER
from tierwise.text.files import write_atomically
from tierwise.text.private import FILE_MODE, private_folder


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """A person has seen an alert, and sees to it. `at` is in seconds since the epoch."""

    by: str
    at: float


class Acknowledged:
    """The acknowledged alerts of a project, by the alert's id."""

    def __init__(self, root: Path) -> None:
        self._path = root / FOLDER / "acknowledged.json"

    def read(self) -> Mapping[str, Acknowledgement]:
        """Return the acknowledgements; none where the file is new or damaged."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            rows = json.loads(self._path.read_text(encoding="utf-8"))
            return {key: Acknowledgement(**row) for key, row in rows.items()}
        return {}

    def add(self, alert: str, by: str, at: float, present: Collection[str]) -> None:
        """Note who acknowledged an alert, and forget those that are over."""
        private_folder(self._path.parent)
        with FileLock(self._path.with_suffix(".lock"), mode=FILE_MODE):
            rows = {key: row for key, row in self.read().items() if key in present}
            # The first one stays: two people may press at once.
            rows.setdefault(alert, Acknowledgement(by, at))
            data = {key: asdict(row) for key, row in rows.items()}
            text = json.dumps(data, indent=1, sort_keys=True) + "\n"
            write_atomically(self._path, text, private=True)
