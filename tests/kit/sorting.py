"""A project with one small flow, and commands in it that are typed into a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.kit.projects import make_project, model
from tests.kit.standin import Standin

RULES = "version: 1\nroutes: [{name: default, try: [small]}]\n"
FLOW = """
from pathlib import Path

from prefect import flow
from tasks.classify import classify
from tierwise import RunSummary, read_documents, recorded_run


@flow
def sort(source: Path = Path("inbox")) -> RunSummary:
    \"\"\"Sort a folder.\"\"\"
    with recorded_run() as run:
        inbox = read_documents(source, sensitivity="internal")
        for future in classify.map(inbox, labels=["delivery", "invoice"]):
            future.result()
    return run.summary()
"""


def sorting_project(root: Path, standin: Standin, document: str = "a.txt") -> Path:
    """A project whose flow sorts one document, with the stand-in as its only model."""
    standin.answer(json.dumps({"label": "delivery", "evidence": "has not arrived"}))
    make_project(root, model("small", standin.url), rules=RULES)
    (root / "inbox").mkdir()
    (root / "inbox" / document).write_text("My parcel has not arrived.")
    (root / "flows").mkdir(exist_ok=True)
    (root / "flows" / "sort.py").write_text(FLOW)
    return root


def own_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PREFECT_") and "proxy" not in name.lower()
    }


def tierwise(
    cwd: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    before: tuple[str, ...] | list[str] = (),
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Run a command as a user would, in a process of its own."""
    environment = own_environment() if env is None else dict(env)
    return subprocess.run(
        [*before, sys.executable, "-m", "tierwise", *arguments],
        cwd=cwd,
        env={**environment, **variables},
        capture_output=True,
        text=True,
        errors="replace",
    )
