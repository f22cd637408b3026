"""One call to one model: guard, limit, claim, reserve, call, settle. Paid once, and on record before it is used."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from tierwise.cascade.faults import NEVER_BILLED
from tierwise.cascade.rate_limits import ModelLimits
from tierwise.cascade.top_up import TopUp
from tierwise.errors import (
    BudgetExceeded,
    CallError,
    CoolingDown,
    GuardViolation,
    ModelUnavailable,
    TierwiseError,
)
from tierwise.ledger import Ledger, Paid
from tierwise.policy.budget import RunBudget
from tierwise.policy.catalog import Model
from tierwise.policy.certificates import Current
from tierwise.policy.router import Policy, worst_case
from tierwise.policy.rules import Features
from tierwise.records import (
    Attempt,
    AttemptKind,
    Call,
    Document,
    Message,
    Outcome,
    Reply,
    Usage,
    canonical_hash,
)
from tierwise.steps.examples import ExampleSelector
from tierwise.steps.prompts import Prompt
from tierwise.steps.step import Step, schema_instruction, without_limits
from tierwise.text.tokens import estimate_prompt_tokens

if TYPE_CHECKING:
    from tierwise.cascade.known_outcomes import Retry

_NONSENSE = 10  # times a model's window, which the catalog may state too small


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
    budget: RunBudget
    fresh_since: float | None = None
    deadline: float | None = None  # epoch seconds; rules may look at the minutes that are left
    top_up: TopUp | None = None  # whom to ask for more money
    retry: Retry | None = None  # an earlier run that is gone through once more


@dataclass(frozen=True, kw_only=True)
class Job:
    """One step over some documents. `models` takes the place of the router's choice where something is measured."""

    run: RunContext
    step: Step
    prompt: Prompt
    parameters: Mapping[str, Any]
    current: Current  # what certificates must agree with
    selector: ExampleSelector | None = None  # the examples that a model may be shown
    models: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)  # with `models`
    kind: AttemptKind = "first"  # of a document's first call
    only: Callable[[Document], bool] | None = None
    known: Mapping[str, Outcome] = field(
        default_factory=dict
    )  # by document id: what need not be asked any more
    tokens: Mapping[str, int] = field(
        default_factory=dict
    )  # by document id, of the texts that were counted already

    @cached_property
    def question(self) -> str:
        """What the documents are asked, whoever answers; see `Step.question`."""
        return self.step.question(self.parameters)

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """What answers must look like, worked out once for all documents."""
        return self.step.schema(self.parameters)

    @cached_property
    def schema_without_limits(self) -> Mapping[str, Any]:
        """The same for servers that refuse lengths and ranges."""
        found: Mapping[str, Any] = without_limits(dict(self.schema))
        return found


