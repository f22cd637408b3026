"""The cascade: route a document, then try one model after the other until an answer passes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal

from tierwise.cascade.answers import Answer, Answers
from tierwise.cascade.attempts import Attempts, FailedCall, Provider
from tierwise.cascade.batches import BatchLane
from tierwise.cascade.checking import Checking
from tierwise.cascade.circuit import LastSign
from tierwise.cascade.clock import Clock
from tierwise.cascade.faults import CAUSES, cause_of_deferral, decision, defers
from tierwise.cascade.job import Job, Work
from tierwise.cascade.open_fields import asking, sources_of, with_fields
from tierwise.cascade.outages import (
    OutagePatience,
    cause_of,
    is_worth_waiting,
    pause_before,
    remedy_for,
)
from tierwise.cascade.outcome_places import with_places
from tierwise.cascade.parts import merged_outcome, parts_of
from tierwise.cascade.routing import (
    features_of,
    no_attempt_reason,
    outcome_of,
    patience_for,
    review_reason,
    route_for,
    skipped_by_condition,
    skipped_by_earlier_step,
    waiting_outcome,
    with_transports,
)
from tierwise.cascade.shadow import Shadows
from tierwise.cascade.transport import transport_setting
from tierwise.errors import (
    BudgetExceeded,
    CallError,
    CallWaiting,
    ModelUnavailable,
    TierwiseError,
)
from tierwise.ledger import CallLedger
from tierwise.policy.kept_fields import NOT_KEPT, may_keep
from tierwise.policy.own_model import own_choice
from tierwise.policy.router import choices, unroutable_cause
from tierwise.policy.rules import LOW_CONFIDENCE, Features
from tierwise.records import (
    AttemptKind,
    Cause,
    Choice,
    Document,
    Outcome,
    Route,
    highest,
)
from tierwise.steps.open_fields import FieldValue
from tierwise.text.tokens import count_tokens, estimate_prompt_tokens

# Checks that always escalate: a route has thresholds only where the rules escalate on them.
_ALWAYS_ESCALATE = frozenset({LOW_CONFIDENCE, NOT_KEPT})

# A document that is refused so often, while others are answered, will always be.
_MOST_REFUSALS = 20

log = logging.getLogger(__name__)


@dataclass
class _Progress:
    """The state of a route: the reasons so far, and the kind of the next call."""

    kind: AttemptKind = "first"
    escalations: int = 0
    answered: bool = False  # a model answered, and its answer failed a check
    quotes: bool = False  # a reason may repeat words of an answer
    reasons: list[str] = field(default_factory=list)
    rounds: int = 0  # of tries of the same model that failed, with a wait after each
    # by model: the time before its first try
    first_begun: dict[str, float] = field(default_factory=dict)
    # models that are out, each with its last fault
    out: dict[str, TierwiseError] = field(default_factory=dict)
    # by model whose calls failed: what the document waits for after its last fault
    causes: dict[str, Cause] = field(default_factory=dict)
    # and its last fault in words, which is among the reasons
    faults: dict[str, str] = field(default_factory=dict)
    # in a step by field: the fields that are kept so far
    kept: Mapping[str, FieldValue] = field(default_factory=dict)


class Cascade:
    """Runs documents through steps. Async; lives on the engine's event loop."""

    def __init__(
        self,
        provider: Provider,
        ledger: CallLedger,
        workers: int = 1,
        clock: Clock | None = None,
        batches: BatchLane | None = None,
    ) -> None:
        """`workers` is the number of processes that share every model's limits.

        Without `batches`, every call goes online.
        """
        self._attempts = Attempts(provider, ledger, workers, clock, batches)
        self._batches = batches
        self._checking = Checking()
        self._answers = Answers(self._attempts, self._checking)
        self._shadows = Shadows(self._answers, ledger)
        self._ledger = ledger
        # models that are out for the rest of this process, and the reason
        self._stopped: dict[str, str] = {}

    def close(self) -> None:
        """Let the threads of slow checks end."""
        self._checking.close()

    async def stop(self, run_id: str, seconds: float) -> None:
        """Begin no call of a run any more; wait until those under way are on record.

        Wait for at most `seconds`.
        """
        stops = [self._attempts.stop(run_id, seconds)]
        if self._batches is not None:
            stops.append(self._batches.stop(run_id, seconds))
        await asyncio.gather(*stops)

    def reopen(self, run_id: str) -> None:
        """Let a run that was stopped make calls again."""
        self._attempts.reopen(run_id)

    def last_signs(self) -> dict[str, LastSign]:
        """Return whether each model that was called is out, and since when."""
        return self._attempts.last_signs()

    async def end_waits(self) -> None:
        """Let no document wait any longer for a model that is out, of whatever run."""
        self._attempts.end_waits()

    async def run(self, job: Job, document: Document) -> Document:
        """Return the document with this step's outcome, which is on record.

        Raises nothing for anything that a document can cause, and RunStopped once the run was
        stopped.
        """
        outcome = _outcome_without_call(job, document)
        work = None
        if outcome is not None:
            if document.id not in job.known:
                job.run.costs.finish(job.step.name, answered=False)
        else:
            try:
                outcome, work = await self._answered(job, document)
            except CallWaiting as held:
                # Not counted: the document is asked again, and its paid answers are found.
                reason = f"in batch {held.batch}"
                outcome = waiting_outcome(job, document, reason)
        outcome = await with_places(job, document, outcome)
        await self._ledger.record_outcome(job.run.id, document, outcome, job.question)
        if work and not job.models and not job.run.detached:
            await self._shadows.follow(work, outcome, self._stopped)
        return document.with_outcome(outcome)

    async def _answered(
        self, job: Job, document: Document
    ) -> tuple[Outcome, Work | None]:
        """Route a document and return its outcome, with its work where it has one part."""
        parts = parts_of(job, document)
        if len(parts) > 1:
            outcome = await self._run_parts(job, parts)
            job.run.costs.finish(job.step.name, answered=True)
            return outcome, None
        work = _work(job, document)
        try:
            outcome = await self._run_with_top_ups(work)
        except CallWaiting as held:
            route = None
            if work.chosen is not None:
                route = with_transports(work, work.chosen)
            reason = f"in batch {held.batch}"
            return waiting_outcome(job, document, reason, route), None
        _count_costs(work, outcome)
        if job.run.detached and not job.models:
            # Before the outcome is on record: where the shadow waits for a batch, the document
            # waits too, as nothing would ask the shadow again.
            await self._shadows.follow(work, outcome, self._stopped)
        return outcome, work

    async def _run_parts(self, job: Job, parts: Sequence[Document]) -> Outcome:
        """Route and answer each part by itself; return the document's outcome."""
        job = replace(job, tokens={})  # those of the whole documents
        runs = [self._run_with_top_ups(_work(job, part)) for part in parts]
        # All parts end before an error is raised, so that no call goes on unseen.
        results = await asyncio.gather(*runs, return_exceptions=True)
        outcomes = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            outcomes.append(result)
        return merged_outcome(job.step, outcomes)

    async def _run_with_top_ups(self, work: Work) -> Outcome:
        """Run the route; when the budget is exhausted, ask for a top-up and run it again."""
        while True:
            chosen = self._route(work, work.run.budget.left)
            outcome = await self._run_route(work, _as_recorded(work, chosen))
            if not chosen.models and work.run.budget.limits:
                outcome = await self._reuse_paid_answer(work, outcome)
            shortfall = work.shortfall
            work.shortfall = None
            if shortfall is None:
                return outcome
            top_up = work.run.top_up
            granted = top_up is not None and await top_up.request(shortfall)
            if not granted:
                work.run.budget.last_shortfall = str(shortfall)
                return outcome

    async def _reuse_paid_answer(self, work: Work, deferred: Outcome) -> Outcome:
        """Look for an answer that was paid before, when the budget is left for no model."""
        chosen = self._route(work, None)
        if not chosen.models:
            return deferred
        outcome = await self._run_route(work, _as_recorded(work, chosen))
        if outcome.status == "accepted":
            return outcome
        if deferred.cause != "budget":
            # Such as an unknown price: no money would help.
            work.shortfall = None
            return deferred
        return replace(outcome, route=deferred.route)

    def _route(self, work: Work, budget_left: Decimal | None) -> Route:
        policy = work.run.policy
        if self._stopped:
            unavailable = {**policy.unavailable, **self._stopped}
            policy = replace(policy, unavailable=unavailable)
        chosen = route_for(work, policy, budget_left)
        work.transport = transport_setting(work.job, chosen)
        return chosen

    async def _run_route(self, work: Work, chosen: Route) -> Outcome:
        """Try the route's models in order until one answer passes."""
        work.chosen = chosen
        progress = _Progress(work.job.kind)
        patience = patience_for(work, chosen)
        untried = list(chosen.models)
        while name := await self._next_model(work, chosen, untried, progress, patience):
            model = work.run.policy.catalog.model(name)
            asked, min_confidence = _asked(work, chosen, name, progress.kept)
            begun = self._attempts.clock.monotonic()
            progress.first_begun.setdefault(name, begun)
            try:
                answer = await self._answers.ask(
                    asked, model, progress.kind, min_confidence=min_confidence
                )
            except FailedCall as failure:
                fault = failure.cause
                progress.quotes = True  # a provider's error may repeat what it was sent
                if defers(fault):
                    self._fall_back(work, name, fault, progress)
                    break
                is_own = self._is_own_fault(work, name, progress)
                waits = self._is_out(work, name, fault, begun, untried, patience)
                note = ""
                if waits and not is_own:
                    refusal = await self._wait_for(
                        work, name, fault, progress, patience
                    )
                    if refusal is None:
                        untried.insert(0, name)
                        continue
                    note = refusal
                self._fall_back(work, name, fault, progress, note)
                is_out = self._is_out(work, name, fault, begun, [], patience)
                if is_out and not is_own:
                    if self._others(untried):
                        self._attempts.limits(model).say_fallback(fault)
                    if not waits:
                        # It gets another turn where no other model answers.
                        progress.out[name] = fault
                continue
            except BudgetExceeded as error:
                work.shortfall = error  # another model may cost less
                progress.reasons.append(f"{name}: {error}")
                continue
            if answer.shortfall:
                work.shortfall = answer.shortfall
            progress.kept = answer.kept
            if not answer.failed:
                work.shortfall = None
                return _answered(work, chosen, name, answer)
            if not _escalate(work, name, answer, progress):
                break
        return self._deferred(work, chosen, progress)

    async def _next_model(
        self,
        work: Work,
        chosen: Route,
        untried: list[str],
        progress: _Progress,
        patience: OutagePatience,
    ) -> str | None:
        """Take the next of the route's models, then of those that were out.

        Return None at the end. Models that were out get their turn where none answered.
        """
        while untried:
            name = untried.pop(0)
            open_fields = _open_fields(work, progress.kept)
            if not may_keep(chosen.keeps.get(name), open_fields):
                progress.reasons.append(f"{name}: the route keeps no open field of it")
                continue
            if name not in self._stopped:
                return name
            # Another document met the fault since the route was chosen, or while it was measured.
            progress.reasons.append(f"{name}: {self._stopped[name]}")
            progress.causes[name] = "setup"
        while progress.out and not progress.escalations:
            name = min(progress.out, key=lambda name: self._ready_at(work, name))
            fault = progress.out.pop(name)
            if await self._wait_for(work, name, fault, progress, patience) is None:
                return name
        return None

    def _others(self, untried: Sequence[str]) -> list[str]:
        """Return the untried models that may still be called."""
        return [name for name in untried if name not in self._stopped]

    def _ready_at(self, work: Work, name: str) -> float:
        model = work.run.policy.catalog.model(name)
        return self._attempts.limits(model).ready_at()

    def _is_own_fault(self, work: Work, name: str, progress: _Progress) -> bool:
        """Return True if a model that answers others has refused this document many times."""
        failed = [
            attempt
            for attempt in work.attempts
            if attempt.model == name and attempt.error
        ]
        if len(failed) < _MOST_REFUSALS:
            return False
        model = work.run.policy.catalog.model(name)
        circuit = self._attempts.limits(model).circuit
        return circuit.last_success_begun >= progress.first_begun[name]

    def _is_out(
        self,
        work: Work,
        name: str,
        fault: TierwiseError,
        begun: float,
        untried: Sequence[str],
        patience: OutagePatience,
    ) -> bool:
        """Return True if the document should wait for a model that failed at or after `begun`."""
        model = work.run.policy.catalog.model(name)
        return is_worth_waiting(
            fault,
            self._attempts.limits(model).circuit,
            begun=begun,
            other_left=bool(self._others(untried)),
            on_outage=patience.on_outage,
        )

    async def _wait_for(
        self,
        work: Work,
        name: str,
        fault: TierwiseError,
        progress: _Progress,
        patience: OutagePatience,
    ) -> str | None:
        """Wait for a model that is out. Return None once it may be called, else why not, in words."""
        limits = self._attempts.limits(work.run.policy.catalog.model(name))
        pause = pause_before(fault, progress.rounds)
        note = await limits.wait_until_ready(patience, fault, pause=pause)
        if pause:  # the call was sent, and failed
            progress.rounds += 1
            if progress.kind == "first":
                progress.kind = "retry"
        return note

    def _fall_back(
        self,
        work: Work,
        name: str,
        fault: TierwiseError,
        progress: _Progress,
        note: str = "",
    ) -> None:
        """Note a model's fault; the next model is called as its fallback."""
        progress.kind = "fallback"
        progress.rounds = 0
        progress.causes[name] = CAUSES[type(fault)]
        # Of a circuit that is open, the fault that opened it: that says what is wrong.
        message = _message(cause_of(fault))
        reason = f"{name}: {message}{_tries(work, name, fault)}"
        if note:
            reason += f"; {note}"
        reason += remedy_for(fault)
        # A model that is met twice is named once, with all of its tries.
        if name in progress.faults:
            progress.reasons.remove(progress.faults[name])
        progress.faults[name] = reason
        progress.reasons.append(reason)
        if decision(fault) == "stop" and name not in self._stopped:
            self._stopped[name] = message
            log.warning("%s is out for this run: %s", name, message)

    def _deferred(self, work: Work, chosen: Route, progress: _Progress) -> Outcome:
        """Return the outcome of a route without an acceptable answer."""
        # A budget may refuse a model twice, with the same words.
        reasons = list(dict.fromkeys(progress.reasons))
        reason = "; ".join(reasons) or no_attempt_reason(chosen)
        if work.shortfall:
            reason = f"budget: {reason}"
        cause = _deferral_cause(work, chosen, progress)
        outcome = outcome_of(
            work, chosen, "deferred", reason=reason, cause=cause, quotes=progress.quotes
        )
        return with_fields(outcome, work.step, progress.kept)


