"""Opens the database of a ledger: address, connections, transactions, migrations.

SQLAlchemy's errors become ours here.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from tierwise.errors import LedgerError
from tierwise.ledger.tables import Base

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

DEFAULT_PATH = Path(".tierwise") / "ledger.db"
MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "ledger_version"  # Prefect's own database uses alembic's default name
HEAD = "0008"  # the newest migration, known without importing alembic
_BUSY_S = 30.0  # how long to wait for another process's transaction
# PostgreSQL's advisory lock: one writer at a time, as SQLite has it
_LOCK = 0x7469657277697365

_REMEDIES = (
    ("locked", "another program holds it; end that one or try again later"),
    ("lock timeout", "another program holds it; end that one or try again later"),
    (
        "not a database",
        "this file is something else; move it away or name another ledger",
    ),
    ("malformed", "the file is damaged; move it away or restore a copy"),
    (
        "readonly",
        "it may not be written; check the permissions of the file and its folder",
    ),
    ("unable to open", "check that its folder exists and may be written"),
    ("full", "the disk is full; free some space"),
    ("connect", "check the address and that the server runs"),
)


class Database:
    """One database with a writing and a reading side."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = _shown(engine.url)
        self._writing = engine.execution_options(writing=True)
        # In SQLite a transaction reads from one snapshot anyway.
        consistent = (
            {}
            if is_sqlite(engine)
            else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        )
        self._reading = engine.execution_options(**consistent)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction; no other process writes meanwhile. Raises SQLAlchemy's own errors."""
        with self._writing.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view. Raises LedgerError."""
        with self.translated_errors("read"), self._reading.begin() as connection:
            yield connection

    @contextmanager
    def translated_errors(self, done: str) -> Iterator[None]:
        """Turn SQLAlchemy's errors into LedgerError; `done` is opened, read or written."""
        try:
            yield
        except SQLAlchemyError as error:
            raise self.failed(done, error) from error

    def failed(self, done: str, error: Exception) -> LedgerError:
        """Return the LedgerError for an error of the database."""
        # SQLAlchemy's own message has the SQL too; the driver's error inside of it has not.
        original = getattr(error, "orig", None) or error
        lines = str(original).strip().splitlines()
        cause = lines[0] if lines else type(error).__name__
        remedy = ""
        for sign, advice in _REMEDIES:
            if sign in cause.lower():
                remedy = f"; {advice}"
                break
        return LedgerError(f"the ledger {self.name} cannot be {done}: {cause}{remedy}")

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def open_database(url: str | None, root: Path) -> Database:
    """Open the database at `url`, by default below `root`, and migrate it. Raises LedgerError."""
    address = _address(url, root)
    try:
        if address.get_backend_name() == "sqlite":
            Path(str(address.database)).parent.mkdir(parents=True, exist_ok=True)
        database = Database(_engine(address))
    except OSError as error:
        remedy = "check that its folder exists and may be written"
        raise LedgerError(
            f"the ledger {_shown(address)} cannot be opened: {error}; {remedy}"
        ) from None
    except ImportError:
        raise LedgerError(
            f"the ledger {_shown(address)} needs a driver: pip install 'tierwise[postgres]'"
        ) from None
    try:
        with database.translated_errors("opened"):
            _migrate(database)
    except LedgerError:
        database.close()
        raise
    return database


def is_sqlite(engine: Engine | Connection) -> bool:
    """Return True for SQLite, False for PostgreSQL."""
    return engine.dialect.name == "sqlite"


def _shown(url: URL) -> str:
    """Return the address for people: a path, or a URL without its password."""
    return (
        str(url.database)
        if url.get_backend_name() == "sqlite"
        else url.render_as_string(hide_password=True)
    )


def _address(url: str | None, root: Path) -> URL:
    """Return the address with a path that does not depend on the working folder."""
    if url is None:
        return URL.create("sqlite", database=str(root / DEFAULT_PATH))
    allowed = "use sqlite:///path or postgresql+psycopg://user@host/name"
    try:
        address = make_url(url)
        backend = address.get_backend_name()
    except (ArgumentError, NoSuchModuleError):
        raise LedgerError(
            f"the ledger's address is not a database URL; {allowed}"
        ) from None
    if backend == "sqlite" and address.database and address.database != ":memory:":
        return address.set(drivername="sqlite", database=str(root / address.database))
    if backend == "postgresql":
        return address.set(drivername="postgresql+psycopg")
    raise LedgerError(
        f"the ledger cannot be kept at {address.render_as_string(hide_password=True)}; {allowed}"
    )


def _engine(address: URL) -> Engine:
    """Return the engine; values are hidden, so that no SQL log or traceback has answers."""
    if address.get_backend_name() == "sqlite":
        timeout = {} if "timeout" in address.query else {"timeout": _BUSY_S}
        engine = create_engine(address, connect_args=timeout, hide_parameters=True)
        event.listen(engine, "connect", _on_connect_sqlite)
    else:
        options = {
            "connect_timeout": 10,
            "options": f"-c lock_timeout={int(_BUSY_S * 1000)}",
        }
        engine = create_engine(
            address, connect_args=options, pool_pre_ping=True, hide_parameters=True
        )
    event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves
    _use_wal(connection)
    # NORMAL: a committed row survives the death of the process; FULL, which also survives a
    # power cut, costs an fsync a commit, a hundred times the time.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _on_begin(connection: Connection) -> None:
    writing = connection.get_execution_options().get("writing", False)
    if is_sqlite(connection):
        # IMMEDIATE takes the lock at once, and waits for it. A transaction that begins as a reader
        # and writes later fails without a wait if another process has written in between.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")
    elif writing:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch a new file to WAL; SQLite doesn't wait by itself when two processes do so at once."""
    deadline = time.monotonic() + 5
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _migrate(database: Database) -> None:
    with database.engine.begin() as connection:
        if _version(connection) == HEAD:
            return
    with database.writing() as connection:
        version = _version(connection)  # another process may have migrated meanwhile
        if version == HEAD:
            return
        if version is None and set(inspect(connection).get_table_names()) & set(
            Base.metadata.tables
        ):
            remedy = "give the ledger a database of its own"
            raise LedgerError(
                f"{database.name} holds another program's tables; {remedy}"
            )
        migrate(connection, database.name, version)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant


def migrate(connection: Connection, name: str, version: str | None) -> None:
    """Run the migrations after `version` in the connection's transaction.

    Raises LedgerError for a newer schema.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    known = {
        script.revision
        for script in ScriptDirectory.from_config(config).walk_revisions()
    }
    if version is not None and version not in known:
        remedy = "update tierwise, or name another ledger"
        raise LedgerError(
            f"the ledger {name} was written by a newer tierwise (schema {version}); {remedy}"
        )
    command.upgrade(config, "head")
