"""Group commit: one thread writes all operations that wait in one transaction.

A commit costs far more than a row. Under load, many documents share one commit, and each caller
still returns only after its own rows are committed.

While the database is away, operations wait here, within the patience. The same operations are
written again when the answer to a commit was lost; that changes nothing (see `operations.apply`).
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from tierwise.errors import LedgerAway, LedgerError
from tierwise.ledger.database import Database
from tierwise.ledger.operations import Operation, OperationResult, apply
from tierwise.ledger.unwritten import Unwritten

_MOST = 500  # operations in one transaction
_LOOKS_EVERY_S = 0.1  # for a database that is away


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An operation and who waits for it: a future of an event loop, or of a thread (no loop)."""

    operation: Operation
    future: asyncio.Future[OperationResult] | Future[OperationResult]
    loop: asyncio.AbstractEventLoop | None = None


class Writer:
    """The one thread of a process that writes to the ledger."""

    def __init__(self, database: Database, unwritten: Unwritten) -> None:
        self._database = database
        self._unwritten = unwritten
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # nothing enters the queue after its end
        self._open = True
        self._thread = threading.Thread(
            target=self._run, name="tierwise-ledger", daemon=True
        )
        self._thread.start()

    async def write(self, operation: Operation) -> OperationResult:
        """Write, and return after the commit. Raises LedgerError."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[OperationResult] = loop.create_future()
        self._put(_Waiting(operation, future, loop))
        return await future

    def submit(self, operation: Operation) -> Future[OperationResult]:
        """Write soon; the result, or a LedgerError, is in the future after the commit."""
        future: Future[OperationResult] = Future()
        self._put(_Waiting(operation, future))
        return future

    async def available(self) -> None:
        """Return once the database is not away, as far as this process knows.

        Return also when it is waited for no longer: the next write says so.
        """
        while self._database.writes.is_waited_for:
            await asyncio.sleep(_LOOKS_EVERY_S)

    def close(self) -> None:
        """Write all that waits, then end. A second call does nothing."""
        with self._lock:
            if self._open:
                self._open = False
                self._queue.put(None)
        self._thread.join()

    def _put(self, waiting: _Waiting) -> None:
        with self._lock:
            if not self._open:
                raise LedgerError(f"the ledger {self._database.name} is closed")
            self._queue.put(waiting)

    def _run(self) -> None:
        while group := self._next_group():
            _deliver(group, self._write_patiently(group))

    def _write_patiently(
        self, group: list[_Waiting]
    ) -> Sequence[OperationResult | LedgerError]:
        """Write a group, once the database answers; what arrives meanwhile joins the group."""
        repeated = False
        kept = 0  # operations of the group that are in the file
        while True:
            operations = [waiting.operation for waiting in group]
            try:
                if not self._open:
                    # No time for a server that does not answer: the process ends.
                    self._database.writes.refuse_given_up()
                results = self._write(operations, repeated=repeated)
            except LedgerAway as error:
                repeated = True  # its commit may have succeeded
                group += self._arrived()
                self._unwritten.add(waiting.operation for waiting in group[kept:])
                kept = len(group)
                try:
                    self._database.wait(error)
                except LedgerAway as given_up:
                    return self._given_up(group, given_up)
                continue
            if repeated:
                self._unwritten.clear()
            return results

    def _given_up(
        self, group: Sequence[_Waiting], error: LedgerAway
    ) -> list[OperationResult | LedgerError]:
        """Return the error for everyone, with the place of what was paid."""
        place = self._unwritten.leave()
        if place:
            error = LedgerAway(f"{error}; {place}")
        return [error] * len(group)

    def _arrived(self) -> list[_Waiting]:
        """Return what has arrived since, without waiting for it."""
        arrived: list[_Waiting] = []
        while True:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return arrived
            if item is None:
                self._queue.put(None)  # the end stays the end: nothing comes after it
                return arrived
            arrived.append(item)

    def _next_group(self) -> list[_Waiting]:
        """Return the operations that wait now, at least one; none at the end."""
        group: list[_Waiting] = []
        item = self._queue.get()
        while item is not None:
            group.append(item)
            if len(group) == _MOST:
                return group
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group
        if group:
            self._queue.put(None)  # the end, once more, for the next round
        return group

    def _write(
        self, operations: Sequence[Operation], *, repeated: bool
    ) -> list[OperationResult | LedgerError]:
        """Write as one transaction, or one by one when an operation spoils it.

        Raises LedgerAway when the database is away: that is no fault of an operation.
        """
        try:
            with self._database.writing(waits=False) as connection:
                lease_time = self._database.lease_time()
                return [
                    *apply(
                        connection,
                        operations,
                        lease_time=lease_time,
                        repeated=repeated,
                    )
                ]
        except LedgerAway:
            raise
        except Exception as error:  # noqa: BLE001 - its caller gets it, and the thread lives on
            if len(operations) == 1:
                if isinstance(error, LedgerError):
                    return [error]
                return [self._database.failed("written", error)]
            # One bad operation must not fail the others: write each in a transaction of its own.
            results: list[OperationResult | LedgerError] = []
            for operation in operations:
                results += self._write([operation], repeated=repeated)
            return results


def _deliver(
    group: Sequence[_Waiting], results: Sequence[OperationResult | LedgerError]
) -> None:
    """Hand out the results, with one call into each event loop."""
    loops = defaultdict(list)
    for waiting, result in zip(group, results, strict=True):
        loops[waiting.loop].append((waiting.future, result))
    for loop, pairs in loops.items():
        if loop is None:
            _resolve(pairs)
            continue
        with suppress(RuntimeError):  # the loop is closed: no caller waits
            loop.call_soon_threadsafe(_resolve, pairs)


def _resolve(
    pairs: Sequence[
        tuple[
            asyncio.Future[OperationResult] | Future[OperationResult],
            OperationResult | LedgerError,
        ]
    ],
) -> None:
    for future, result in pairs:
        if future.done():  # its task was cancelled
            continue
        if isinstance(result, LedgerError):
            future.set_exception(result)
        else:
            future.set_result(result)
