"""Letters that are classified and explained."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from tests.kit.samples import CLASSIFY
from tests.kit.steps import LABELS
from tierwise.engine import Engine
from tierwise.project import Project
from tierwise.records import Batch, Document


def classify(root: Path, *documents: Document) -> None:
    with Engine(Project(root), env={}) as engine:
        engine.run_batch(engine.start_run("inbox"), CLASSIFY, Batch(documents), LABELS)


def letter(name: str = "mail-07.txt", **features: Any) -> Document:
    return Document(
        id=name,
        text="my invoice is wrong, please help",
        **{"sensitivity": "internal", **features},
    )


def age(path: Path, seconds: float = 60) -> None:
    """Let a file look as if nobody had written it for a while."""
    then = time.time() - seconds
    os.utime(path, (then, then))
