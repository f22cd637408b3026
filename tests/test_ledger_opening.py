"""Opening a ledger: a new one, an older one, a later one, and what is none."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tests.kit.ledgers import RUN, fresh_url, python
from tierwise.errors import LedgerError
from tierwise.ledger import Ledger


def test_the_default_ledger_lies_in_the_projects_hidden_folder(tmp_path: Path) -> None:
    Ledger.open(root=tmp_path).close()
    assert (tmp_path / ".tierwise" / "ledger.db").is_file()


def test_a_relative_address_is_below_the_root_and_not_the_working_folder(
    tmp_path: Path,
) -> None:
    Ledger.open("sqlite:///deep/er/mine.db", root=tmp_path).close()
    assert (tmp_path / "deep" / "er" / "mine.db").is_file()


def test_a_ledger_opened_again_has_what_was_recorded(
    url: str, ledger: Ledger, tmp_path: Path
) -> None:
    ledger.close()
    with Ledger.open(url, root=tmp_path) as again:
        assert [row.id for row in again.runs.newest()] == [RUN.id]


def test_two_processes_may_open_a_new_ledger_at_the_same_time(
    tmp_path: Path, database: str
) -> None:
    code = """
        import pathlib, sys
        from tierwise.ledger import Ledger
        print("ready", flush=True)
        sys.stdin.readline()
        Ledger.open(sys.argv[1], root=pathlib.Path(sys.argv[2])).close()
    """
    url = fresh_url(database, tmp_path)
    processes = [python(code, url, str(tmp_path)) for _ in range(2)]
    assert [process.stdout and process.stdout.readline() for process in processes] == [
        "ready\n"
    ] * 2
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    Ledger.open(url, root=tmp_path).close()


def test_the_migrations_make_exactly_the_tables_of_the_models(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from tierwise.ledger.database import VERSION_TABLE
    from tierwise.ledger.tables import Base

    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE}
        )
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_the_newest_migration_is_the_one_that_opening_expects() -> None:
    from alembic.script import ScriptDirectory

    from tierwise.ledger.database import HEAD, MIGRATIONS

    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [HEAD]


def test_a_ledger_of_a_later_version_is_refused(
    url: str, ledger: Ledger, tmp_path: Path
) -> None:
    ledger.close()
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE ledger_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(
        LedgerError, match=r"newer tierwise \(schema 9999\); update tierwise"
    ):
        Ledger.open(url, root=tmp_path)


def test_another_programs_database_is_refused_and_left_alone(
    database: str, tmp_path: Path
) -> None:
    url = fresh_url(database, tmp_path)
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE runs (distance INTEGER)"))
    with pytest.raises(LedgerError, match="another program's tables"):
        Ledger.open(url, root=tmp_path)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT distance FROM runs")).all() == []
    engine.dispose()


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("Dear diary, today I was not a database. " * 100)
    before = path.read_bytes()
    with pytest.raises(
        LedgerError, match="not a database; this file is something else"
    ):
        Ledger.open(f"sqlite:///{path}", root=tmp_path)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_an_error_with_the_remedy(
    tmp_path: Path,
) -> None:
    (tmp_path / ".tierwise").write_text("a file in the way")
    with pytest.raises(LedgerError, match=r"\.tierwise.*check that its folder exists"):
        Ledger.open(root=tmp_path)


def test_a_ledger_that_another_program_locks_is_an_error_with_the_remedy(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA journal_mode=WAL")
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerError, match="locked; another program holds it"):
        Ledger.open(f"sqlite:///{path}?timeout=0.1", root=tmp_path)
    holder.close()


def test_a_ledger_can_be_read_while_another_program_writes(tmp_path: Path) -> None:
    Ledger.open(root=tmp_path).close()
    holder = sqlite3.connect(tmp_path / ".tierwise" / "ledger.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with Ledger.open(root=tmp_path) as ledger:
        assert ledger.runs.newest() == []
    holder.close()


def test_a_locked_ledger_fails_the_write_and_works_again_afterwards(
    tmp_path: Path,
) -> None:
    with Ledger.open("sqlite:///ledger.db?timeout=0.1", root=tmp_path) as ledger:
        holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="cannot be written: database is locked"):
            ledger.start_run(RUN)
        holder.close()
        ledger.start_run(RUN)
        assert len(ledger.runs.newest()) == 1


@pytest.mark.parametrize(
    "address", ["mysql://host/name", "sqlite://", "sqlite:///:memory:", "nonsense"]
)
def test_an_address_that_cannot_keep_a_ledger_is_refused(
    address: str, tmp_path: Path
) -> None:
    with pytest.raises(LedgerError, match="use sqlite:///path or postgresql"):
        Ledger.open(address, root=tmp_path)


def test_no_message_shows_the_password(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="check the address") as caught:
        Ledger.open("postgresql+psycopg://me:s3cret@127.0.0.1:1/ledger", root=tmp_path)
    assert "s3cret" not in str(caught.value)


def test_a_closed_ledger_says_so(ledger: Ledger) -> None:
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="is closed"):
        ledger.finish_run(RUN.id, "completed")
