"""One attempt: a call to one model, claimed before it is sent and committed before anyone uses it.

The order is: check the guards, wait for a permit, claim the call in the ledger (which reserves its
worst case), send it, settle its cost. A call that was paid once, in this run or in one that
crashed, is answered from the ledger: that is how a run resumes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Protocol

from tierwise.cascade.attempt_ends import (
    answered_attempt,
    checked_reply,
    failed_attempt,
    note_of,
    unreadable,
)
from tierwise.cascade.batched_calls import (
    Again,
    BatchedCall,
    BatchEnd,
    Broken,
    GoesOnline,
    Settled,
)
from tierwise.cascade.batches import BatchLane
from tierwise.cascade.call_building import (
    batch_refusal,
    build_call,
    check_guards,
    prompt_tokens,
    unanswered_attempt,
)
from tierwise.cascade.circuit import LastSign
from tierwise.cascade.clock import Clock
from tierwise.cascade.faults import fault_on_record, goes_online_after
from tierwise.cascade.job import Work
from tierwise.cascade.page_images import PageImages, image_tokens
from tierwise.cascade.prefixes import Beginning, Prefixes, order_group
from tierwise.cascade.prompt_cut import prompt_cut
from tierwise.cascade.rate_limits import ModelLimits, RatePermit, ServerPermits
from tierwise.cascade.transport import choose_transport, rescue_time
from tierwise.errors import (
    CallError,
    CallInBatch,
    CallWaiting,
    CoolingDown,
    ModelUnavailable,
    PagesUnavailable,
    PromptCut,
    RunStopped,
    TierwiseError,
)
from tierwise.ledger import CallLedger, Paid
from tierwise.policy.budget import ReservationRequest
from tierwise.policy.catalog import Model
from tierwise.policy.prices import Band
from tierwise.policy.router import worst_case
from tierwise.policy.weights import Weights
from tierwise.records import (
    Attempt,
    AttemptKind,
    Call,
    Message,
    Reply,
    Usage,
)

log = logging.getLogger(__name__)

_LOOKS_EVERY_S = 0.05  # for calls under way, once a run was stopped
# What ends a call that was claimed, before anything is sent.
_NOT_SENT = (CoolingDown, ModelUnavailable, RunStopped, asyncio.CancelledError)


class Provider(Protocol):
    """The part of the gateway that the cascade needs."""

    async def complete(self, call: Call) -> Reply:
        """Return the model's reply. Raises CallError or ModelUnavailable."""
        ...


class FailedCall(Exception):
    """A call that failed, after its attempt was recorded. Never leaves the cascade."""

    def __init__(self, cause: TierwiseError) -> None:
        self.cause = cause
        super().__init__(str(cause))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claimed:
    """A call that this process has claimed and may send."""

    call: Call
    attempt: Attempt  # without an answer yet
    prompt_tokens: int  # by our own count
    tokens: int  # the most that it may use, for the rate limit
    worst_cost: Decimal
    beginning: Beginning | None


