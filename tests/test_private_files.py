"""What a project writes of its documents: for its owner alone, whatever the umask."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest

from tests.kit.sorting import sorting_project, tierwise
from tests.kit.standin import Request, Standin
from tests.kit.terminal import Terminal
from tests.test_access import CAN_BE_SECOND, SECOND_USER
from tierwise.text.private import narrow_folder, private_folder

WIDE_OPEN = ["sh", "-c", 'umask 0; exec "$@"', "sh"]
WRITES = """
        (Path("out")).mkdir(exist_ok=True)
        (Path("out") / "answer.txt").write_text("delivery")
"""


def others_may(folder: Path) -> dict[str, str]:
    """What is below a folder, with it, and has rights for other users."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        try:
            mode = stat.S_IMODE(path.lstat().st_mode)
        except FileNotFoundError:  # a journal of SQLite's comes and goes
            continue
        if mode & 0o077 and not path.is_symlink():
            found[str(path.relative_to(folder))] = oct(mode)
    return found


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    """A project in folders that every user may enter."""
    root = sorting_project(tmp_path / "p", standin)
    for folder in (root, *root.parents):
        if folder.owner() == root.owner() and str(folder).startswith("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o755)
    return root


def test_nothing_that_a_run_writes_into_its_project_is_for_other_users(
    project: Path, standin: Standin
) -> None:
    """While it runs, and at its end; what its flow writes elsewhere follows the umask."""
    during: list[dict[str, str]] = []
    flow = project / "flows" / "sort.py"
    flow.write_text(
        flow.read_text().replace(
            "            future.result()\n", "            future.result()\n" + WRITES
        )
    )
    assert "answer.txt" in flow.read_text()

    def answered(_: Request) -> str:
        assert list((project / ".tierwise" / "spool").rglob("*.jsonl"))
        during.append(others_may(project / ".tierwise"))
        return json.dumps({"label": "delivery", "evidence": "has not arrived"})

    standin.answer(answered)
    for command in (
        ["plan", "sort"],
        ["run", "sort"],
        ["report", "latest"],
        ["report", "latest", "--out", "new/report.html"],
        ["audit", "export", "--output", "trail.jsonl"],
    ):
        done = tierwise(project, *command, before=WIDE_OPEN)
        assert done.returncode == 0, done.stderr
        assert "other users" not in done.stderr
    assert during == [{}]
    assert others_may(project / ".tierwise") == {}
    names = {path.name for path in (project / ".tierwise").iterdir()}
    assert names >= {"ledger.db", "prefect.db", "plans", "reports", "services"}
    for written in ("new/report.html", "trail.jsonl"):
        assert stat.S_IMODE((project / written).stat().st_mode) == 0o600
    assert stat.S_IMODE((project / "out/answer.txt").stat().st_mode) == 0o666
    if CAN_BE_SECOND:
        command = ["find", str(project / ".tierwise"), "-type", "f"]
        seen = subprocess.run([*SECOND_USER, *command], capture_output=True, text=True)
        assert seen.stdout == ""
        assert "Permission denied" in seen.stderr


def test_a_folder_that_others_may_read_is_narrowed_and_that_is_said_once(
    project: Path, terminal: Terminal
) -> None:
    """Only what is inside of it: not the target of a link."""
    private_folder(project / ".tierwise" / "spool" / "run")
    (project / ".tierwise" / "spool" / "run" / "a.jsonl").write_text("text")
    (project / ".tierwise" / "ledger-copy.db").write_text("text")
    outside = project / "mine.txt"
    outside.write_text("mine")
    outside.chmod(0o644)
    (project / ".tierwise" / "link").symlink_to(outside)
    for path in (project / ".tierwise").rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755)
    (project / ".tierwise").chmod(0o755)
    first = terminal("runs", cwd=project)
    assert first.code == 0
    [line] = [line for line in first.err.splitlines() if "other users" in line]
    assert line.endswith("(ledger-copy.db, spool); now only its owner has")
    assert others_may(project / ".tierwise") == {}
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644
    assert "other users" not in terminal("runs", cwd=project).err


def test_one_file_that_others_may_read_is_found(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / ".tierwise" / "deep").parent
    assert narrow_folder(folder) == []
    (folder / "ledger.db").write_text("")
    (folder / "ledger.db").chmod(0o640)
    (folder / "deep" / "log").write_text("")
    (folder / "deep" / "log").chmod(0o604)
    assert set(narrow_folder(folder)) == {folder / "ledger.db", folder / "deep" / "log"}
    assert narrow_folder(folder) == []
    assert narrow_folder(tmp_path / "none") == []


def test_a_ledger_keeps_the_rights_that_a_person_gave_it_elsewhere(
    project: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group may share a ledger; a new one is its owner's."""
    shared = project / "shared.db"
    monkeypatch.setenv("TIERWISE_LEDGER_URL", f"sqlite:///{shared}")
    assert terminal("runs", cwd=project).code == 0
    assert stat.S_IMODE(shared.stat().st_mode) == 0o600
    shared.chmod(0o660)
    assert terminal("runs", cwd=project).code == 0
    assert stat.S_IMODE(shared.stat().st_mode) == 0o660
