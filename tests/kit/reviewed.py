"""A project with documents that wait for a person, for the desk's pages."""

from __future__ import annotations

import json
from pathlib import Path

from tests.kit.projects import make_project, model
from tests.kit.samples import CLASSIFY
from tests.kit.standin import Request, Standin
from tests.kit.steps import LABELS
from tierwise.engine import Engine
from tierwise.project import Project
from tierwise.records import Batch, Document, Sensitivity


def letter(number: int, sensitivity: Sensitivity = "internal") -> Document:
    """Return a letter that no model answers well: the evidence is never in the text."""
    return Document(
        id=f"{number:03}.txt",
        text=f"Letter {number}. Good day, my invoice of May is wrong. Please mend it.",
        sensitivity=sensitivity,
    )


def _answer(request: Request) -> str:
    return json.dumps({"label": "billing", "evidence": "words of its own"})


def waiting_project(
    root: Path, count: int, sensitivity: Sensitivity = "internal"
) -> Path:
    """Make a project with `count` documents that were deferred, as their answers fail a check."""
    with Standin() as server:
        server.answer(_answer)
        project = make_project(
            root, model("small", server.url), model("large", server.url, strength=20)
        )
        settings = project / "pyproject.toml"
        text = settings.read_text() if settings.exists() else ""
        if "keep_text" not in text:
            if "[tool.tierwise]" in text:
                text = text.replace(
                    "[tool.tierwise]", '[tool.tierwise]\nkeep_text = "all"', 1
                )
            else:
                text += '\n[tool.tierwise]\nkeep_text = "all"\n'
            settings.write_text(text)
        documents = tuple(letter(number, sensitivity) for number in range(count))
        with Engine(Project(project), env={}) as engine:
            run = engine.start_run("inbox", tags={"team": "claims"})
            engine.run_batch(run, CLASSIFY, Batch(documents), LABELS)
            engine.finish_run(run, "completed")
    return project
