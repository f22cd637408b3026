"""A ledger that may only be read: by file mode, mount, role or replica."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from tests.kit.ledgers import RUN, migrated_url
from tests.kit.projects import RULES, make_project, model
from tests.kit.standin import Standin
from tests.kit.steps import GOOD, classify
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.errors import LedgerError
from tierwise.ledger import Ledger
from tierwise.project import Project

ALONE = RULES.replace("[small, large]", "[small]")
KEEPS_TEXTS = '[tool.tierwise]\nkeep_text = "all"\n'
RULES_FILE = "routing_rules/rules.yaml"
READING = (
    ("runs",),
    ("show",),
    ("report", "--out", "{out}/report.html"),
    ("budgets",),
    ("explain", "a"),
    ("export", "--step", "classify", "--output", "{out}/export"),
    ("audit", "export", "--output", "{out}/trail.jsonl"),
    ("audit", "verify"),
    ("audit", "verify", "{out}/trail.jsonl"),
    ("diff", RULES_FILE, RULES_FILE),
)
WRITING = (
    ("retention", "--older-than", "0h", "--by", "ada"),
    ("budgets", "month", "--add", "5"),
)


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    """A project with a run, on SQLite."""
    root = tmp_path / "project"
    root.mkdir()
    standin.answer(GOOD)
    make_project(root, model("small", standin.url), rules=ALONE)
    (root / "pyproject.toml").write_text(KEEPS_TEXTS)
    with Engine(Project(root), {}) as engine:
        context = engine.start_run("test", budget_usd=Decimal(1), budget_name="month")
        classify(engine, run=context)
        engine.finish_run(context, "completed")
    return root


@pytest.fixture
def mounted(project: Path, tmp_path: Path) -> Iterator[Path]:
    """The project at a second place, where nothing may be written."""
    place = tmp_path / "mounted"
    place.mkdir()
    bind = ["mount", "--bind", "-o", "ro", str(project), str(place)]
    if os.name != "posix" or subprocess.run(bind, check=False).returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def read_all(terminal: Terminal, root: Path, out: Path) -> None:
    for words in READING:
        arguments = [word.format(out=out) for word in words]
        done = terminal(*arguments, cwd=root)
        # The export reads the ledger, and finds no answer to the question of tasks/.
        expected = 1 if words[0] == "export" else 0
        assert done.code == expected, (words, done.out, done.err)
        assert "Traceback" not in done.err


def test_every_reading_command_works_on_a_read_only_mount(
    mounted: Path, terminal: Terminal, tmp_path: Path
) -> None:
    read_all(terminal, mounted, tmp_path)


def test_writing_commands_refuse_in_one_line(mounted: Path, terminal: Terminal) -> None:
    for words in WRITING:
        done = terminal(*words, cwd=mounted)
        assert done.code == 1, (words, done.out, done.err)
        assert len(done.err.splitlines()) == 1
        assert "read-only; give this user the right to write both" in done.err


def test_a_file_is_read_correctly_with_and_without_its_log(
    project: Path, mounted: Path
) -> None:
    """A killed writer leaves a log, whose rows are not in the file yet."""
    here = project / ".tierwise" / "ledger.db"
    writer = Ledger.open(root=project)
    writer.start_run(RUN)
    with Ledger.open(root=mounted) as reader:
        assert {each.id for each in reader.runs.newest()} >= {RUN.id}
        writer.finish_run(RUN.id, "completed")
        assert reader.runs.resolve(RUN.id).state == "completed"
    # As a kill leaves it, and a copy of two of the three files.
    for missing in ("", "-shm"):
        left = project.parent / f"left{missing}" / ".tierwise"
        left.mkdir(parents=True)
        for ending in ("", "-wal", "-shm"):
            if ending != missing or not missing:
                shutil.copy(f"{here}{ending}", f"{left}/ledger.db{ending}")
        read_only_copy = subprocess.run(
            ["mount", "--bind", "-o", "ro", str(left), str(left)], check=True
        )
        assert read_only_copy.returncode == 0
        try:
            with Ledger.open(root=left.parent) as reader:
                assert reader.runs.resolve(RUN.id).state == "completed"
                with pytest.raises(LedgerError, match="read-only"):
                    reader.start_run(RUN)
        finally:
            subprocess.run(["umount", "--lazy", str(left)], check=True)
    writer.close()


def test_a_writer_who_comes_while_a_file_without_log_is_read_is_noticed(
    project: Path, mounted: Path
) -> None:
    with Ledger.open(root=mounted) as reader:
        assert len(reader.runs.newest()) == 1
        with Ledger.open(root=project) as writer:
            writer.start_run(RUN)
        with pytest.raises(LedgerError, match="was written while it was read"):
            reader.runs.newest()


def test_an_old_ledger_that_may_not_be_written_says_what_to_do(
    project: Path, mounted: Path, terminal: Terminal
) -> None:
    with sqlite3.connect(project / ".tierwise" / "ledger.db") as connection:
        connection.execute("UPDATE ledger_version SET version_num = '0001'")
    connection.close()
    done = terminal("runs", cwd=mounted)
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "older tierwise (schema 0001" in done.err
    assert "open it once with a user who may" in done.err


# ---- PostgreSQL


@pytest.mark.parametrize("kind", ["role", "replica"])
def test_a_role_that_may_only_read_and_a_replica_can_be_read(
    kind: str,
    tmp_path: Path,
    standin: Standin,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = migrated_url("postgresql", tmp_path)
    monkeypatch.setenv("TIERWISE_LEDGER_URL", url)
    standin.answer(GOOD)
    make_project(tmp_path, model("small", standin.url), rules=ALONE)
    (tmp_path / "pyproject.toml").write_text(KEEPS_TEXTS)
    with Engine(Project(tmp_path), {}) as engine:
        context = engine.start_run("test", budget_usd=Decimal(1), budget_name="month")
        classify(engine, run=context)
        engine.finish_run(context, "completed")
    database = make_url(url).database
    admin = make_url(url).set(drivername="postgresql").render_as_string(False)
    with psycopg.connect(admin, autocommit=True) as connection:
        if kind == "role":
            connection.execute(f"CREATE ROLE {database} LOGIN")
            connection.execute(
                f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {database}"
            )
            reader = make_url(url).set(username=database).render_as_string(False)
            monkeypatch.setenv("TIERWISE_LEDGER_URL", reader)
        else:
            connection.execute(
                f"ALTER DATABASE {database} SET default_transaction_read_only = on"
            )
    out = tmp_path / "elsewhere"
    out.mkdir()
    read_all(terminal, tmp_path, out)
    for words in WRITING:
        done = terminal(*words, cwd=tmp_path)
        assert done.code == 1, (words, done.out, done.err)
        assert len(done.err.splitlines()) == 1
        assert "TIERWISE_LEDGER_URL" in done.err
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("UPDATE ledger_version SET version_num = '0001'")
    done = terminal("runs", cwd=tmp_path)
    assert done.code == 1
    assert "older tierwise (schema 0001" in done.err
