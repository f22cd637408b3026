"""Opens the database of a ledger: address, connections, transactions, migrations.

SQLAlchemy's errors become ours here.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from tierwise.errors import LedgerAway, LedgerError
from tierwise.ledger.outage import (
    NO_PRIVILEGE,
    READ_ONLY_TRANSACTION,
    Outage,
    is_refused_password,
    may_pass,
    sqlstate,
)
from tierwise.ledger.read_only import ReadOnlyFile, read_only_file
from tierwise.ledger.tables import Base
from tierwise.text.private import create_private, private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

DEFAULT_PATH = Path(".tierwise") / "ledger.db"
MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "ledger_version"  # Prefect's own database uses alembic's default name
HEAD = "0019"  # the newest migration, known without importing alembic
_BUSY_S = 30.0  # how long to wait for another process's transaction
# A network that swallows everything: a query fails after half a minute, not after two hours.
_SILENCE = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
_LONGEST_OUTAGE_S = 3600.0  # of a server before its start
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
_REMEDIES_BY_STATE = {
    READ_ONLY_TRANSACTION: "this server is a read-only replica; "
    "name one that takes writes in TIERWISE_LEDGER_URL",
    NO_PRIVILEGE: "this user may not do that; "
    "grant it, or name another user in TIERWISE_LEDGER_URL",
}


class Database:
    """One database with a writing and a reading side."""

    def __init__(self, engine: Engine, file: ReadOnlyFile | None = None) -> None:
        """`file` is that of a ledger that this user may not write."""
        self.engine = engine
        self.name = _shown(engine.url)
        self.file = file
        self.writes = Outage(self.name, "no call is begun")
        self.reads = Outage(self.name, "as it is to be read")
        self._was_written = False  # by this process
        self._writing = engine.execution_options(writing=True)
        # In SQLite a transaction reads from one snapshot anyway. It is not `postgresql_readonly`:
        # SQLAlchemy ends that by READ WRITE, which overrides the default of a read-only database.
        consistent = {} if is_sqlite(engine) else {"isolation_level": "REPEATABLE READ"}
        self._reading = engine.execution_options(**consistent)

    def be_patient(self, seconds: float) -> None:
        """Wait that long for a database that is away, from now on."""
        for outage in (self.writes, self.reads):
            outage.patience_s = seconds

    def hurry(self, seconds: float) -> None:
        """Wait no longer than some seconds from now, as the process or its run ends."""
        for outage in (self.writes, self.reads):
            outage.hurry(seconds)

    def wait(self, error: LedgerAway) -> None:
        """Wait a moment before a further try. Raises the error when the patience is over."""
        # Also connections that work: they may be to a server that is a replica by now.
        self.engine.dispose()
        outage = self.reads if error.reading else self.writes
        outage.wait(error)

    def lease_time(self) -> float:
        """Return the present for leases (epoch seconds); see `Outage.lease_time`."""
        return self.writes.lease_time(time.time())

    @contextmanager
    def writing(self, *, waits: bool = True) -> Iterator[Connection]:
        """One transaction; no other process writes meanwhile. Raises LedgerError.

        Wait for a database that is away before the transaction, but not in the middle of it.
        """
        if self.file is not None:
            raise LedgerError(f"the ledger {self.name} cannot be written: {self.file}")
        with self.translated_errors("written"):
            begun = self._begun(self._writing, "written", waits=waits)
            with begun as connection:
                yield connection
        self._was_written = True
        self.writes.over()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view. Raises LedgerError.

        Wait for a database that is away before the first query, but not after it.
        """
        with self.translated_errors("read"):
            with self._begun(self._reading, "read") as connection:
                yield connection
            self.reads.over()
        if self.file is not None:
            self.file.refuse_changed()

    @contextmanager
    def _begun(
        self, engine: Engine, done: str, *, waits: bool = True
    ) -> Iterator[Connection]:
        """Begin a transaction, once the database answers, and commit it."""
        while True:
            transaction = engine.begin()
            try:
                connection = transaction.__enter__()
            except SQLAlchemyError as error:
                failed = self.failed(done, error)
                if not waits or not isinstance(failed, LedgerAway):
                    raise failed from error
                self.wait(failed)
                continue
            break
        try:
            yield connection
        except BaseException as error:
            # Rolls back; the error goes on, as this gives no other answer.
            transaction.__exit__(type(error), error, error.__traceback__)
            raise
        transaction.__exit__(None, None, None)

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
        advice = _advice(error, cause)
        remedy = f"; {advice}" if advice else ""
        message = f"the ledger {self.name} cannot be {done}: {cause}{remedy}"
        if not isinstance(error, SQLAlchemyError):
            return LedgerError(message)
        if not may_pass(error, was_written=self._was_written):
            return LedgerError(message)
        away = LedgerAway(message)
        away.reading = done == "read"
        return away

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def open_database(url: str | None, root: Path, *, patience_s: float = 0.0) -> Database:
    """Open the database at `url`, by default below `root`, and migrate it. Raises LedgerError.

    Wait `patience_s` for one that does not answer. One that this user may not write is only read.
    """
    address = _address(url, root)
    try:
        database = _database(address)
    except OSError as error:
        remedy = "check that its folder exists and may be written"
        raise LedgerError(
            f"the ledger {_shown(address)} cannot be opened: {error}; {remedy}"
        ) from None
    except ImportError:
        raise LedgerError(
            f"the ledger {_shown(address)} needs a driver: pip install 'tierwise[postgres]'"
        ) from None
    database.be_patient(patience_s)
    try:
        _open(database)
    except LedgerError:
        database.close()
        raise
    return database


