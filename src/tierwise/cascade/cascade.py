"""The cascade: route, then one model after the other until an answer holds (FrugalGPT's word)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any

from tierwise.cascade.answers import Answer, Answers
from tierwise.cascade.attempts import Calls, FailedCall, Job, Provider, RunContext, Work
from tierwise.cascade.faults import decision
from tierwise.cascade.parts import gathered, parts_of
from tierwise.cascade.shadow import Shadows
from tierwise.errors import BudgetExceeded, CallError, CoolingDown, ModelUnavailable, TierwiseError
from tierwise.ledger import Ledger
from tierwise.policy.router import choices, route, unroutable_cause
from tierwise.policy.rules import features
from tierwise.records import AttemptKind, Cause, Document, Outcome, Route, highest
from tierwise.text.tokens import count_tokens, estimate_prompt_tokens

__all__ = ["Cascade", "Job", "Provider", "RunContext"]

_ALWAYS = ("low_confidence",)  # a route has thresholds only where the rules escalate on them

log = logging.getLogger(__name__)


@dataclass
class _Progress:
    """Where a route stands: why each model so far did not do, and how the next call comes about."""

    kind: AttemptKind = "first"
    escalations: int = 0
    answered: bool = False  # a model answered, and its answer failed a check
    quotes: bool = False  # a reason may repeat words of an answer
    reasons: list[str] = field(default_factory=list)
    resting: list[str] = field(default_factory=list)  # models that were not asked as they rest


class Cascade:
    """Runs documents through steps. Async; lives on the engine's event loop."""

    def __init__(self, provider: Provider, ledger: Ledger, workers: int = 1) -> None:
        """`workers` are the processes that share the limits of every model; this is one of them."""
        self._calls = Calls(provider, ledger, workers)
        self._answers = Answers(self._calls)
        self._shadows = Shadows(self._answers, ledger)
        self._ledger = ledger
        self._stopped: dict[
            str, str
        ] = {}  # models that are out for the rest of this process, and why

    async def run(self, job: Job, document: Document) -> Document:
        """The document with this step's outcome, which is on record. Raises nothing for what a document can cause."""
        outcome = _skipped(job, document) or _known(job, document)
        work = None
        if outcome is None:
            parts = parts_of(job, document)
            work = _work(job, document) if len(parts) == 1 else None
            outcome = await (self._funded(work) if work else self._in_parts(job, parts))
        await self._ledger.record_outcome(job.run.id, document, outcome, job.question)
        if work and not job.models:
            await self._shadows.follow(work, outcome, self._stopped)
        return document.with_outcome(outcome)

    async def _in_parts(self, job: Job, parts: Sequence[Document]) -> Outcome:
        """What the document gets, each part of it routed and answered by itself."""
        job = replace(job, tokens={})  # those of the whole documents
        asked = (self._funded(_work(job, part)) for part in parts)
        outcomes = []
        for result in await asyncio.gather(
            *asked, return_exceptions=True
        ):  # all end before an error is told
            if isinstance(result, BaseException):
                raise result
            outcomes.append(result)
        return gathered(job.step, outcomes)

    async def _funded(self, work: Work) -> Outcome:
        """What the document gets; where money is wanting, once more for as long as a person grants some."""
        while True:
            chosen = self._route(work, work.run.budget.left)
            outcome = await self._walk(work, _on_record(work, chosen))
            if not chosen.models and work.run.budget.limits:
                outcome = await self._for_free(work, outcome)
            short = work.short
            work.short = None
            if short is None:
                return outcome
            if not (work.run.top_up and await work.run.top_up.more(short)):
                work.run.budget.refused = str(short)
                return outcome

    async def _for_free(self, work: Work, deferred: Outcome) -> Outcome:
        """Where the purse holds nothing for any model, an answer that was paid before may still be had."""
        chosen = self._route(work, None)
        if not chosen.models:
            return deferred
        outcome = await self._walk(work, _on_record(work, chosen))
        return outcome if outcome.status == "accepted" else replace(outcome, route=deferred.route)

    def _route(self, work: Work, budget_left: Decimal | None) -> Route:
        job = work.job
        policy = work.run.policy
        if job.models:
            why = "the models that are measured"
            return Route(
                step=job.step.name,
                rule="none",
                models=job.models,
                reason=why,
                thresholds=job.thresholds,
            )
        if self._stopped:
            policy = replace(policy, unavailable={**policy.unavailable, **self._stopped})
        return route(
            work.features,
            policy,
            max_output_tokens=job.prompt.head.max_output_tokens,
            splits=job.step.splits is not None,
            budget_left=budget_left,
            current=job.current,
        )

    async def _walk(self, work: Work, chosen: Route) -> Outcome:
        """Try the route's models in order until one answer holds."""
        progress = _Progress(work.job.kind)
        escalate = work.run.policy.rules.escalate
        async for name in self._in_turn(work, chosen, progress):
            model = work.run.policy.catalog.model(name)
            try:
                answer = await self._answers.ask(
                    work, model, progress.kind, min_confidence=chosen.thresholds.get(name)
                )
            except FailedCall as failure:
                self._after_fault(name, failure.cause, progress)
                continue
            except BudgetExceeded as error:  # another model may cost less
                work.short = error
                progress.reasons.append(f"{name}: {error}")
                continue
            if not answer.failed:
                work.short = None
                return _accepted(work, chosen, name, answer)
            progress.answered = True
            progress.quotes = True
            progress.reasons.append(f"{name}: {answer.failed[0].check}: {answer.failed[0].reason}")
            if progress.escalations == escalate.most or not {v.check for v in answer.failed} & {
                *escalate.on,
                *_ALWAYS,
            }:
                break
            progress.kind = "escalation"
            progress.escalations = progress.escalations + 1
        reason = "; ".join(progress.reasons) or _unroutable(chosen)
        if work.short:
            reason = f"budget: {reason}"
        deferred = _outcome(work, chosen, "deferred", reason=reason)
        return replace(deferred, cause=_cause(work, chosen, progress), quotes=progress.quotes)

    async def _in_turn(self, work: Work, chosen: Route, progress: _Progress) -> AsyncIterator[str]:
        """The route's models; then, where none of them answered, those that rest, after a rest worth waiting for."""
        for name in chosen.models:
            if name not in self._stopped:
                yield name
        while progress.resting and not progress.escalations:
            name = progress.resting.pop(0)
            if await self._calls.limits(work.run.policy.catalog.model(name)).rested():
                yield name

    def _after_fault(self, name: str, cause: TierwiseError, progress: _Progress) -> None:
        progress.kind = "fallback"
        if isinstance(cause, CoolingDown):
            progress.resting.append(name)
        progress.quotes = True  # a provider's error may repeat what it was sent
        message = _message(cause)
        progress.reasons.append(f"{name}: {message}")
        if decision(cause) == "stop" and name not in self._stopped:
            self._stopped[name] = message
            log.warning("%s is out for this run: %s", name, self._stopped[name])


