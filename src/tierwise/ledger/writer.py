"""Group commit: one thread writes all operations that wait in one transaction.

A commit costs far more than a row. Under load, many documents share one commit, and each caller
still returns only after its own rows are committed.
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

from sqlalchemy.exc import OperationalError

from tierwise.errors import LedgerError
from tierwise.ledger.database import Database
from tierwise.ledger.operations import Operation, OperationResult, apply

_MOST = 500  # operations in one transaction


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An operation and who waits for it: a future of an event loop, or of a thread (no loop)."""

    operation: Operation
    future: asyncio.Future[OperationResult] | Future[OperationResult]
    loop: asyncio.AbstractEventLoop | None = None


class Writer:
    """The one thread of a process that writes to the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database
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
            operations = [waiting.operation for waiting in group]
            _deliver(group, self._write(operations))

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
        self, operations: Sequence[Operation]
    ) -> list[OperationResult | LedgerError]:
        """Write as one transaction, or one by one when an operation spoils it."""
        try:
            with self._database.writing() as connection:
                return [*apply(connection, operations)]
        except OperationalError as error:
            # locked, full, gone: the same for each of them
            return [self._database.failed("written", error) for _ in operations]
        except Exception as error:  # noqa: BLE001 - its caller gets it, and the thread lives on
            if len(operations) == 1:
                if isinstance(error, LedgerError):
                    return [error]
                return [self._database.failed("written", error)]
            # One bad operation must not fail the others: write each in a transaction of its own.
            results: list[OperationResult | LedgerError] = []
            for operation in operations:
                results += self._write([operation])
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
