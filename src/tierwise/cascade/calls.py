"""One call to one model: guard, limit, claim, reserve, call, settle. Paid once, and on record before it is used."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Protocol

from tierwise.budget import Budget
from tierwise.cascade.faults import NEVER_BILLED
from tierwise.catalog import Model
from tierwise.certificates import Current
from tierwise.errors import BudgetExceeded, CallError, GuardViolation, ModelUnavailable, TierwiseError
from tierwise.golden import Teacher
from tierwise.ledger import Ledger, Paid
from tierwise.prompts import Prompt
from tierwise.records import Attempt, AttemptKind, Call, Document, Message, Reply, canonical_hash
from tierwise.router import Policy, worst_case
from tierwise.rules import Features
from tierwise.steps import Step, schema_instruction, without_limits
from tierwise.tokens import estimate_prompt_tokens


class Provider(Protocol):
    """What the cascade needs of the gateway."""

    async def complete(self, call: Call) -> Reply:
        """The model's reply. Raises CallError or ModelUnavailable."""
        ...


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """One run as its calls see it. Answers paid before `fresh_since` (epoch seconds) are not reused."""

    id: str
    policy: Policy
    budget: Budget
    fresh_since: float | None = None
    deadline: float | None = None  # epoch seconds; rules may look at the minutes that are left


@dataclass(frozen=True, kw_only=True)
class Job:
    """One step over some documents. `models` takes the place of the router's choice where something is measured."""

    run: RunContext
    step: Step
    prompt: Prompt
    parameters: Mapping[str, Any]
    current: Current  # what certificates must agree with
    teacher: Teacher | None = None  # the examples that a model may be shown
    models: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)  # with `models`
    kind: AttemptKind = "first"  # of a document's first call
    only: Callable[[Document], bool] | None = None


@dataclass(kw_only=True)
class Work:
    """One document on its way through a job, with the trail of its attempts."""

    job: Job
    document: Document
    parameters: Mapping[str, Any]
    features: Features
    sure_from: float | None = None  # the confidence that an answer needs
    trail: list[Attempt] = field(default_factory=list)

    @property
    def run(self) -> RunContext:
        """The run that this is part of."""
        return self.job.run

    @property
    def step(self) -> Step:
        """The step that is done."""
        return self.job.step

    @property
    def prompt(self) -> Prompt:
        """The step's prompt."""
        return self.job.prompt


class FailedCall(Exception):
    """A call that failed, after its attempt was recorded. Never leaves the cascade."""

    def __init__(self, cause: TierwiseError) -> None:
        self.cause = cause
        super().__init__(str(cause))


