"""One attempt: a call to one model, claimed before it is sent and committed before anyone uses it.

The order is: check the guards, wait for a permit, claim the call in the ledger (which reserves its
worst case), send it, settle its cost. A call that was paid once, in this run or in one that
crashed, is answered from the ledger: that is how a run resumes.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Protocol

from tierwise.cascade.circuit import LastSign
from tierwise.cascade.clock import Clock
from tierwise.cascade.faults import is_free
from tierwise.cascade.job import Work
from tierwise.cascade.prompt_cut import prompt_cut
from tierwise.cascade.rate_limits import ModelLimits, RatePermit, ServerPermits
from tierwise.errors import (
    CallError,
    CoolingDown,
    GuardViolation,
    ModelUnavailable,
    PromptCut,
    RunStopped,
    TierwiseError,
    UnreadableReply,
    describe_exception,
)
from tierwise.ledger import CallLedger, Paid
from tierwise.policy.catalog import Model
from tierwise.policy.router import worst_case
from tierwise.policy.weights import Weights
from tierwise.records import (
    Attempt,
    AttemptKind,
    Call,
    Message,
    Reply,
    Usage,
    canonical_hash,
)
from tierwise.steps.step import schema_instruction
from tierwise.text.tokens import estimate_prompt_tokens

# A usage above this multiple of the context window is not believed. The gateway drops single
# counts that are far above the window; this is for all other providers of replies.
_IMPLAUSIBLE_WINDOWS = 100
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


class Attempts:
    """Makes calls within the limits of each model and of the run's budgets."""

    def __init__(
        self,
        provider: Provider,
        ledger: CallLedger,
        workers: int = 1,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or Clock()
        self.closing = asyncio.Event()  # no document waits any longer
        self._provider = provider
        self._ledger = ledger
        self._workers = workers
        self._limits: dict[str, ModelLimits] = {}
        self._servers: dict[Weights, ServerPermits] = {}  # of embedded models
        # By model: the most tokens of an answer so far, once a call has ended.
        self._longest: dict[str, int] = {}
        self._first_call: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._stopped_runs: set[str] = set()
        self._under_way: Counter[str] = Counter()  # calls by run

    async def stop(self, run_id: str, seconds: float) -> None:
        """Begin no call of a run any more; wait until those under way are on record.

        Wait for at most `seconds`.
        """
        self._stopped_runs.add(run_id)
        deadline = time.monotonic() + seconds
        while self._under_way[run_id] and time.monotonic() < deadline:
            await asyncio.sleep(_LOOKS_EVERY_S)

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
        rules = work.run.policy.rules
        forbidden = rules.forbidden(model.tier, work.features)
        if forbidden:
            raise GuardViolation(f"{model.name}: {forbidden}")
        if work.run.budget.limits and self._is_first(model):
            # Alone under a budget: how long the model's answers are is not known yet.
            async with self._first_call[model.name]:
                if self._is_first(model):
                    return await self._make(work, model, messages, kind)
        return await self._make(work, model, messages, kind)

    def _is_first(self, model: Model) -> bool:
        """Return True while no call has ended, of a model that costs money."""
        is_free = model.cost(Usage(1, 1)) == 0
        return not is_free and model.name not in self._longest

    async def _make(
        self, work: Work, model: Model, messages: tuple[Message, ...], kind: AttemptKind
    ) -> tuple[Reply, Attempt]:
        call = build_call(work, model, messages)
        tokens = prompt_tokens(work, call.messages)
        worst = self._worst_cost(work, model, tokens, call)
        attempt_id = uuid.uuid4().hex
        reservation = work.run.budget.reservation(
            attempt_id,
            worst,
            unpriced_allowed=model.name in work.run.policy.rules.budget.allow_unpriced,
        )
        async with self.limits(model).claim_permit(work.job.rank):
            attempt = _unanswered(work, model, call, kind, attempt_id)
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
                tokens=math.ceil(tokens * model.token_margin) + call.max_tokens,
                worst_cost=worst or Decimal(0),
            )
            with self._ledger.kept(call.hash):
                return await self._pay(work, model, claimed)

    def _worst_cost(
        self, work: Work, model: Model, tokens: int, call: Call
    ) -> Decimal | None:
        """Return the most that a call may cost in USD; None when the price is unknown.

        A model whose answers were longer than they may be, such as one that thinks, is expected to
        give as long ones again.
        """
        longest = self._longest.get(model.name, 0)
        if longest > call.max_tokens:
            most_prompt_tokens = math.ceil(tokens * model.token_margin)
            return model.most_cost(most_prompt_tokens, longest)
        return worst_case(model, tokens, work.prompt.head.max_output_tokens)

    async def _reuse(
        self,
        work: Work,
        model: Model,
        attempt: Attempt,
        paid: Paid,
        cut: PromptCut | None,
    ) -> tuple[Reply, Attempt]:
        """Record a paid reply as this document's. Raises FailedCall for one to a cut prompt."""
        reply = paid.reply
        if cut is None:
            answered = _answered(attempt, model, reply, attempt.started_at)
        else:
            answered = _failed(attempt, model, cut, 0.0)
        reused = replace(answered, reused=True, cost=Decimal(0))
        self._note_length(reused)
        await self._ledger.settle(work.run.id, reused, None)
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
                async with self.limits(model).in_flight_permit(rank):
                    # Claimed before the ledger went away: a paid call waits until it is back.
                    await self._ledger.available()
                    permit = await self.limits(model).rate_permit(claimed.tokens, rank)
                    self._refuse_stopped(work)
                    until_committed.enter_context(self._counted(work.run.id))
                    started_at = time.time()
                    begun = time.monotonic()
                    sent = await self._send(claimed.call)
            except _NOT_SENT as error:
                if permit is not None:
                    permit.given_up()
                # The claim goes back. The shield lets that finish on cancellation.
                await asyncio.shield(self._ledger.release(claimed.call.hash))
                if isinstance(error, RunStopped | asyncio.CancelledError):
                    raise
                raise FailedCall(error) from error
            if isinstance(sent, Reply):
                sent = _checked(sent, claimed, model)
            if isinstance(sent, Reply):
                attempt = _answered(claimed.attempt, model, sent, started_at)
                permit.succeeded(attempt.usage)
                self._note_length(attempt)
                await self._commit(work, attempt, sent, claimed.worst_cost)
                return sent, attempt
            attempt = replace(claimed.attempt, started_at=started_at)
            failed = _failed(attempt, model, sent, time.monotonic() - begun)
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
        note = ""
        if isinstance(error, CallError):
            if not error.sent:
                note = f"not sent: {error.message}"
            elif attempt.cost == 0 and is_free(error):
                # Its message may quote the server, and notes are kept for good.
                note = f"not billed: {type(error).__name__}"
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
            return _unreadable(error, call.model)

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
        cost = worst_cost if attempt.cost is None else attempt.cost
        work.run.budget.spent += cost
        work.run.costs.spend(work.step.name, cost)
        work.attempts.append(attempt)