def _deferral_cause(work: Work, chosen: Route, progress: _Progress) -> Cause:
    if work.shortfall:
        return "budget"
    if progress.causes:
        cause = cause_of_deferral(progress.causes.values())
        # With an answer at hand, a person can decide, unless another try would help.
        if not progress.answered or cause in ("outage", "setup"):
            return cause
    if progress.answered:
        return "failed_checks"
    return unroutable_cause(chosen)


def _tries(work: Work, model: str, fault: TierwiseError) -> str:
    """Return how often a call that may be repeated was made, to be added to its fault."""
    cause = cause_of(fault)
    if not isinstance(cause, CallError) or decision(cause) != "retry":
        return ""
    failed = [
        attempt for attempt in work.attempts if attempt.model == model and attempt.error
    ]
    if not failed:
        return " (not tried for this document: other calls failed so)"
    if len(failed) == 1:
        return " (1 try)"
    return f" ({len(failed)} tries)"


def _escalate(work: Work, name: str, answer: Answer, progress: _Progress) -> bool:
    """Note a failed answer; return True if the next model may be asked."""
    first = answer.failed[0]
    progress.answered = True
    progress.quotes = True
    reason = f"{first.check}: {first.reason}"
    if answer.kept:
        open_fields = ", ".join(_open_fields(work, answer.kept))
        reason = f"{open_fields} open after {reason}"
    progress.reasons.append(f"{name}: {reason}")
    rules = work.run.policy.rules.escalate
    failed_checks = {verdict.check for verdict in answer.failed}
    escalating = _ALWAYS_ESCALATE.union(rules.on)
    if progress.escalations == rules.most or failed_checks.isdisjoint(escalating):
        return False
    progress.kind = "escalation"
    progress.escalations += 1
    return True