class Calls:
    """Makes calls: at most `model.concurrency` at a time for each model."""

    def __init__(self, provider: Provider, ledger: Ledger) -> None:
        self._provider, self._ledger = provider, ledger
        self._limits: dict[str, asyncio.Semaphore] = {}

    async def make(
        self, work: Work, model: Model, messages: tuple[Message, ...], kind: AttemptKind
    ) -> tuple[Reply, Attempt]:
        """One reply, paid or reused, and its attempt, which is on record and on the trail.

        Raises FailedCall after a recorded failure, BudgetExceeded before any call is made.
        """
        if reason := work.run.policy.rules.forbidden(model.tier, work.features):
            raise GuardViolation(f"{model.name}: {reason}")
        call = build_call(work, model, messages)
        async with self._limit(model):
            paid = await self._ledger.claim(call.hash, fresh_since=work.run.fresh_since)
            if paid:
                return await self._reuse(work, model, call, kind, paid)
            return await self._pay(work, model, call, kind)

    def _limit(self, model: Model) -> asyncio.Semaphore:
        return self._limits.setdefault(model.name, asyncio.Semaphore(model.concurrency))

    async def _reuse(
        self, work: Work, model: Model, call: Call, kind: AttemptKind, paid: Paid
    ) -> tuple[Reply, Attempt]:
        answered = _answered(_attempt(work, model, call, kind), model, paid.reply)
        attempt = replace(answered, reused=True, cost=Decimal(0))
        await self._ledger.settle(work.run.id, attempt, None)
        work.trail.append(attempt)
        return paid.reply, attempt

    async def _pay(self, work: Work, model: Model, call: Call, kind: AttemptKind) -> tuple[Reply, Attempt]:
        reserved = await self._reserve(work, model, call)
        attempt, begun = _attempt(work, model, call, kind), time.monotonic()
        try:
            reply = await self._provider.complete(call)
        except ModelUnavailable as error:  # nothing was sent
            await self._ledger.release(call.hash)
            work.run.budget.settle(reserved, Decimal(0))
            raise FailedCall(error) from error
        except (CallError, asyncio.CancelledError) as error:
            seconds = time.monotonic() - begun
            await asyncio.shield(self._record(work, _failed(attempt, model, error, seconds), None, reserved))
            if isinstance(error, CallError):
                raise FailedCall(error) from error
            raise
        attempt = _answered(attempt, model, reply)
        await self._record(work, attempt, reply, reserved)
        return reply, attempt

    async def _reserve(self, work: Work, model: Model, call: Call) -> Decimal:
        worst = worst_case(model, estimate_prompt_tokens(call.messages), call.max_tokens)
        allowed = model.name in work.run.policy.rules.budget.allow_unpriced
        try:
            return work.run.budget.reserve(worst, unpriced_allowed=allowed)
        except BudgetExceeded:
            await self._ledger.release(call.hash)
            raise

    async def _record(self, work: Work, attempt: Attempt, reply: Reply | None, reserved: Decimal) -> None:
        """Commit an attempt; only then does anyone act on it."""
        await self._ledger.settle(work.run.id, attempt, reply)
        work.run.budget.settle(reserved, attempt.cost)
        work.trail.append(attempt)


def build_call(work: Work, model: Model, messages: tuple[Message, ...]) -> Call:
    """The call that asks a model for a step's output."""
    schema = work.step.schema(work.parameters)
    if model.structured_output == "instruct":
        first, *rest = messages
        messages = (replace(first, content=f"{first.content}\n\n{schema_instruction(schema)}"), *rest)
    if model.structured_output == "schema":
        schema = without_limits(schema)
    return Call(
        model=model.name,
        identity=work.job.current.identities[model.name] if model.learned else model.identity,
        messages=messages,
        max_tokens=min(work.prompt.head.max_output_tokens, model.max_output_tokens),
        response_schema=schema,
        schema_name=work.step.name,
        confidence=model.confidence,
    )


def _attempt(work: Work, model: Model, call: Call, kind: AttemptKind) -> Attempt:
    """The attempt as it stands before there is an answer: all unknown, nothing zero."""
    return Attempt(
        id=uuid.uuid4().hex,
        step=work.step.name,
        document_id=work.document.id,
        document_hash=work.document.hash,
        model=model.name,
        tier=model.tier,
        kind=kind,
        call_hash=call.hash,
        prompt=work.prompt.label,
        prompt_hash=canonical_hash([[m.role, m.content] for m in call.messages]),
        policy_hash=work.run.policy.hash,
        usage=None,
        cost=None,
        price_date=model.price_date,
        latency_s=0.0,
        started_at=time.time(),
    )


def _answered(attempt: Attempt, model: Model, reply: Reply) -> Attempt:
    return replace(
        attempt,
        usage=reply.usage,
        cost=model.cost(reply.usage),
        latency_s=reply.latency_s,
        finish_reason=reply.finish_reason,
        confidence=reply.confidence,
        text=reply.text,
    )


def _failed(attempt: Attempt, model: Model, error: BaseException, seconds: float) -> Attempt:
    usage = error.usage if isinstance(error, CallError) else None
    cost = Decimal(0) if isinstance(error, NEVER_BILLED) else model.cost(usage)
    text = str(error) or "stopped while the call was under way"
    return replace(attempt, error=type(error).__name__, error_text=text, usage=usage, cost=cost, latency_s=seconds)
