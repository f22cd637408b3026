"""The documentation as `make docs` builds it, once for all processes of a test run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tests.kit.projects import ROOT


def built_site(factory: pytest.TempPathFactory) -> Path:
    """The folder with the built pages. A broken link or a page outside the navigation fails the build."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with FileLock(shared / "site.lock"):
        if not (shared / "site").exists():
            _build(shared / "site.part")
            (shared / "site.part").rename(shared / "site")
    return shared / "site"


def _build(folder: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "-f",
            ROOT / "mkdocs.yml",
            "-d",
            folder,
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, (
        f"{done.stdout}{done.stderr}\nA new page? Name it under `nav` in mkdocs.yml."
    )