class Attempts:
    """Makes calls within the limits of each model and of the run's budgets."""

    def __init__(
        self,
        provider: Provider,
        ledger: CallLedger,
        workers: int = 1,
        clock: Clock | None = None,
        batches: BatchLane | None = None,
    ) -> None:
        """Without `batches`, every call goes online."""
        self.clock = clock or Clock()
        self._batches = batches
        self.closing = asyncio.Event()  # no document waits any longer
        self._provider = provider
        self._ledger = ledger
        self._workers = workers
        self._limits: dict[str, ModelLimits] = {}
        self._servers: dict[Weights, ServerPermits] = {}  # of embedded models
        # By model: the most tokens of an answer so far, once a call has ended.
        self._longest: dict[str, int] = {}
        self._prefixes = Prefixes(self.clock)
        self._first_call: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._page_images = PageImages()
        self._stopped_runs: set[str] = set()
        self._said: set[tuple[str, str]] = set()  # by run: batches that are waited for
        self._under_way: Counter[str] = Counter()  # calls by run

    async def stop(self, run_id: str, seconds: float) -> None:
        """Begin no call of a run any more; wait until those under way are on record.

        Wait for at most `seconds`.
        """
        self._stopped_runs.add(run_id)
        deadline = time.monotonic() + seconds
        while self._under_way[run_id] and time.monotonic() < deadline:
            await asyncio.sleep(_LOOKS_EVERY_S)

    def reopen(self, run_id: str) -> None:
        """Let a run that was stopped make calls again."""
        self._stopped_runs.discard(run_id)
        if self._batches is not None:
            self._batches.reopen(run_id)

    @contextmanager
    def _counted(self, run_id: str) -> Iterator[None]:
        """Count a call as under way while the context is open."""
        self._under_way[run_id] += 1
        try:
            yield
        finally:
            self._under_way[run_id] -= 1

    def _refuse_stopped(self, work: Work) -> None:
        if work.run.id in self._stopped_runs:
            raise RunStopped(f"run {work.run.id} was stopped")

    def limits(self, model: Model) -> ModelLimits:
        """Return this process's share of a model's limits."""
        if model.name not in self._limits:
            server = None
            if model.weights:
                server = self._servers.setdefault(model.weights, ServerPermits())
            share = model.shared_by(self._workers)
            self._limits[model.name] = ModelLimits(share, server, self.clock)
        return self._limits[model.name]

    def last_signs(self) -> dict[str, LastSign]:
        """Return whether each model that was called is out, and since when."""
        now = self.clock.monotonic()
        signs: dict[str, LastSign] = {}
        for name, limits in self._limits.items():
            sign = limits.circuit.last_sign(now)
            if sign:
                signs[name] = sign
        return signs

    def end_waits(self) -> None:
        """Let no document wait any longer for a model that is out."""
        self.closing.set()
        for limits in self._limits.values():
            limits.end_waits()

    async def make(
        self, work: Work, model: Model, messages: tuple[Message, ...], kind: AttemptKind
    ) -> tuple[Reply, Attempt]:
        """Return one reply, paid or reused, and its attempt, which is on record.

        Raises FailedCall after a recorded failure or when nothing was sent, BudgetExceeded before
        any call is made, and RunStopped once the run was stopped.
        """
        self._refuse_stopped(work)
        check_guards(work, model)
        try:
            messages = await self._page_images.shown(work, model, messages)
        except PagesUnavailable as error:
            raise FailedCall(error) from error
        call = build_call(work, model, messages)
        while True:
            await self._refuse_failed_before(work, model, call, kind)
            try:
                if await self._goes_in_batch(work, model):
                    end = await self._ask_in_batch(work, model, call, kind)
                    made = self._end_in_batch(work, end)
                    if made is not None:
                        return made
                    if isinstance(end, Again):
                        continue
                    if isinstance(end, Settled):
                        kind = "retry" if kind == "first" else kind
                return await self._make_online(work, model, call, kind)
            except CallInBatch as held:
                await self._until_answered(work, model, call, held.batch)

    async def _make_online(
        self, work: Work, model: Model, call: Call, kind: AttemptKind
    ) -> tuple[Reply, Attempt]:
        """Make a call online, alone where the length of the model's answers is not known."""
        with self._prefixes.announced(work, model, call.messages) as beginning:
            if work.run.budget.limits and self._is_first(model):
                # Alone under a budget: how long the model's answers are is not known yet.
                async with self._first_call[model.name]:
                    if self._is_first(model):
                        return await self._make(work, model, call, kind, beginning)
            return await self._make(work, model, call, kind, beginning)

    # Calls in batches.

    async def _goes_in_batch(self, work: Work, model: Model) -> bool:
        """Return True if the next call of a document to a model goes in a batch."""
        if self._batches is None:
            return False
        turnaround = None
        if model.batch is not None:
            turnaround = await self._batches.turnaround(model.name)
        choice = choose_transport(work, model, turnaround)
        return choice.transport == "batch" and not self._batches.refuses(model.name)

    async def _ask_in_batch(
        self, work: Work, model: Model, call: Call, kind: AttemptKind
    ) -> BatchEnd:
        """Claim a call, and wait for its answer in a batch.

        A call in a batch takes no permit: the provider queues it. Raises as `make` does, and
        CallWaiting where the run does not wait.
        """
        if self._batches is None:
            return GoesOnline()
        tokens = prompt_tokens(work, call.messages)
        seen_tokens = tokens + image_tokens(model, call.messages)
        worst = self._worst_cost(work, model, seen_tokens, call, "batch")
        attempt_id = uuid.uuid4().hex
        attempt = replace(
            unanswered_attempt(work, model, call, kind, attempt_id), transport="batch"
        )
        paid = await self._ledger.claim(
            call.hash,
            fresh_since=work.run.fresh_since,
            reservation=self._reservation(work, model, attempt_id, worst),
            run_id=work.run.id,
            attempt=attempt,
            for_batch=True,
        )
        if paid:
            cut = prompt_cut(model, call.messages, tokens, paid.reply.usage)
            reply, reused = await self._reuse(work, model, attempt, paid, cut)
            return Settled(reused, reply)
        batched = BatchedCall(
            run_id=work.run.id,
            model=model,
            call=call,
            attempt=attempt,
            prompt_tokens=seen_tokens,
            refusal=lambda: batch_refusal(work, model),
            checked=lambda reply: checked_reply(reply, model, call.messages, tokens),
        )
        with self._ledger.kept(call.hash), work.job.waits.one():
            end = await self._batches.answer(
                batched,
                detached=work.run.detached,
                rescue_at=self._rescue_time(work, model),
            )
        if isinstance(end, Settled):
            self._count(work, end.attempt, worst or Decimal(0))
        return end

    def _rescue_time(self, work: Work, model: Model) -> float | None:
        """Return when a call that waits for a batch goes online: the earlier, the more wait."""
        if self._batches is None:
            return None
        return rescue_time(work, self._batches.online_seconds(work.run.id, model))

    def _end_in_batch(self, work: Work, end: BatchEnd) -> tuple[Reply, Attempt] | None:
        """Return the reply of a call in a batch; None where the caller goes on by itself.

        Raises FailedCall, and what else ended it.
        """
        self._refuse_stopped(work)
        if isinstance(end, Broken):
            if isinstance(end.error, CallError | ModelUnavailable):
                raise FailedCall(end.error)
            raise end.error
        if not isinstance(end, Settled):
            return None
        if isinstance(end.result, Reply):
            return end.result, end.attempt
        if goes_online_after(end.result):
            return None
        raise FailedCall(end.result)

    async def _until_answered(
        self, work: Work, model: Model, call: Call, batch_id: str
    ) -> None:
        """Wait for a batch that has a call already: of an earlier start, or of another run."""
        self._refuse_stopped(work)
        if self._batches is None:
            raise CallWaiting(batch_id)
        self._say_once(work, model, batch_id)
        with work.job.waits.one():
            end = await self._batches.join(
                batch_id,
                model,
                call.hash,
                run_id=work.run.id,
                detached=work.run.detached,
                rescue_at=self._rescue_time(work, model),
            )
        if isinstance(end, Broken):
            self._end_in_batch(work, end)

    def _say_once(self, work: Work, model: Model, batch_id: str) -> None:
        """Log that calls of a run wait for a batch which has them already."""
        place = (work.run.id, batch_id)
        # A run that goes on by itself waits for what it has sent, as it did before.
        is_own = work.run.detached or work.run.is_continued
        if is_own or place in self._said:
            return
        self._said.add(place)
        log.warning(
            "calls of run %s to %s are in batch %s already: they wait for its answers",
            work.run.id,
            model.name,
            batch_id,
        )

    def _is_first(self, model: Model) -> bool:
        """Return True while no call has ended, of a model that costs money."""
        is_free = model.cost(Usage(1, 1)) == 0
        return not is_free and model.name not in self._longest

    async def _make(
        self,
        work: Work,
        model: Model,
        call: Call,
        kind: AttemptKind,
        beginning: Beginning | None,
    ) -> tuple[Reply, Attempt]:
        tokens = prompt_tokens(work, call.messages)
        seen_tokens = tokens + image_tokens(model, call.messages)
        worst = self._worst_cost(work, model, seen_tokens, call)
        attempt_id = uuid.uuid4().hex
        reservation = self._reservation(work, model, attempt_id, worst)
        group = order_group(beginning)
        async with self.limits(model).claim_permit(work.job.rank, group):
            attempt = unanswered_attempt(work, model, call, kind, attempt_id)
            paid = await self._ledger.claim(
                call.hash,
                fresh_since=work.fresh_since,
                reservation=reservation,
                run_id=work.run.id,
                attempt=attempt,
            )
            if paid:
                cut = prompt_cut(model, call.messages, tokens, paid.reply.usage)
                return await self._reuse(work, model, attempt, paid, cut)
            claimed = _Claimed(
                call=call,
                attempt=attempt,
                prompt_tokens=tokens,
                tokens=math.ceil(seen_tokens * model.token_margin) + call.max_tokens,
                worst_cost=worst or Decimal(0),
                beginning=beginning,
            )
            with self._ledger.kept(call.hash):
                return await self._pay(work, model, claimed)

    def _reservation(
        self, work: Work, model: Model, attempt_id: str, worst: Decimal | None
    ) -> ReservationRequest | None:
        rules = work.run.policy.rules
        is_unpriced_allowed = model.name in rules.budget.allow_unpriced
        return work.run.budget.reservation(
            attempt_id, worst, unpriced_allowed=is_unpriced_allowed
        )

    def _worst_cost(
        self,
        work: Work,
        model: Model,
        tokens: int,
        call: Call,
        band: Band = "online",
    ) -> Decimal | None:
        """Return the most that a call may cost in USD; None when the price is unknown.

        A model whose answers were longer than they may be, such as one that thinks, is expected to
        give as long ones again.
        """
        longest = self._longest.get(model.name, 0)
        if longest > call.max_tokens:
            most_prompt_tokens = math.ceil(tokens * model.token_margin)
            return model.most_cost(most_prompt_tokens, longest, band)
        return worst_case(model, tokens, work.prompt.head.max_output_tokens, band)

    async def _reuse(
        self,
        work: Work,
        model: Model,
        attempt: Attempt,
        paid: Paid,
        cut: PromptCut | None,
    ) -> tuple[Reply, Attempt]:
        """Record a paid reply as this document's. Raises FailedCall for one to a cut prompt.

        An attempt that is on record for this very document, in this run, is taken as it is: the
        process that made it ended before it was used.
        """
        reply = paid.reply
        own = None if cut else await self._own_attempt(work, paid)
        if own is not None:
            self._note_length(own)
            self._count(work, own, Decimal(0))
            return reply, own
        if cut is None:
            answered = answered_attempt(attempt, model, reply, attempt.started_at)
        else:
            answered = failed_attempt(attempt, model, cut, 0.0)
        reused = replace(answered, reused=True, cost=Decimal(0))
        self._note_length(reused)
        await self._ledger.settle(work.run.id, reused, None)
        work.run.used_attempts.add(reused.id)
        work.attempts.append(reused)
        if cut is not None:
            raise FailedCall(cut)
        return reply, reused

    async def _pay(
        self, work: Work, model: Model, claimed: _Claimed
    ) -> tuple[Reply, Attempt]:
        """Send a claimed call and commit its attempt."""
        permit: RatePermit | None = None
        with ExitStack() as until_committed:
            try:
                rank = work.job.rank
                beginning = claimed.beginning
                group = order_group(beginning)
                async with (
                    self._prefixes.turn(beginning),
                    self.limits(model).in_flight_permit(rank, group),
                ):
                    # Claimed before the ledger went away: a paid call waits until it is back.
                    await self._ledger.available()
                    permit = await self.limits(model).rate_permit(claimed.tokens, rank)
                    self._refuse_stopped(work)
                    until_committed.enter_context(self._counted(work.run.id))
                    started_at = time.time()
                    begun = time.monotonic()
                    call = self._prefixes.marked(claimed.call, beginning)
                    sent = await self._send(call)
                    if isinstance(sent, Reply):
                        self._prefixes.answered(beginning)
            except _NOT_SENT as error:
                if permit is not None:
                    permit.given_up()
                # The claim goes back. The shield lets that finish on cancellation.
                await asyncio.shield(self._ledger.release(claimed.call.hash))
                if isinstance(error, RunStopped | asyncio.CancelledError):
                    raise
                raise FailedCall(error) from error
            if isinstance(sent, Reply):
                messages = claimed.call.messages
                sent = checked_reply(sent, model, messages, claimed.prompt_tokens)
            if isinstance(sent, Reply):
                attempt = answered_attempt(claimed.attempt, model, sent, started_at)
                permit.succeeded(attempt.usage)
                self._note_length(attempt)
                await self._commit(work, attempt, sent, claimed.worst_cost)
                return sent, attempt
            attempt = replace(claimed.attempt, started_at=started_at)
            failed = failed_attempt(attempt, model, sent, time.monotonic() - begun)
            return await self._fail(work, failed, sent, permit, claimed.worst_cost)

    async def _fail(
        self,
        work: Work,
        attempt: Attempt,
        error: CallError | asyncio.CancelledError,
        permit: RatePermit,
        worst_cost: Decimal,
    ) -> tuple[Reply, Attempt]:
        """Commit a failed attempt, then raise: FailedCall, or the cancellation."""
        if isinstance(error, CallError):
            # Reported before anything is awaited, so that the next call sees it.
            permit.failed(error, attempt.usage)
            self._note_length(attempt)
        else:
            permit.given_up()
        note = note_of(error, attempt) if isinstance(error, CallError) else ""
        await asyncio.shield(self._commit(work, attempt, None, worst_cost, note))
        if isinstance(error, CallError):
            raise FailedCall(error)
        raise error

    async def _send(self, call: Call) -> Reply | CallError | asyncio.CancelledError:
        """Return the reply or the error. Raises ModelUnavailable when nothing was sent."""
        try:
            return await self._provider.complete(call)
        except (CallError, asyncio.CancelledError) as error:
            return error
        except TierwiseError:
            raise
        except Exception as error:  # noqa: BLE001 - a paid call must come on record
            return unreadable(error, call.model)

    def _note_length(self, attempt: Attempt) -> None:
        """Remember the longest answer of a model."""
        tokens = attempt.usage.completion_tokens if attempt.usage else 0
        longest = self._longest.get(attempt.model, 0)
        self._longest[attempt.model] = max(longest, tokens)

    async def _commit(
        self,
        work: Work,
        attempt: Attempt,
        reply: Reply | None,
        worst_cost: Decimal,
        note: str = "",
    ) -> None:
        """Commit an attempt with its cost. Only then does anyone act on it."""
        await self._ledger.settle(work.run.id, attempt, reply, note=note)
        self._count(work, attempt, worst_cost)

    def _count(self, work: Work, attempt: Attempt, worst_cost: Decimal) -> None:
        """Count a committed attempt as the document's."""
        cost = worst_cost if attempt.cost is None else attempt.cost
        if attempt.id not in {each.id for each in work.attempts}:
            work.run.budget.spent += cost
            work.run.costs.spend(work.step.name, cost)
            work.attempts.append(attempt)
        work.run.used_attempts.add(attempt.id)

    async def _refuse_failed_before(
        self, work: Work, model: Model, call: Call, kind: AttemptKind
    ) -> None:
        """Raise FailedCall for a failure that is on record for this document in this run.

        An earlier start made the call, or another process collected it. Each is raised once, in
        the order of recording, so that the document goes on as it did then.
        """
        if not work.run.is_continued:
            return
        like = unanswered_attempt(work, model, call, kind, attempt_id="")
        for failed in await self._ledger.failed_attempts(work.run.id, like):
            if failed.id in work.run.used_attempts:
                continue
            message = (failed.error_text or "").removeprefix(f"{model.name}: ")
            fault = fault_on_record(failed.error or "", message, model.name)
            if fault is not None:
                self._count(work, failed, Decimal(0))
                raise FailedCall(fault)

    async def _own_attempt(self, work: Work, paid: Paid) -> Attempt | None:
        """Return the attempt of a paid call that this document made in this run, and never used."""
        this = (work.run.id, work.document.id, work.step.name)
        if paid.paid_for != this or paid.attempt_id in work.run.used_attempts:
            return None
        attempt = await self._ledger.recorded_attempt(paid.attempt_id)
        # A reuse by another part of the document comes later, and is recorded as one.
        work.run.used_attempts.add(paid.attempt_id)
        if attempt is None:
            return None
        return replace(attempt, text=paid.reply.text)
