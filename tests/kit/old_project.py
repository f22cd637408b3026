"""The project and the ledger that version 0.1.0 left."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

OLD = Path(__file__).parent.parent / "ledgers_of_old" / "0.1.0"
LEDGER = Path(".tierwise") / "ledger.db"


def restore(root: Path) -> Path:
    """Copy the old project, and put its ledger there as version 0.1.0 left it."""
    shutil.copytree(OLD / "project", root, ignore=shutil.ignore_patterns("__pycache__"))
    (root / LEDGER).parent.mkdir()
    with closing(sqlite3.connect(root / LEDGER)) as connection:
        connection.executescript((OLD / "ledger.sql").read_text(encoding="utf-8"))
    return root
