"""The cascade: route, then one model after the other until an answer holds (FrugalGPT's word)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tierwise.cascade.answers import Answer, Answers
from tierwise.cascade.calls import Calls, FailedCall, Provider, RunContext, Work
from tierwise.cascade.faults import decision
from tierwise.errors import BudgetExceeded, TierwiseError
from tierwise.ledger import Ledger
from tierwise.prompts import Prompt
from tierwise.records import AttemptKind, Document, Outcome, Route
from tierwise.router import route
from tierwise.rules import features
from tierwise.steps import Step
from tierwise.tokens import count_tokens, estimate_prompt_tokens

__all__ = ["Cascade", "Provider", "RunContext", "Work"]

log = logging.getLogger(__name__)


@dataclass
class _Progress:
    """Where a route stands: why each model so far did not do, and how the next call comes about."""

    kind: AttemptKind = "first"
    escalations: int = 0
    reasons: list[str] = field(default_factory=list)


class Cascade:
    """Runs documents through steps. Async; lives on the engine's event loop."""

    def __init__(self, provider: Provider, ledger: Ledger) -> None:
        self._answers = Answers(Calls(provider, ledger), ledger)
        self._ledger = ledger
        self._stopped: dict[str, str] = {}  # models that are out for the rest of this process, and why

    async def run(
        self,
        run: RunContext,
        step: Step,
        prompt: Prompt,
        document: Document,
        parameters: Mapping[str, Any],
        only: Callable[[Document], bool] | None = None,
    ) -> Document:
        """The document with this step's outcome, which is on record. Raises nothing for what a document can cause."""
        outcome = _skipped(step, document, only)
        if outcome is None:
            work = self._work(run, step, prompt, document, parameters)
            outcome = await self._walk(work, self._route(work))
        await self._ledger.record_outcome(run.id, document, outcome)
        return document.with_outcome(outcome)

    def _work(
        self, run: RunContext, step: Step, prompt: Prompt, document: Document, parameters: Mapping[str, Any]
    ) -> Work:
        messages = prompt.render(document, {"part": None, **parameters})
        f = features(
            step,
            document,
            tokens=count_tokens(document.text),
            prompt_tokens=estimate_prompt_tokens(messages),
            budget_used=run.budget.used,
        )
        return Work(run=run, step=step, prompt=prompt, document=document, parameters=parameters, features=f)

    def _route(self, work: Work) -> Route:
        policy = work.run.policy
        if self._stopped:
            policy = replace(policy, unavailable={**policy.unavailable, **self._stopped})
        return route(
            work.features,
            policy,
            max_output_tokens=work.prompt.head.max_output_tokens,
            splits=work.step.splits is not None,
            budget_left=work.run.budget.left,
        )

    async def _walk(self, work: Work, chosen: Route) -> Outcome:
        """Try the route's models in order until one answer holds."""
        progress = _Progress()
        escalate = work.run.policy.rules.escalate
        for name in chosen.models:
            if name in self._stopped:
                continue
            model = work.run.policy.catalog.model(name)
            try:
                answer = await self._answers.ask(work, model, progress.kind)
            except FailedCall as failure:
                self._after_fault(name, failure.cause, progress)
                continue
            except BudgetExceeded as error:
                return _outcome(work, chosen, "deferred", reason=f"budget: {error}")
            if not answer.failed:
                return _accepted(work, chosen, name, answer)
            progress.reasons.append(f"{name}: {answer.failed[0].check}: {answer.failed[0].reason}")
            if progress.escalations == escalate.most or not {v.check for v in answer.failed} & set(escalate.on):
                break
            progress.kind, progress.escalations = "escalation", progress.escalations + 1
        return _outcome(work, chosen, "deferred", reason="; ".join(progress.reasons) or _unroutable(chosen))

    def _after_fault(self, name: str, cause: TierwiseError, progress: _Progress) -> None:
        progress.kind = "fallback"
        progress.reasons.append(str(cause) if str(cause).startswith(name) else f"{name}: {cause}")
        if decision(cause) == "stop" and name not in self._stopped:
            self._stopped[name] = str(cause).removeprefix(f"{name}: ")
            log.warning("%s is out for this run: %s", name, self._stopped[name])


def _skipped(step: Step, document: Document, only: Callable[[Document], bool] | None) -> Outcome | None:
    if waiting := document.deferred:
        reason = f"{waiting.step} was deferred"
    elif only and not only(document):
        reason = f"{getattr(only, '__name__', 'the condition')} does not hold"
    else:
        return None
    return Outcome(step=step.name, status="skipped", reason=reason, sensitivity=document.sensitivity)


def _accepted(work: Work, chosen: Route, model: str, answer: Answer) -> Outcome:
    value = answer.output.model_dump(mode="json") if answer.output else None
    if chosen.review == "human":
        outcome = _outcome(work, chosen, "deferred", reason=f"waits for a person's review (route {chosen.rule})")
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
