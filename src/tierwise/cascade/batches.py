"""The batch lane: calls wait for a provider batch as they would wait for a reply.

Calls of one run to one model are gathered until none has joined for a moment. Then their guards
are checked again, the intent is recorded, the batch is uploaded, and its id is recorded. The
process polls, and settles each answer by itself. A batch outlives its process: any process that
wants one of its calls goes on with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tierwise.cascade.batched_calls import (
    Again,
    BatchedCall,
    BatchEnd,
    BatchLedger,
    Broken,
    Door,
    GoesOnline,
)
from tierwise.cascade.clock import Clock
from tierwise.cascade.faults import batch_decision, is_free
from tierwise.cascade.tracked_batch import PollTimes, TrackedBatch
from tierwise.errors import (
    BatchLinesInvalid,
    BatchQueueFull,
    BatchRefused,
    BatchTooLarge,
    CallError,
    CallWaiting,
    GuardViolation,
    RunStopped,
    TierwiseError,
    describe_exception,
)
from tierwise.gateway.batch import BatchItem, ProviderBatch
from tierwise.ledger.batches import BatchStatus, NewBatch
from tierwise.policy.batch_settings import BatchSettings
from tierwise.policy.catalog import Catalog, Model
from tierwise.policy.transport import Turnaround, online_seconds

log = logging.getLogger(__name__)

LINGER_S = 2.0  # without a further call, a batch is sent
_TURNAROUND_S = 60.0  # for which a turnaround is remembered
_MOST_UPLOADS = 5  # of one batch, while the provider fails
_FIRST_PAUSE_S = 5.0
_LONGEST_PAUSE_S = 60.0
_STOP_POLL_S = 0.05
# Of a call online, to tell how long all that wait would take: a deadline has to be met.
_ASSUMED_ONLINE_S = 5.0


@dataclass(eq=False)
class _Gathered:
    """A call that waits for its batch to be sent."""

    call: BatchedCall
    # the batch once it is at its provider, or another end
    sent: asyncio.Future[TrackedBatch | BatchEnd]
    is_sending: bool = False


@dataclass(eq=False)
class _Group:
    """The calls of one run to one model that wait for their batch."""

    model: Model
    calls: list[_Gathered] = field(default_factory=list)
    last_joined: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    is_flushed: bool = False
    task: asyncio.Task[None] | None = None


class BatchLane:
    """Sends calls in provider batches. Async; lives on the engine's event loop."""

    def __init__(
        self,
        find_door: Callable[[], Door],
        ledger: BatchLedger,
        clock: Clock | None = None,
        *,
        linger_s: float = LINGER_S,
        poll: PollTimes | None = None,
    ) -> None:
        """`find_door` is asked at the first batch."""
        self._find_door = find_door
        self._ledger = ledger
        self._clock = clock or Clock()
        self._linger_s = linger_s
        self._poll = poll or PollTimes()
        self._groups: dict[tuple[str, str], _Group] = {}
        self._tracked: dict[str, TrackedBatch] = {}
        self._sending: Counter[str] = Counter()  # by run
        # By model: why it gets no batches in this process, the most items of one, when the next
        # may be sent, and the prompt tokens that are under way.
        self._refused: dict[str, str] = {}
        self._most_items: dict[str, int] = {}
        self._paused_until: dict[str, float] = {}
        self._enqueued: Counter[str] = Counter()
        self._turnarounds: dict[str, tuple[float, Turnaround | None]] = {}
        self._waiting: Counter[tuple[str, str]] = Counter()  # calls by run and model
        self._stopped_runs: set[str] = set()
        self._is_closed = False

    @property
    def followed(self) -> frozenset[str]:
        """The batches that this process follows, whichever run sent them; for any thread."""
        tracked = self._tracked.copy()
        return frozenset(each for each, batch in tracked.items() if not batch.is_over)

    def refuses(self, model: str) -> bool:
        """Return True if a model's provider takes no batches from here."""
        return model in self._refused

    async def turnaround(self, model: str) -> Turnaround | None:
        """Return how long the model's batches took so far."""
        known = self._turnarounds.get(model)
        now = self._clock.monotonic()
        if known is not None and now < known[0]:
            return known[1]
        seconds = await asyncio.to_thread(self._ledger.batches.seconds_taken, model)
        turnaround = Turnaround.of(seconds)
        self._turnarounds[model] = (now + _TURNAROUND_S, turnaround)
        return turnaround

    def online_seconds(self, run_id: str, model: Model) -> float:
        """Return how long the calls that wait, and one more, would take online."""
        calls = self._waiting[run_id, model.name] + 1
        return online_seconds(calls, _ASSUMED_ONLINE_S, model.concurrency)

    async def answer(
        self, call: BatchedCall, *, detached: bool, rescue_at: float | None
    ) -> BatchEnd:
        """Return the end of a claimed call that goes in the next batch of its run and model.

        Raises CallWaiting once it is in a batch, where the run is detached, and GuardViolation.
        """
        self._refuse_closed()
        key = (call.run_id, call.model.name)
        self._waiting[key] += 1
        try:
            gathered = self._gather(call)
            sent = await self._until_sent(gathered, rescue_at)
            if not isinstance(sent, TrackedBatch):
                return sent
            if detached:
                raise CallWaiting(sent.id)
            return await sent.wait(call.hash, rescue_at)
        finally:
            self._waiting[key] -= 1

    async def join(
        self,
        batch_id: str,
        model: Model,
        call_hash: str,
        *,
        run_id: str,
        detached: bool,
        rescue_at: float | None,
    ) -> BatchEnd:
        """Return the end of a call that is in a batch already, of whatever process.

        Raises CallWaiting where the run is detached and the batch has not answered it.
        """
        self._refuse_closed()
        tracked = self._track(batch_id, model, run_id)
        if not detached:
            key = (run_id, model.name)
            self._waiting[key] += 1
            try:
                return await tracked.wait(call_hash, rescue_at)
            finally:
                self._waiting[key] -= 1
        await tracked.look_now()
        if tracked.is_over:
            return Again()
        raise CallWaiting(batch_id)

    async def adopt_open(self, run_id: str, catalog: Catalog) -> None:
        """Go on with all open batches on record; what they cost is recorded."""
        rows = await asyncio.to_thread(self._ledger.batches.open_batches)
        for row in rows:
            model = catalog.models.get(row.model)
            if model is None or model.batch is None:
                log.warning(
                    "batch %s is open, and the catalog has no batches for %s: put its entry "
                    "back to collect the answers",
                    row.id,
                    row.model,
                )
                continue
            is_own = row.owner == self._ledger.batches.owner
            if not (is_own and row.provider_id is None):
                self._track(row.id, model, run_id)

    def flush(self) -> None:
        """Send what was gathered, without waiting for further calls."""
        for group in self._groups.values():
            group.is_flushed = True
            group.changed.set()

    async def stop(self, run_id: str, seconds: float) -> None:
        """Send nothing of a run any more; wait for the uploads that are under way.

        Wait for at most `seconds`. Its batches go on at their provider.
        """
        self._stopped_runs.add(run_id)
        deadline = time.monotonic() + seconds
        while self._sending[run_id] and time.monotonic() < deadline:
            await asyncio.sleep(_STOP_POLL_S)

    def reopen(self, run_id: str) -> None:
        """Let a run that was stopped send batches again."""
        self._stopped_runs.discard(run_id)

    async def aclose(self) -> None:
        """Stop gathering and polling. Batches go on at their provider."""
        self._is_closed = True
        tasks = [group.task for group in self._groups.values() if group.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for tracked in list(self._tracked.values()):
            await tracked.stop()

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise RunStopped("no batch is sent or followed any more")

    def _track(self, batch_id: str, model: Model, run_id: str) -> TrackedBatch:
        tracked = self._tracked.get(batch_id)
        if tracked is None or tracked.is_over:
            tracked = self._new_tracked(batch_id, model, run_id)
            self._tracked[batch_id] = tracked
        # The run that began the batch may have ended since, in this very process.
        tracked.run_id = run_id
        tracked.start()
        return tracked

    def _new_tracked(self, batch_id: str, model: Model, run_id: str) -> TrackedBatch:
        return TrackedBatch(
            batch_id,
            model,
            run_id,
            door=self._find_door(),
            ledger=self._ledger,
            clock=self._clock,
            poll=self._poll,
            on_refused=lambda error, items: self._note_refusal(model, error, items),
        )

    # Calls are gathered.

    def _gather(self, call: BatchedCall) -> _Gathered:
        key = (call.run_id, call.model.name)
        group = self._groups.get(key)
        if group is None or (group.task and group.task.done()):
            group = self._groups[key] = _Group(call.model)
        sent: asyncio.Future[TrackedBatch | BatchEnd] = (
            asyncio.get_running_loop().create_future()
        )
        gathered = _Gathered(call, sent)
        group.calls.append(gathered)
        group.last_joined = self._clock.monotonic()
        group.changed.set()
        if group.task is None:
            group.task = asyncio.create_task(self._send_when_full(key, group))
        return gathered

    async def _until_sent(
        self, gathered: _Gathered, rescue_at: float | None
    ) -> TrackedBatch | BatchEnd:
        """Wait until a call is at its provider; take it back when its deadline is near."""
        try:
            while not gathered.sent.done():
                seconds = None
                if rescue_at is not None and not gathered.is_sending:
                    seconds = max(0.0, rescue_at - time.time())
                await asyncio.wait({gathered.sent}, timeout=seconds)
                is_late = rescue_at is not None and time.time() >= rescue_at
                if is_late and not gathered.sent.done() and not gathered.is_sending:
                    self._take_back(gathered)
                    await self._ledger.release(gathered.call.hash)
                    return GoesOnline()
                if gathered.is_sending:
                    rescue_at = None
            return gathered.sent.result()
        except asyncio.CancelledError:
            if not gathered.is_sending and not gathered.sent.done():
                self._take_back(gathered)
                await asyncio.shield(self._ledger.release(gathered.call.hash))
            raise

    def _take_back(self, gathered: _Gathered) -> None:
        for group in self._groups.values():
            if gathered in group.calls:
                group.calls.remove(gathered)

    async def _send_when_full(self, key: tuple[str, str], group: _Group) -> None:
        """Send the calls of a group once none has joined for a moment, or it is full."""
        run_id = key[0]
        while group.calls and run_id not in self._stopped_runs:
            await self._until_full(group)
            chunk = self._next_calls(group)
            if not chunk:
                continue
            if run_id in self._stopped_runs:
                break
            del group.calls[: len(chunk)]
            for gathered in chunk:
                gathered.is_sending = True
            self._sending[run_id] += 1
            try:
                await self._send(group.model, run_id, chunk)
            except Exception as error:  # noqa: BLE001 - its callers would wait for ever
                # Without its words, as they may quote a document.
                what = f"a batch of {group.model.name}: {describe_exception(error)}"
                log.error("%s; it was not sent", what)  # noqa: TRY400
                for gathered in chunk:
                    _resolve(gathered, Broken(TierwiseError(what)))
            finally:
                self._sending[run_id] -= 1

    async def _until_full(self, group: _Group) -> None:
        while not group.is_flushed and len(group.calls) < self._limit(group.model):
            waited = self._clock.monotonic() - group.last_joined
            if waited >= self._linger_s:
                break
            group.changed.clear()
            await self._clock.wait(group.changed, self._linger_s - waited)
        group.is_flushed = False
        pause = self._paused_until.get(group.model.name, 0.0) - self._clock.monotonic()
        if pause > 0:
            await self._clock.sleep(pause)

    def _limit(self, model: Model) -> int:
        """Return the most items of a batch of a model."""
        most = _settings(model).max_items
        return min(most, self._most_items.get(model.name, most))

    def _next_calls(self, group: _Group) -> list[_Gathered]:
        """Return the next calls that fit into a batch, and among those that wait already."""
        calls = group.calls[: self._limit(group.model)]
        most = _settings(group.model).max_enqueued_tokens
        if most is None:
            return calls
        tokens = self._enqueued[group.model.name]
        chosen: list[_Gathered] = []
        for gathered in calls:
            tokens += gathered.call.prompt_tokens
            # One call goes in any case, where nothing else is under way.
            is_first = not chosen and not self._enqueued[group.model.name]
            if tokens > most and not is_first:
                break
            chosen.append(gathered)
        if not chosen:
            pause = self._clock.monotonic() + self._poll.first_s
            self._paused_until[group.model.name] = pause
        return chosen

    # A batch is sent.

    async def _send(
        self, model: Model, run_id: str, chunk: Sequence[_Gathered]
    ) -> None:
        """Send some calls, in as many batches as their bytes need."""
        allowed = [
            gathered for gathered in chunk if not await self._is_refused(gathered)
        ]
        for part in await self._parts_by_bytes(model, allowed):
            await self._send_batch(model, run_id, part)

    async def _is_refused(self, gathered: _Gathered) -> bool:
        """Return True if a guard forbids the batch by now; the call is given up then."""
        refusal = gathered.call.refusal()
        if refusal is None:
            return False
        await self._ledger.release(gathered.call.hash)
        message = f"{gathered.call.model.name}: {refusal}"
        _resolve(gathered, Broken(GuardViolation(message)))
        return True

    async def _parts_by_bytes(
        self, model: Model, chunk: list[_Gathered]
    ) -> list[list[_Gathered]]:
        """Cut calls so that no batch has more bytes than the provider takes."""
        if not chunk:
            return []
        try:
            sizes = await self._find_door().sizes(model.name, _items(chunk))
        except BatchLinesInvalid as error:
            named = {line - 1 for line in error.lines}
            bad = [each for place, each in enumerate(chunk) if place in named]
            good = [each for place, each in enumerate(chunk) if place not in named]
            await self._release(bad or chunk, GoesOnline())
            return await self._parts_by_bytes(model, good) if bad else []
        except TierwiseError as error:
            await self._release(chunk, Broken(error))
            return []
        most = _settings(model).max_bytes
        parts: list[list[_Gathered]] = [[]]
        size = 0
        for gathered, own_size in zip(chunk, sizes, strict=True):
            if parts[-1] and size + own_size > most:
                parts.append([])
                size = 0
            parts[-1].append(gathered)
            size += own_size
        return parts

    async def _release(self, chunk: Sequence[_Gathered], end: BatchEnd) -> None:
        """Give up the claims of calls that were not sent."""
        await asyncio.gather(
            *(self._ledger.release(gathered.call.hash) for gathered in chunk)
        )
        for gathered in chunk:
            _resolve(gathered, end)

    async def _send_batch(
        self, model: Model, run_id: str, chunk: list[_Gathered]
    ) -> None:
        """Record the intent, upload, and record the provider's id at once."""
        batch = NewBatch(id=_new_id(), run_id=run_id, model=model.name)
        attempts = [gathered.call.attempt for gathered in chunk]
        granted = await self._ledger.batches.intend(batch, attempts)
        for gathered in chunk:
            if gathered.call.hash not in granted:
                _resolve(gathered, Again())
        chunk = [gathered for gathered in chunk if gathered.call.hash in granted]
        if not chunk:
            return
        tracked = self._new_tracked(batch.id, model, run_id)
        tracked.expect([gathered.call for gathered in chunk])
        self._tracked[batch.id] = tracked
        sent = await self._uploaded(model, batch, chunk)
        if isinstance(sent, TierwiseError):
            await self._not_sent(batch, chunk, sent)
            del self._tracked[batch.id]
            return
        await self._ledger.batches.submitted(batch.id, sent.id)
        tokens = sum(gathered.call.prompt_tokens for gathered in chunk)
        self._enqueued[model.name] += tokens
        tracked.start()
        tracked.on_over(lambda: self._note_over(batch.id, model.name, tokens))
        for gathered in chunk:
            _resolve(gathered, tracked)

    async def _uploaded(
        self, model: Model, batch: NewBatch, chunk: list[_Gathered]
    ) -> ProviderBatch | TierwiseError:
        """Upload a batch; return the error that ends the attempts to."""
        door = self._find_door()
        pause = _FIRST_PAUSE_S
        for number in range(1, _MOST_UPLOADS + 1):
            try:
                return await door.submit(model.name, _items(chunk), batch.id)
            except CallError as error:
                log.warning("batch %s was not taken: %s", batch.id, error)
                fault = error
            except TierwiseError as error:
                return error
            if not is_free(fault):
                # It may have been made, though the answer was lost.
                found = await self._found(model, batch, chunk)
                if found is not None:
                    return found
            is_last = number == _MOST_UPLOADS
            if batch_decision(fault) != "retry" or is_last:
                return fault
            if isinstance(fault, BatchQueueFull):
                return fault
            await self._clock.sleep(fault.retry_after or pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)
        return fault

    async def _found(
        self, model: Model, batch: NewBatch, chunk: list[_Gathered]
    ) -> ProviderBatch | None:
        """Return the batch if the provider has it. Tries until the provider answers."""
        ids = [gathered.call.hash for gathered in chunk]
        pause = _FIRST_PAUSE_S
        while True:
            try:
                return await self._find_door().find(
                    model.name, batch.id, batch.created_at, ids
                )
            except CallError as error:
                if batch_decision(error) != "retry":
                    log.warning("batch %s cannot be looked for: %s", batch.id, error)
                    return None
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    async def _not_sent(
        self, batch: NewBatch, chunk: list[_Gathered], error: TierwiseError
    ) -> None:
        """Give up a batch that the provider did not take: its calls cost nothing."""
        model = chunk[0].call.model
        ends = self._ends_after(chunk, error)
        if isinstance(error, CallError):
            self._note_refusal(model, error, len(chunk))
        items = await asyncio.to_thread(self._ledger.batches.items, batch.id)
        for item in items:
            await self._ledger.batches.release(item, "not sent")
        fault = type(error).__name__
        status = BatchStatus(state="not_sent", fault=fault)
        await self._ledger.batches.noted(batch.id, status)
        await asyncio.to_thread(self._ledger.batches.close_if_done, batch.id)
        for gathered, end in zip(chunk, ends, strict=True):
            _resolve(gathered, end)

    def _ends_after(
        self, chunk: Sequence[_Gathered], error: TierwiseError
    ) -> list[BatchEnd]:
        """Return what becomes of each call of a batch that was not taken."""
        if isinstance(error, BatchLinesInvalid) and error.lines:
            places = range(1, len(chunk) + 1)
            return [
                GoesOnline() if place in error.lines else Again() for place in places
            ]
        decided = batch_decision(error)
        end: BatchEnd = Broken(error)
        if decided == "online":
            end = GoesOnline()
        elif decided == "split":
            end = Again() if len(chunk) > 1 else GoesOnline()
        elif isinstance(error, BatchQueueFull):
            end = Again()
        return [end] * len(chunk)

    def _note_refusal(self, model: Model, error: CallError, items: int) -> None:
        """Remember why a batch was not taken, for the next ones of its model."""
        name = model.name
        if isinstance(error, BatchRefused):
            self._refused[name] = error.message
            log.warning("%s gets no batches in this run: %s", name, error.message)
        elif isinstance(error, BatchTooLarge):
            self._most_items[name] = max(1, items // 2)
        elif isinstance(error, BatchQueueFull):
            pause = error.retry_after or _LONGEST_PAUSE_S
            self._paused_until[name] = self._clock.monotonic() + pause

    def _note_over(self, batch_id: str, model: str, tokens: int) -> None:
        self._enqueued[model] -= tokens
        self._tracked.pop(batch_id, None)
        self._turnarounds.pop(model, None)


def _settings(model: Model) -> BatchSettings:
    """Return a model's batch settings; only models that have some come here."""
    if model.batch is None:
        raise TierwiseError(f"{model.name} has no `batch:` in the catalog")
    return model.batch


def _new_id() -> str:
    """Return an id of a batch: the time, and a random part."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"


def _items(chunk: Sequence[_Gathered]) -> list[BatchItem]:
    return [BatchItem(gathered.call.hash, gathered.call.call) for gathered in chunk]


def _resolve(gathered: _Gathered, sent: TrackedBatch | BatchEnd) -> None:
    if not gathered.sent.done():
        gathered.sent.set_result(sent)