def _answered(work: Work, chosen: Route, model: str, answer: Answer) -> Outcome:
    """Return the outcome of a passed answer: accepted, or deferred for a reviewer's approval."""
    value = answer.output.model_dump(mode="json") if answer.output else None
    sources = sources_of(answer.kept)
    if chosen.review == "human":
        return outcome_of(
            work,
            chosen,
            "deferred",
            reason=review_reason(chosen),
            cause="review",
            value=value,
            model=model,
            sources=sources,
        )
    return outcome_of(
        work, chosen, "accepted", value=value, model=model, sources=sources
    )


def _open_fields(work: Work, kept: Mapping[str, FieldValue]) -> list[str]:
    """Return the fields that no model has answered so far."""
    return [name for name in work.step.returns.model_fields if name not in kept]


def _asked(
    work: Work, chosen: Route, name: str, kept: Mapping[str, FieldValue]
) -> tuple[Work, float | None]:
    """Return the work that a model is asked for, and the confidence that its answer needs.

    A threshold is certified for whole answers, so none applies to a part.
    """
    if not work.step.by_field:
        return work, chosen.thresholds.get(name)
    asked = asking(work, kept=kept, keeps=chosen.keeps.get(name))
    return asked, None if kept else chosen.thresholds.get(name)


def _count_costs(work: Work, outcome: Outcome) -> None:
    """Count a document for the mean cost of its step.

    One without money, or with answers that were paid before, says nothing about others.
    """
    paid = [attempt for attempt in work.attempts if not attempt.reused]
    if outcome.cause == "budget" or (work.attempts and not paid):
        return
    work.run.costs.finish(work.step.name, answered=bool(paid))