def _database(address: URL) -> Database:
    """Return the database at an address, not connected yet. Raises OSError, ImportError."""
    file = None
    if address.get_backend_name() == "sqlite":
        path = Path(str(address.database))
        file = read_only_file(path)
        if file is None:
            private_folder(path.parent)
            create_private(path)
    return Database(_engine(address, file), file)


def _open(database: Database) -> None:
    """Migrate a database, once it answers. Raises LedgerError."""
    while True:
        try:
            with database.translated_errors("opened"):
                _note_restart(database)
                _migrate(database)
        except LedgerAway as error:
            cause = error.__cause__
            if isinstance(cause, SQLAlchemyError) and is_refused_password(cause):
                raise
            database.wait(error)
            continue
        database.writes.over()
        return


def _note_restart(database: Database) -> None:
    """Note that a server was away just before: holders of leases may not have renewed them yet."""
    if is_sqlite(database.engine):
        return
    started = text("SELECT extract(epoch FROM pg_postmaster_start_time())")
    with database.engine.begin() as connection:
        started_at = float(connection.execute(started).scalar_one())
    database.writes.note_restart(started_at - _LONGEST_OUTAGE_S, started_at)


def is_sqlite(engine: Engine | Connection) -> bool:
    """Return True for SQLite, False for PostgreSQL."""
    return engine.dialect.name == "sqlite"


def _advice(error: Exception, cause: str) -> str:
    """Return the remedy for an error of the database, empty where none is known."""
    if isinstance(error, SQLAlchemyError):
        advice = _REMEDIES_BY_STATE.get(sqlstate(error) or "")
        if advice:
            return advice
    for sign, known in _REMEDIES:
        if sign in cause.lower():
            return known
    return ""


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


def _engine(address: URL, file: ReadOnlyFile | None) -> Engine:
    """Return the engine; values are hidden, so that no SQL log or traceback has answers."""
    if file is not None:
        timeout_s = float(str(address.query.get("timeout", _BUSY_S)))
        connect = partial(file.connect, timeout_s)
        engine = create_engine(address, creator=connect, hide_parameters=True)
    elif address.get_backend_name() == "sqlite":
        timeout = {} if "timeout" in address.query else {"timeout": _BUSY_S}
        engine = create_engine(address, connect_args=timeout, hide_parameters=True)
        event.listen(engine, "connect", _on_connect_sqlite)
    else:
        options = {
            "connect_timeout": 5,
            "options": f"-c lock_timeout={int(_BUSY_S * 1000)}",
            **_SILENCE,
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
        version = _version(connection)
        if version == HEAD:
            return
        if database.file is not None or _is_read_only(connection):
            raise LedgerError(_old_and_read_only(database, version))
    with database.writing(waits=False) as connection:
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


def _is_read_only(connection: Connection) -> bool:
    """Return True for a PostgreSQL server or user that makes no tables."""
    if is_sqlite(connection):
        return False
    question = (
        "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' "
        "OR NOT has_schema_privilege(current_schema(), 'CREATE')"
    )
    return bool(connection.execute(text(question)).scalar())


def _old_and_read_only(database: Database, version: str | None) -> str:
    """Return what to do about a ledger that needs a migration, and cannot have it."""
    if version is None:
        return (
            f"the ledger {database.name} is empty, and may not be written; "
            "check its address, or begin it with a user who may write it"
        )
    if version > HEAD:
        return (
            f"the ledger {database.name} was written by a newer tierwise "
            f"(schema {version}); update tierwise, or name another ledger"
        )
    return (
        f"the ledger {database.name} was written by an older tierwise (schema {version}, "
        f"this one reads {HEAD}), and may not be written; "
        "open it once with a user who may, such as by `tierwise runs`, or read a copy of it"
    )


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
