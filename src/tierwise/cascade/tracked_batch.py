"""One batch that is at its provider, or may be: polled, collected, and rescued before a deadline.

It knows its callers in this process. What it does for the ledger does not depend on them: a batch
of a process that died is collected in the same way.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from tierwise.cascade.attempt_ends import answered_attempt, failed_attempt, note_of
from tierwise.cascade.batched_calls import (
    Again,
    BatchedCall,
    BatchEnd,
    BatchLedger,
    Broken,
    Door,
    GoesOnline,
    Settled,
)
from tierwise.cascade.clock import Clock
from tierwise.cascade.faults import batch_decision, is_free
from tierwise.errors import (
    BatchCancelled,
    BatchIncomplete,
    BatchLinesInvalid,
    BatchQueueFull,
    BatchRenamed,
    BatchResultsGone,
    BatchTooLarge,
    CallError,
    LedgerError,
    RunStopped,
    TierwiseError,
    describe_exception,
)
from tierwise.gateway.batch import ProviderBatch, missing_item
from tierwise.ledger.batches import BatchItemRow, BatchRow, BatchStatus
from tierwise.ledger.rows import LATE
from tierwise.policy.catalog import Model
from tierwise.records import Call, Reply

log = logging.getLogger(__name__)

_MOST_READS = 4  # of results that cannot be read to their end
_AT_ONCE = 100  # items that are settled at the same time
_FRESH_LOOK_S = 0.5  # a look that is not older answers all calls of a resumed run
_FIND_LOOKS = 3  # for a batch whose upload was under way when its process ended
_FIND_PAUSE_S = 2.0
_CANCEL_GRACE_S = (
    15.0  # for a provider to end a batch that was cancelled, before a deadline
)
_CANCEL_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class PollTimes:
    """The seconds between two looks at a batch: the first ones, and the most."""

    first_s: float = 5.0
    most_s: float = 60.0
    growth: float = 1.5


class TrackedBatch:
    """A batch and its callers. Lives on the engine's event loop."""

    def __init__(
        self,
        batch_id: str,
        model: Model,
        run_id: str,
        *,
        door: Door,
        ledger: BatchLedger,
        clock: Clock,
        poll: PollTimes,
        on_refused: Callable[[CallError, int], None],
    ) -> None:
        """`run_id` is the run that collects, the newest of this process that wants the batch.

        `on_refused` learns why a batch was not taken.
        """
        self.id = batch_id
        self.model = model
        self.looked = asyncio.Event()  # at least once
        self.run_id = run_id
        self._door = door
        self._ledger = ledger
        self._clock = clock
        self._poll = poll
        self._on_refused = on_refused
        self._wake = asyncio.Event()
        self._last_look = -math.inf  # by the monotonic clock
        self._own: dict[str, BatchedCall] = {}
        self._order: dict[
            str, int
        ] = {}  # by call hash: the place in the upload, from 1
        self._waiting: defaultdict[str, list[asyncio.Future[BatchEnd]]] = defaultdict(
            list
        )
        self._rescue_at: dict[asyncio.Future[BatchEnd], float] = {}
        self._is_adopted = False
        self._is_cancelled = False  # by us, before a deadline
        self._noted: BatchStatus | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_over(self) -> bool:
        """True once nothing comes any more."""
        return self._task is not None and self._task.done()

    def expect(self, calls: Sequence[BatchedCall]) -> None:
        """Note the calls of this process, in the order of the upload."""
        for place, call in enumerate(calls, start=1):
            self._own[call.hash] = call
            self._order[call.hash] = place

    def start(self) -> None:
        """Begin to poll."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def on_over(self, notify: Callable[[], None]) -> None:
        """Call a function once nothing comes any more."""
        if self._task is not None:
            self._task.add_done_callback(lambda _: notify())

    async def stop(self) -> None:
        """Stop polling; the batch goes on without this process."""
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def wait(self, call_hash: str, rescue_at: float | None) -> BatchEnd:
        """Return the end of a call of this batch.

        From `rescue_at` on (epoch seconds) its deadline is in danger, and the call goes online.
        """
        if self.is_over:
            return Again()
        future: asyncio.Future[BatchEnd] = asyncio.get_running_loop().create_future()
        self._waiting[call_hash].append(future)
        if rescue_at is not None:
            self._rescue_at[future] = rescue_at
            self._wake.set()
        try:
            return await future
        finally:
            self._rescue_at.pop(future, None)

    async def look_now(self) -> None:
        """Return after a look at the provider, which other callers may share."""
        if self._task is not None and not self._task.done():
            age = time.monotonic() - self._last_look
            if age > _FRESH_LOOK_S:
                self.looked.clear()
                self._wake.set()
        await self.looked.wait()

    async def _run(self) -> None:
        """Look again and again, until nothing is open any more."""
        delay = self._poll.first_s
        try:
            while not await self._looked_at():
                self._last_look = time.monotonic()
                self.looked.set()
                await self._clock.wait(self._wake, self._until_next_look(delay))
                self._wake.clear()
                delay = min(delay * self._poll.growth, self._poll.most_s)
        except asyncio.CancelledError:
            self._end_all(Broken(RunStopped(f"batch {self.id} is followed no longer")))
            raise
        except LedgerError as error:
            self._end_all(Broken(error))
        except Exception as error:  # noqa: BLE001 - its callers would wait for ever
            # Without its words, as they may quote a document.
            fault = describe_exception(error)
            log.error("batch %s cannot be followed: %s", self.id, fault)  # noqa: TRY400
            self._end_all(Broken(TierwiseError(f"batch {self.id}: {fault}")))
        finally:
            self.looked.set()
            self._end_all(Again())

    def _until_next_look(self, delay: float) -> float:
        danger = min(self._rescue_at.values(), default=None)
        if danger is None:
            return delay
        return max(0.0, min(delay, danger - time.time()))

    async def _looked_at(self) -> bool:
        """Look once; return True once nothing is open any more."""
        try:
            return await self._look()
        except CallError as error:
            await self._note_fault(error)
        except TierwiseError as error:
            if isinstance(error, LedgerError):
                raise
            self._end_all(Broken(error))
        return False

    async def _note_fault(self, error: CallError) -> None:
        """Act on an error of the batch as a whole; it stays open unless it is gone."""
        decided = batch_decision(error)
        log.warning("batch %s: %s", self.id, error)
        if isinstance(error, BatchResultsGone):
            await self._give_up()
        elif decided == "stop":
            self._end_all(Broken(error))
        elif decided == "online":
            await self._rescue_items()

    async def _look(self) -> bool:
        row = await asyncio.to_thread(self._ledger.batches.row, self.id)
        if row is None or not row.is_open:
            return True
        if row.provider_id is None:
            return await self._recovered(row)
        provider = await self._door.status(self.model.name, row.provider_id)
        await self._note(row, provider)
        if provider.has_ended:
            await self._collect(provider)
            return await self._closed()
        if provider.fault is not None:
            await self._note_fault(provider.fault)
        elif self._is_in_danger():
            return await self._rescue(row, row.provider_id)
        return False

    async def _closed(self) -> bool:
        return await asyncio.to_thread(self._ledger.batches.close_if_done, self.id)

    # A batch whose upload was under way when its process ended.

    async def _recovered(self, row: BatchRow) -> bool:
        """Find a batch of a dead process at its provider; return True if there is none."""
        if not self._is_adopted:
            if not row.is_abandoned(time.time()):
                return False
            adopted = await asyncio.to_thread(self._ledger.batches.adopt, row)
            if not adopted:
                return False
            self._is_adopted = True
        items = await self._open_items()
        ids = [item.call_hash for item in items]
        for number in range(_FIND_LOOKS):
            if number:
                # Its last request may have been on the way.
                await self._clock.sleep(_FIND_PAUSE_S)
            found = await self._door.find(self.model.name, self.id, row.created_at, ids)
            if found is not None:
                await self._ledger.batches.submitted(self.id, found.id)
                log.warning(
                    "batch %s was sent by a process that ended: it goes on as %s",
                    self.id,
                    found.id,
                )
                self._wake.set()
                return False
        log.warning(
            "batch %s: its process ended while it sent %d calls to %s; the provider has no "
            "such batch, so they are sent again",
            self.id,
            len(items),
            self.model.name,
        )
        for item in items:
            await self._ledger.batches.release(item, "not sent")
            self._end(item.call_hash, Again())
        await self._ledger.batches.noted(self.id, BatchStatus(state="not_sent"))
        return await self._closed()

    async def _open_items(self) -> list[BatchItemRow]:
        return await asyncio.to_thread(self._ledger.batches.items, self.id)

    async def _note(self, row: BatchRow, provider: ProviderBatch) -> None:
        """Record the batch's state, where it is another one."""
        ended_at = None
        if provider.has_ended:
            ended_at = time.time()
            if provider.ended_at and provider.created_at and row.submitted_at:
                # Both by the provider's clock, which may differ from ours.
                taken = max(0.0, provider.ended_at - provider.created_at)
                ended_at = row.submitted_at + taken
        status = BatchStatus(
            state=provider.state,
            succeeded=provider.succeeded,
            failed=provider.failed,
            ended_at=ended_at,
            expires_at=provider.expires_at,
            fault=None if provider.fault is None else type(provider.fault).__name__,
        )
        before = self._noted
        if before is not None and replace(before, ended_at=ended_at) == status:
            return
        self._noted = status
        await self._ledger.batches.noted(self.id, status)

    # The results.

    async def _collect(self, provider: ProviderBatch) -> None:
        """Settle the items of a batch that has ended, one by one."""
        items = {item.call_hash: item for item in await self._open_items()}
        calls: Mapping[str, Call] = {
            call_hash: own.call for call_hash, own in self._own.items()
        }
        fault = await self._read_results(provider, items, calls)
        if not items:
            return
        if fault is not None:
            # They may have been answered, and billed.
            for item in list(items.values()):
                await self._lose(item)
            return
        error = missing_item(provider, self.model.name)
        if not provider.succeeded and not provider.failed:
            self._on_refused(error, len(items))
        for chunk in _chunks(list(items.values())):
            await asyncio.gather(*(self._unanswered(item, error) for item in chunk))

    async def _read_results(
        self,
        provider: ProviderBatch,
        items: dict[str, BatchItemRow],
        calls: Mapping[str, Call],
    ) -> CallError | None:
        """Settle what can be read, and take it out of `items`; return why the rest cannot."""
        for number in range(1, _MOST_READS + 1):
            ready: list[tuple[BatchItemRow, Reply | CallError]] = []
            fault: CallError | None = None
            try:
                async for result in self._door.results(
                    self.model.name, provider, calls
                ):
                    item = items.pop(result.custom_id, None)
                    if item is None:  # unknown, or settled before
                        continue
                    ready.append((item, result.reply))
                    if len(ready) == _AT_ONCE:
                        await self._settle_all(ready)
                        ready = []
            except CallError as error:
                fault = error
            await self._settle_all(ready)
            if fault is None:
                return None
            decided = batch_decision(fault)
            if decided == "stop":
                raise fault
            is_last = number == _MOST_READS
            if decided != "retry" or is_last:
                if isinstance(fault, BatchResultsGone | BatchIncomplete):
                    return fault
                raise fault
            await self._clock.sleep(self._poll.first_s)
        return None

    async def _settle_all(
        self, ready: Sequence[tuple[BatchItemRow, Reply | CallError]]
    ) -> None:
        await asyncio.gather(*(self._settle(item, result) for item, result in ready))

    async def _settle(self, item: BatchItemRow, result: Reply | CallError) -> None:
        """Commit an item's attempt; only then does anyone act on it."""
        if isinstance(result, BatchCancelled | BatchRenamed):
            await self._unanswered(item, result)
            return
        own = self._own.get(item.call_hash)
        if isinstance(result, Reply) and own is not None:
            result = own.checked(result)
        attempt = item.attempt
        if isinstance(result, Reply):
            reply: Reply | None = result
            attempt = answered_attempt(attempt, self.model, result, attempt.started_at)
        else:
            reply = None
            seconds = max(0.0, time.time() - attempt.started_at)
            attempt = failed_attempt(attempt, self.model, result, seconds)
        note = "" if isinstance(result, Reply) else note_of(result, attempt)
        if item.state == "rescued":
            attempt = replace(
                attempt, error=LATE, error_text="its call was made online meanwhile"
            )
        run_id = await self._run_to_record_in(item)
        await self._ledger.batches.settle(item, run_id, attempt, reply, note=note)
        self._end(item.call_hash, Settled(attempt, result))

    async def _run_to_record_in(self, item: BatchItemRow) -> str:
        if item.run_id == self.run_id:
            return item.run_id
        return await asyncio.to_thread(
            self._ledger.batches.run_to_record_in, item.run_id, self.run_id
        )

    async def _unanswered(self, item: BatchItemRow, error: CallError) -> None:
        """End an item that the batch did not answer, as the table of faults decides."""
        end = self._end_after(item, error)
        if end is None:
            await self._settle_failed(item, error)
            return
        await self._ledger.batches.release(item, f"not billed: {type(error).__name__}")
        self._end(item.call_hash, end)

    def _end_after(self, item: BatchItemRow, error: CallError) -> BatchEnd | None:
        """Return the end of an item that costs nothing; None where a failure is recorded."""
        if not is_free(error):
            return None
        if isinstance(error, BatchLinesInvalid):
            # A batch of another process: the places of its items are not known.
            place = self._order.get(item.call_hash, 0)
            return GoesOnline() if place in error.lines or not place else Again()
        if isinstance(error, BatchTooLarge | BatchQueueFull | BatchRenamed):
            return Again()
        if isinstance(error, BatchCancelled) and self._is_cancelled:
            return GoesOnline()
        if batch_decision(error) == "online":
            return GoesOnline()
        return None

    async def _settle_failed(self, item: BatchItemRow, error: CallError) -> None:
        seconds = max(0.0, time.time() - item.attempt.started_at)
        attempt = failed_attempt(item.attempt, self.model, error, seconds)
        run_id = await self._run_to_record_in(item)
        await self._ledger.batches.settle(
            item, run_id, attempt, None, note=note_of(error, attempt)
        )
        self._end(item.call_hash, Settled(attempt, error))

    async def _give_up(self) -> None:
        """Give up all items: nothing is known of their end any more."""
        for item in await self._open_items():
            await self._lose(item)
        await self._closed()

    async def _lose(self, item: BatchItemRow) -> None:
        await self._ledger.batches.lose(item)
        self._end(item.call_hash, GoesOnline())

    # A deadline in danger.

    def _is_in_danger(self) -> bool:
        return any(at <= time.time() for at in self._rescue_at.values())

    async def _rescue(self, row: BatchRow, provider_id: str) -> bool:
        """Move what is missing online; return True if nothing is open any more.

        The batch is cancelled first: what the provider has answered by then is used, and what it
        has not costs nothing. One that does not end in time may be paid besides.
        """
        log.warning(
            "batch %s: the deadline is near, so what is missing goes online", self.id
        )
        if not self._is_cancelled:
            try:
                await self._door.cancel(self.model.name, provider_id)
            except CallError as error:
                log.warning("batch %s was not cancelled: %s", self.id, error)
            else:
                self._is_cancelled = True
        ends_at = self._clock.monotonic() + _CANCEL_GRACE_S
        while self._is_cancelled and self._clock.monotonic() < ends_at:
            with suppress(CallError):
                provider = await self._door.status(self.model.name, provider_id)
                await self._note(row, provider)
                if provider.has_ended:
                    await self._collect(provider)
                    return await self._closed()
            await self._clock.sleep(_CANCEL_POLL_S)
        await self._rescue_items()
        return False

    async def _rescue_items(self) -> None:
        items = [item for item in await self._open_items() if item.state == "waiting"]
        await self._ledger.batches.rescue(items)
        for item in items:
            self._end(item.call_hash, GoesOnline())

    # The callers.

    def _end(self, call_hash: str, end: BatchEnd) -> None:
        """Tell the callers of a call how it ended. The attempt belongs to the first of them."""
        futures = self._waiting.pop(call_hash, [])
        is_own = call_hash in self._own
        for future in futures:
            if future.done():
                continue
            if isinstance(end, Settled) and not is_own:
                future.set_result(Again())
                continue
            future.set_result(end)
            is_own = False

    def _end_all(self, end: BatchEnd) -> None:
        for futures in list(self._waiting.values()):
            for future in futures:
                if not future.done():
                    future.set_result(end)
        self._waiting.clear()


def _chunks(items: Sequence[BatchItemRow]) -> list[Sequence[BatchItemRow]]:
    return [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]