def _message(fault: TierwiseError) -> str:
    """Return a fault's text without the model's name, which the caller puts in front."""
    if isinstance(fault, CallError | ModelUnavailable):
        return fault.message
    return str(fault)


def _outcome_without_call(job: Job, document: Document) -> Outcome | None:
    """Return the outcome of a document that is skipped or known already."""
    skipped = skipped_by_earlier_step(job, document)
    if skipped:
        return skipped
    if job.only and not job.only(document):
        return skipped_by_condition(job, document)
    known = job.known.get(document.id)
    if known is None:
        return None
    # The document may be derived from more by now, and is as sensitive as that.
    return replace(known, sensitivity=highest(known.sensitivity, document.strictest))


def _work(job: Job, document: Document) -> Work:
    tokens = job.tokens.get(document.id)
    if tokens is None:
        tokens = count_tokens(document.text)
    if job.step.own is not None:
        return Work(
            job=job,
            document=document,
            parameters=job.parameters,
            features=features_of(job, document, tokens=tokens, prompt_tokens=tokens),
        )
    messages = job.prompt.render(document, {"part": None, **job.parameters})
    prompt_tokens = estimate_prompt_tokens(messages, known={document.text: tokens})
    return Work(
        job=job,
        document=document,
        parameters=job.parameters,
        features=features_of(job, document, tokens=tokens, prompt_tokens=prompt_tokens),
        question=messages,
    )


_FEATURE_NAMES = [
    feature.name
    for feature in fields(Features)
    if feature.name not in ("step", "outcomes", "tags", "members")
]


def _as_recorded(work: Work, chosen: Route) -> Route:
    """Return the route with its costs and features, so that it can be explained and replayed.

    Outcomes of earlier steps are left out: they have rows of their own.
    """
    job = work.job
    limit = job.prompt.head.max_output_tokens
    left = job.run.budget.left
    recorded = {name: getattr(work.features, name) for name in _FEATURE_NAMES}
    recorded["tags"] = dict(work.features.tags)
    recorded["max_output_tokens"] = limit
    recorded["budget_left"] = None if left is None else str(left)
    recorded["step_hash"] = job.current.step_hash
    if job.step.own is not None:
        costs: tuple[Choice, ...] = (own_choice(job.step, work.run.policy),)
    else:
        costs = choices(
            chosen,
            work.features,
            work.run.policy,
            max_output_tokens=limit,
            current=job.current,
        )
    return replace(chosen, choices=costs, features=recorded)