def prompt_tokens(work: Work, messages: tuple[Message, ...]) -> int:
    """Estimate a prompt's tokens; the plain question was counted with the features."""
    if messages == work.question:
        return work.features.prompt_tokens
    return estimate_prompt_tokens(messages)


def build_call(work: Work, model: Model, messages: tuple[Message, ...]) -> Call:
    """Return the call that asks a model for a step's output."""
    schema = work.job.schema
    if model.structured_output == "instruct":
        first, *rest = messages
        instruction = schema_instruction(schema)
        messages = (replace(first, content=f"{first.content}\n\n{instruction}"), *rest)
    if model.structured_output == "schema":
        schema = work.job.schema_without_limits
    return Call(
        model=model.name,
        identity=work.job.current.calls[model.name],
        messages=messages,
        max_tokens=model.longest_output(work.prompt.head.max_output_tokens),
        response_schema=schema,
        schema_name=work.step.name,
        confidence=model.confidence,
        sensitivity=work.features.sensitivity,
    )


def _unanswered(
    work: Work, model: Model, call: Call, kind: AttemptKind, attempt_id: str
) -> Attempt:
    """Return the attempt before there is an answer: everything unknown, nothing zero."""
    messages = [[message.role, message.content] for message in call.messages]
    return Attempt(
        id=attempt_id,
        step=work.step.name,
        document_id=work.document.id,
        document_hash=work.document.hash,
        model=model.name,
        tier=model.tier,
        kind=kind,
        call_hash=call.hash,
        prompt=work.prompt.label,
        prompt_hash=canonical_hash(messages),
        policy_hash=work.run.policy.hash,
        usage=None,
        cost=None,
        price_date=model.price_date,
        latency_s=0.0,
        started_at=time.time(),
    )


def _checked(reply: Reply, claimed: _Claimed, model: Model) -> Reply | CallError:
    """Return the reply, or the fault that makes it no answer to the call."""
    try:
        model.cost(_usage_if_plausible(reply.usage, model))
    except Exception as error:  # noqa: BLE001 - a paid call must come on record
        return _unreadable(error, model.name)
    messages = claimed.call.messages
    cut = prompt_cut(model, messages, claimed.prompt_tokens, reply.usage)
    if cut is None:
        return reply
    cut.service_tier = reply.service_tier
    return cut


def _unreadable(error: Exception, model: str) -> UnreadableReply:
    """Return the fault of a reply that we fail to read. Its text may quote a document."""
    reason = f"reading the reply failed: {describe_exception(error)}"
    return UnreadableReply(reason, model=model)


def _answered(
    attempt: Attempt, model: Model, reply: Reply, started_at: float
) -> Attempt:
    usage = _usage_if_plausible(reply.usage, model)
    return replace(
        attempt,
        started_at=started_at,
        usage=usage,
        cost=model.billed(usage, attempt.transport, reply.service_tier),
        service_tier=reply.service_tier,
        latency_s=reply.latency_s,
        finish_reason=reply.finish_reason,
        confidence=reply.confidence,
        served_model=reply.served_model,
        text=reply.text,
    )


def _failed(
    attempt: Attempt, model: Model, error: BaseException, seconds: float
) -> Attempt:
    reported = None
    service_tier = None
    if isinstance(error, CallError):
        reported = error.usage
        service_tier = error.service_tier
    usage = _usage_if_plausible(reported, model)
    cost = model.billed(usage, attempt.transport, service_tier)
    # A usage that is not believed shows all the same that tokens were counted.
    if reported is None and is_free(error):
        cost = Decimal(0)
    return replace(
        attempt,
        error=type(error).__name__,
        error_text=str(error) or "stopped while the call was under way",
        usage=usage,
        cost=cost,
        service_tier=service_tier,
        latency_s=seconds,
    )


def _usage_if_plausible(usage: Usage | None, model: Model) -> Usage | None:
    """Return a reported usage; None (unknown) when it is far above the model's window."""
    if usage is None:
        return None
    reported = usage.prompt_tokens + usage.completion_tokens
    if reported > _IMPLAUSIBLE_WINDOWS * model.context_tokens:
        return None
    return usage
