"""Units for systemd: what they say, and that systemd itself accepts them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.projects import make_project, model
from tests.kit.terminal import Terminal
from tierwise.cli.systemd import units


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a folder whose name holds what is special to systemd."""
    return make_project(tmp_path / "50% $inbox", model("small", "http://127.0.0.1:9"))


@pytest.mark.parametrize("option", [None, "--system"])
def test_the_printed_units_start_what_up_starts(
    project: Path, terminal: Terminal, option: str | None
) -> None:
    words = ["up", "--systemd", "--port", "4300", *([option] if option else [])]
    printed = terminal(*words, cwd=project).out
    assert printed.count("[Service]") == 3
    assert "-m tierwise up --foreground server --port 4300\n" in printed
    assert "-m tierwise up --foreground worker\n" in printed
    assert "-m tierwise up --foreground desk\n" in printed
    assert printed.count("Restart=always") == 3
    # Flows outlive the restart of their worker.
    assert printed.count("KillMode=process") == 1
    assert ("enable-linger" in printed) == (option is None)
    assert ("User=" in printed) == (option is not None)
    assert "50%% $inbox" in printed


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
@pytest.mark.parametrize("user", [None, "root"])
def test_systemd_accepts_the_units(
    project: Path, tmp_path: Path, user: str | None
) -> None:
    files = []
    for unit in units(project, system_user=user, port=4300):
        file = tmp_path / Path(unit.path).name
        file.write_text(unit.text)
        files.append(str(file))
    scope = "--system" if user else "--user"
    done = subprocess.run(
        ["systemd-analyze", scope, "verify", "--man=no", *files],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    # Units of other packages on this machine may have faults of their own.
    faults = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert faults == []
    if user is None:
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_would_refuse_a_wrong_unit(project: Path, tmp_path: Path) -> None:
    """So that the test above can fail."""
    unit = units(project, system_user=None, port=None)[0]
    file = tmp_path / Path(unit.path).name
    file.write_text(unit.text.replace("Restart=always", "Restart=perhaps"))
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", "--man=no", file],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert str(file) in done.stderr