def _message(fault: TierwiseError) -> str:
    """Return a fault's text without the model's name, which the caller puts in front."""
    if isinstance(fault, CallError | ModelUnavailable):
        return fault.message
    return str(fault)


def _cause(work: Work, chosen: Route, progress: _Progress) -> Cause:
    """Return why no model of a route gave an acceptable answer."""
    if work.short:
        return "budget"
    if progress.answered:
        return "failed_checks"
    if progress.reasons:
        return "provider_fault"
    return unroutable_cause(chosen)


def _work(job: Job, document: Document) -> Work:
    messages = job.prompt.render(document, {"part": None, **job.parameters})
    tokens = job.tokens[document.id] if document.id in job.tokens else count_tokens(document.text)
    f = features(
        job.step,
        document,
        tokens=tokens,
        prompt_tokens=estimate_prompt_tokens(messages, known={document.text: tokens}),
        budget_used=job.run.budget.used,
        minutes_left=None if job.run.deadline is None else (job.run.deadline - time.time()) / 60,
    )
    return Work(
        job=job, document=document, parameters=job.parameters, features=f, question=messages
    )


def _on_record(work: Work, chosen: Route) -> Route:
    """The route with what it rested on, so that it can be explained and replayed; outcomes have rows of their own."""
    job = work.job
    f = work.features
    limit = job.prompt.head.max_output_tokens
    plain = {
        field.name: getattr(f, field.name)
        for field in fields(f)
        if field.name not in ("step", "outcomes")
    }
    left = None if job.run.budget.left is None else str(job.run.budget.left)
    return replace(
        chosen,
        choices=choices(chosen, f, work.run.policy, max_output_tokens=limit, current=job.current),
        features={
            **plain,
            "tags": dict(f.tags),
            "max_output_tokens": limit,
            "budget_left": left,
            "step_hash": job.current.step_hash,
        },
    )


def _skipped(job: Job, document: Document) -> Outcome | None:
    cause: Cause
    if stopped := document.stopped:
        cause = "earlier_step"
        reason = f"{stopped.step} was {stopped.status}"
    elif job.only and not job.only(document):
        cause = "condition"
        reason = f"{getattr(job.only, '__name__', 'the condition')} is false"
    else:
        return None
    return Outcome(
        step=job.step.name,
        status="skipped",
        reason=reason,
        cause=cause,
        sensitivity=document.sensitivity,
    )


def _known(job: Job, document: Document) -> Outcome | None:
    """What is known without a call, as sensitive as what it is derived from now."""
    if outcome := job.known.get(document.id):
        return replace(outcome, sensitivity=highest(outcome.sensitivity, document.strictest))
    return None


def _accepted(work: Work, chosen: Route, model: str, answer: Answer) -> Outcome:
    value = answer.output.model_dump(mode="json") if answer.output else None
    if chosen.review == "human":
        reason = f"waits for a person's review (route {chosen.rule})"
        outcome = replace(_outcome(work, chosen, "deferred", reason=reason), cause="review")
    else:
        outcome = _outcome(work, chosen, "accepted")
    return replace(outcome, value=value, model=model)


def _outcome(work: Work, chosen: Route, status: Any, *, reason: str = "") -> Outcome:
    return Outcome(
        step=work.step.name,
        status=status,
        reason=reason,
        sensitivity=work.features.sensitivity,
        route=chosen,
        attempts=tuple(work.trail),
    )


def _unroutable(chosen: Route) -> str:
    """Why a route has no model: its own reason, then each rejected model with its."""
    rejected = "; ".join(f"{r.model}: {r.reason}" for r in chosen.rejected)
    return f"{chosen.reason} (route {chosen.rule}){': ' + rejected if rejected else ''}"
