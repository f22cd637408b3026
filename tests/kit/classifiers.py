"""Classifier files that are edited, forged or dangerous."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def edited(path: Path, **changes: Any) -> None:
    """Change the metadata of a saved classifier."""
    metadata = path.with_suffix(".json")
    metadata.write_text(json.dumps(json.loads(metadata.read_text()) | changes))


def forged(path: Path, data: bytes) -> None:
    """Other weights, with metadata that fit them."""
    path.write_bytes(data)
    edited(path, file_hash=hashlib.sha256(data).hexdigest())


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)
