"""What the command line does with its output."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kit.projects import ROOT


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["check", "--help"]])
def test_a_reader_that_goes_early_is_no_error(arguments: list[str]) -> None:
    """As in `tierwise models | head -1`: no traceback."""
    command = [sys.executable, "-m", "tierwise", *arguments]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
