"""The documentation as `make docs` builds it, once a test process."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.projects import ROOT


@functools.cache
def built_site() -> Path:
    """The folder with the built pages. A broken link or a page outside the navigation fails the build."""
    folder = Path(tempfile.mkdtemp(prefix="tierwise-site-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ROOT / "mkdocs.yml", "-d", folder],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\nA new page? Name it under `nav` in mkdocs.yml."
    return folder
