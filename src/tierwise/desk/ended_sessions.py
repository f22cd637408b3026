"""Sessions that people ended: a cookie that was copied before is worth nothing afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tierwise.desk.people import FOLDER
from tierwise.text.files import write_atomically
from tierwise.text.private import FILE_MODE, private_folder


class EndedSessions:
    """The ids of ended sessions in a file of the project, until they would have expired anyway."""

    def __init__(self, root: Path) -> None:
        self._path = root / FOLDER / "ended.json"
        self._seen: tuple[int, int] | None = None
        self._ids: Mapping[str, float] = {}

    def has(self, session: str) -> bool:
        """Return True for a session that its person ended, here or at another desk."""
        return session in self._read()

    def add(self, session: str, now: float, until: float) -> None:
        """End a session that would have been valid until a time (seconds since the epoch)."""
        from filelock import FileLock

        private_folder(self._path.parent)
        with FileLock(self._path.with_suffix(".lock"), mode=FILE_MODE):
            ids = {name: end for name, end in self._read().items() if end > now}
            ids[session] = until
            write_atomically(self._path, json.dumps(ids) + "\n", private=True)

    def _read(self) -> Mapping[str, float]:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return {}
        seen = (status.st_mtime_ns, status.st_ino)
        if seen != self._seen:
            # A damaged file ends no session, and is written anew at the next sign-out.
            try:
                found = json.loads(self._path.read_text(encoding="utf-8"))
                ids = {str(name): float(end) for name, end in found.items()}
            except (OSError, ValueError, TypeError, AttributeError):
                ids = {}
            self._ids = ids
            self._seen = seen
        return self._ids
