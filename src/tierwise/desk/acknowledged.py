"""Who sees to which alert: read from the ledger, and once from the file of an older version."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from filelock import FileLock

from tierwise.desk.alerts import Alert
from tierwise.desk.people import FOLDER
from tierwise.errors import LedgerError
from tierwise.ledger import Ledger
from tierwise.ledger.people.acknowledgements import Acknowledgement
from tierwise.text.private import FILE_MODE

log = logging.getLogger(__name__)
_OLD_FILE = "acknowledged.json"
_TAKEN_OVER = "acknowledged.json.taken-over"
_DAMAGED = "acknowledged.json.damaged"


def acknowledged(
    ledger: Ledger, root: Path, alerts: Iterable[Alert]
) -> Mapping[str, Acknowledgement]:
    """Return who sees to each of these alerts, by the alert's id."""
    take_over_old_file(ledger, root)
    standing = ledger.acknowledgements.standing()
    found: dict[str, Acknowledgement] = {}
    for alert in alerts:
        made = standing.get(alert.id)
        if made is not None and made.counts_for(alert.since):
            found[alert.id] = made
    return found


def take_over_old_file(ledger: Ledger, root: Path) -> None:
    """Put the acknowledgements of an older version on record, once, and rename their file."""
    path = root / FOLDER / _OLD_FILE
    if not path.exists():
        return
    with FileLock(path.with_suffix(".lock"), mode=FILE_MODE):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            return  # another process took it over, or the file cannot be read now
        try:
            earlier = _earlier(text)
        except (ValueError, TypeError, AttributeError):
            log.warning("%s is damaged; it is kept as %s", path, _DAMAGED)
            path.rename(path.with_name(_DAMAGED))
            return
        try:
            ledger.acknowledgements.take_over(earlier)
        except LedgerError:
            return  # the file stays; the next page tries again
        path.rename(path.with_name(_TAKEN_OVER))


def _earlier(text: str) -> list[Acknowledgement]:
    """Return the acknowledgements in a file. Raises ValueError, TypeError, AttributeError."""
    found = []
    for alert, row in json.loads(text).items():
        by = str(row["by"])
        at = float(row["at"])
        # The same entry gives the same request, so that a second copy of the file adds nothing.
        name = hashlib.sha256(f"{alert}\0{by}\0{at!r}".encode()).hexdigest()[:32]
        request = f"file-{name}"
        found.append(Acknowledgement(alert=alert, by=by, at=at, request=request))
    return sorted(found, key=lambda each: each.at)
