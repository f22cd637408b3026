"""Waiting for a database that is away: which errors pass, for how long, and what is said."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from tierwise.errors import LedgerAway

if TYPE_CHECKING:
    from sqlalchemy.exc import SQLAlchemyError


log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

# The longest a process that lost the database needs to see that it is back, with its 10 s for a
# connection. Leases count on only then, as their holders could not renew them.
GRACE_S = 15.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 3.0
_SAY_AFTER_S = 1.0
_SAY_EVERY_S = 60.0

# Result codes of SQLite that may pass: locked, full, and errors of the disk or the network.
_PASSING_CODES = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOMEM,
    }
)
# SQLSTATE classes that may pass: lost connections, serialization, too few resources (connections,
# memory, disk), an administrator's intervention, and errors of the system.
_PASSING_CLASSES = ("08", "40", "53", "57", "58")
_PASSING_STATES = frozenset({"55P03", "25P03", "25P04"})  # locks and timeouts
_DROPPED = "57P04"  # the database was removed: that does not pass
READ_ONLY_TRANSACTION = "25006"
NO_PRIVILEGE = "42501"


def may_pass(error: SQLAlchemyError, *, was_written: bool) -> bool:
    """Return True if the same statement may succeed later.

    `was_written` says that this process has written before: then a database that is read-only now
    is a replica, until the failover has ended.
    """
    if not isinstance(error, DBAPIError):
        return False
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _PASSING_CODES
    if error.connection_invalidated:
        return sqlstate(error) != _DROPPED
    state = sqlstate(error)
    if state is None:
        # A connection that was refused, reset or never made has no state.
        return isinstance(error, OperationalError | InterfaceError)
    if state == READ_ONLY_TRANSACTION:
        return was_written
    if state == _DROPPED:
        return False
    return state in _PASSING_STATES or state.startswith(_PASSING_CLASSES)


def is_refused_password(error: SQLAlchemyError) -> bool:
    """Return True if a server answered, asked for a password, and made no connection."""
    connection = getattr(getattr(error, "orig", None), "pgconn", None)
    if connection is None or sqlstate(error) is not None:
        return False
    return bool(connection.used_password or connection.needs_password)


def sqlstate(error: SQLAlchemyError) -> str | None:
    """Return PostgreSQL's code of an error, None where there is none."""
    return getattr(getattr(error, "orig", None), "sqlstate", None)


class Outage:
    """Whether one side of a database, reading or writing, is away. Thread-safe."""

    def __init__(self, name: str, consequence: str) -> None:
        """`name` is the ledger's, and `consequence` what does not happen meanwhile, in words."""
        self.patience_s = 0.0
        self._name = name
        self._consequence = consequence
        self._lock = threading.Lock()
        self._since: float | None = None  # monotonic
        self._began_at = 0.0  # epoch seconds
        self._said_at: float | None = None
        self._last: tuple[float, float] | None = None  # began, ended: epoch seconds
        self._given_up: LedgerAway | None = None

    @property
    def is_waited_for(self) -> bool:
        """True while the database is away, and the patience is not over."""
        since = self._since
        if since is None:
            return False
        return time.monotonic() < since + self.patience_s

    def wait(self, error: LedgerAway) -> None:
        """Wait a moment before a further try. Raises the error when the patience is over."""
        now = time.monotonic()
        with self._lock:
            if self._since is None:
                self._since = now
                self._began_at = time.time()
                self._said_at = None
            elapsed = now - self._since
            left = self.patience_s - elapsed
            if left <= 0:
                self._given_up = _waited_for(error, elapsed)
                raise self._given_up from error
            if elapsed >= _SAY_AFTER_S:
                self._say(error, now)
        # With some randomness: a server that comes back is not asked by all at once.
        longest = min(max(_FIRST_PAUSE_S, elapsed / 4), _LONGEST_PAUSE_S, left)
        time.sleep(longest * random.uniform(0.5, 1.0))

    def over(self) -> None:
        """Note that the database answered."""
        if self._since is None:  # without the lock, as it comes with every transaction
            return
        with self._lock:
            if self._since is None:
                return
            seconds = time.monotonic() - self._since
            self._since = None
            self._given_up = None
            self._last = (self._began_at, time.time())
            if self._said_at is not None:
                log.warning(
                    "the ledger %s answers again, after %s",
                    self._name,
                    in_words(seconds),
                )

    def note_restart(self, began_at: float, ended_at: float) -> None:
        """Note that the database was away before this process came (epoch seconds)."""
        with self._lock:
            if self._last is None:
                self._last = (began_at, ended_at)

    def lease_time(self, now: float) -> float:
        """Return the time (epoch seconds) that leases are compared with.

        It stands still while the database is away and a little longer, as holders of leases could
        not renew them meanwhile.
        """
        if self._since is not None:
            return min(now, self._began_at)
        if self._last is not None:
            began_at, ended_at = self._last
            if ended_at <= now < ended_at + GRACE_S:
                return min(now, began_at)
        return now

    def hurry(self, seconds: float) -> None:
        """Wait no longer than some seconds from now."""
        with self._lock:
            elapsed = 0.0
            if self._since is not None:
                elapsed = time.monotonic() - self._since
            self.patience_s = min(self.patience_s, elapsed + seconds)

    def refuse_given_up(self) -> None:
        """Raise the error of a database that is waited for no longer."""
        given_up = self._given_up
        if given_up is not None and self._since is not None:
            raise given_up

    def _say(self, error: LedgerAway, now: float) -> None:
        """Say what is waited for, once a minute."""
        if self._said_at is not None and now < self._said_at + _SAY_EVERY_S:
            return
        self._said_at = now
        since = time.strftime("%H:%M:%S", time.localtime(self._began_at))
        log.warning(
            "waiting for the ledger since %s, %s; given up after %s: %s",
            since,
            self._consequence,
            in_words(self.patience_s),
            error,
        )


def outlasts_outages(
    method: Callable[Concatenate[Any, P], T],
) -> Callable[Concatenate[Any, P], T]:
    """Repeat a facet's method, within the patience, when the database goes away during it.

    Only for methods that may be repeated when the first time was committed after all.
    """

    @wraps(method)
    def repeated(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return method(self, *args, **kwargs)
            except LedgerAway as error:
                self._database.wait(error)

    return repeated


def _waited_for(error: LedgerAway, seconds: float) -> LedgerAway:
    """Return the error with how long it was waited for, where that is worth a word."""
    if seconds < _SAY_AFTER_S:
        return error
    return LedgerAway(f"{error}; it was waited for {in_words(seconds)}")


def in_words(seconds: float) -> str:
    """Return a time for people: `45 s`, `30 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"