@dataclass(kw_only=True)
class Work:
    """One document on its way through a job, with the trail of its attempts."""

    job: Job
    document: Document
    parameters: Mapping[str, Any]
    features: Features
    question: tuple[Message, ...] = ()  # the prompt filled in, whose tokens `features` has
    min_confidence: float | None = None  # the confidence that an answer needs
    trail: list[Attempt] = field(default_factory=list)
    short: BudgetExceeded | None = None  # what the purse last refused

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
    """Makes calls within the limits of each model and of the run's budgets."""

    def __init__(self, provider: Provider, ledger: Ledger, workers: int = 1) -> None:
        self._provider = provider
        self._ledger = ledger
        self._workers = workers
        self._limits: dict[str, ModelLimits] = {}

    def limits(self, model: Model) -> ModelLimits:
        """What the model can take now, as far as this process may use it."""
        if model.name not in self._limits:
            self._limits[model.name] = ModelLimits(model.shared_by(self._workers))
        return self._limits[model.name]

    async def make(
        self, work: Work, model: Model, messages: tuple[Message, ...], kind: AttemptKind
    ) -> tuple[Reply, Attempt]:
        """One reply, paid or reused, and its attempt, which is on record and on the trail.

        Raises FailedCall after a recorded failure or when nothing was sent, BudgetExceeded before any call is made.
        """
        if reason := work.run.policy.rules.forbidden(model.tier, work.features):
            raise GuardViolation(f"{model.name}: {reason}")
        call = build_call(work, model, messages)
        tokens = prompt_tokens(work, call.messages)
        worst = worst_case(model, tokens, call.max_tokens)
        attempt_id = uuid.uuid4().hex
        allowed = model.name in work.run.policy.rules.budget.allow_unpriced
        reservation = work.run.budget.reservation(attempt_id, worst, unpriced_allowed=allowed)
        tokens = math.ceil(tokens * model.token_margin) + call.max_tokens
        async with self.limits(model).place():
            paid = await self._ledger.claim(
                call.hash, fresh_since=work.run.fresh_since, reservation=reservation
            )
            attempt = _attempt(work, model, call, kind, attempt_id)
            if paid:
                return await self._reuse(work, model, attempt, paid)
            with self._ledger.kept(call.hash):
                return await self._pay(work, model, call, attempt, tokens, worst or Decimal(0))

    async def _reuse(
        self, work: Work, model: Model, attempt: Attempt, paid: Paid
    ) -> tuple[Reply, Attempt]:
        attempt = replace(_answered(attempt, model, paid.reply), reused=True, cost=Decimal(0))
        await self._ledger.settle(work.run.id, attempt, None)
        work.trail.append(attempt)
        return paid.reply, attempt

    async def _pay(
        self, work: Work, model: Model, call: Call, attempt: Attempt, tokens: int, worst: Decimal
    ) -> tuple[Reply, Attempt]:
        try:
            async with self.limits(model).slot():
                turn = await self.limits(model).turn(tokens)
                attempt = replace(attempt, started_at=time.time())
                begun = time.monotonic()
                sent = await self._send(call)
        except (CoolingDown, ModelUnavailable, asyncio.CancelledError) as error:  # nothing was sent
            await asyncio.shield(self._ledger.release(call.hash))
            if isinstance(error, asyncio.CancelledError):
                raise
            raise FailedCall(error) from error
        if isinstance(sent, Reply):
            attempt = _answered(attempt, model, sent)
            turn.succeeded(attempt.usage)
            await self._record(work, attempt, sent, worst)
            return sent, attempt
        attempt = _failed(attempt, model, sent, time.monotonic() - begun)
        if isinstance(
            sent, CallError
        ):  # told before anything is waited for, so that the next call knows
            turn.failed(sent, attempt.usage)
        await asyncio.shield(self._record(work, attempt, None, worst))
        raise FailedCall(sent) if isinstance(sent, CallError) else sent

    async def _send(self, call: Call) -> Reply | CallError | asyncio.CancelledError:
        """What came of it. Raises ModelUnavailable when nothing was sent."""
        try:
            return await self._provider.complete(call)
        except (CallError, asyncio.CancelledError) as error:
            return error

    async def _record(
        self, work: Work, attempt: Attempt, reply: Reply | None, worst: Decimal
    ) -> None:
        """Commit an attempt with what it cost; only then does anyone act on it."""
        await self._ledger.settle(work.run.id, attempt, reply)
        work.run.budget.spent += worst if attempt.cost is None else attempt.cost
        work.trail.append(attempt)


def prompt_tokens(work: Work, messages: tuple[Message, ...]) -> int:
    """An estimate of a prompt's tokens, counted once a document where it is the question alone."""
    return (
        work.features.prompt_tokens
        if messages == work.question
        else estimate_prompt_tokens(messages)
    )


def build_call(work: Work, model: Model, messages: tuple[Message, ...]) -> Call:
    """The call that asks a model for a step's output."""
    schema = work.job.schema
    if model.structured_output == "instruct":
        first, *rest = messages
        messages = (
            replace(first, content=f"{first.content}\n\n{schema_instruction(schema)}"),
            *rest,
        )
    if model.structured_output == "schema":
        schema = work.job.schema_without_limits
    return Call(
        model=model.name,
        identity=work.job.current.identities[model.name] if model.learned else model.identity,
        messages=messages,
        max_tokens=min(work.prompt.head.max_output_tokens, model.max_output_tokens),
        response_schema=schema,
        schema_name=work.step.name,
        confidence=model.confidence,
    )


def _attempt(work: Work, model: Model, call: Call, kind: AttemptKind, attempt_id: str) -> Attempt:
    """The attempt as it stands before there is an answer: all unknown, nothing zero."""
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
        prompt_hash=canonical_hash([[m.role, m.content] for m in call.messages]),
        policy_hash=work.run.policy.hash,
        usage=None,
        cost=None,
        price_date=model.price_date,
        latency_s=0.0,
        started_at=time.time(),
    )


def _answered(attempt: Attempt, model: Model, reply: Reply) -> Attempt:
    usage = _believable(reply.usage, model)
    return replace(
        attempt,
        usage=usage,
        cost=model.cost(usage),
        latency_s=reply.latency_s,
        finish_reason=reply.finish_reason,
        confidence=reply.confidence,
        text=reply.text,
    )


def _failed(attempt: Attempt, model: Model, error: BaseException, seconds: float) -> Attempt:
    usage = _believable(error.usage, model) if isinstance(error, CallError) else None
    cost = Decimal(0) if isinstance(error, NEVER_BILLED) else model.cost(usage)
    text = str(error) or "stopped while the call was under way"
    return replace(
        attempt,
        error=type(error).__name__,
        error_text=text,
        usage=usage,
        cost=cost,
        latency_s=seconds,
    )


def _believable(usage: Usage | None, model: Model) -> Usage | None:
    """The usage that a server reported; None, so unknown, where it is far more than the model's window holds."""
    if (
        usage is None
        or usage.prompt_tokens + usage.completion_tokens > _NONSENSE * model.context_tokens
    ):
        return None
    return usage
