"""Tests of the project as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_nothing_is_wrong_in_the_projects_files() -> None:
    """Find no error in rules, catalog, prompts, flows and golden sets; no guard can be bypassed."""
    command = [sys.executable, "-m", "tierwise", "check"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no guard can be passed" in done.stdout
