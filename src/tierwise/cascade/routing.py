"""Pure decisions about one document and step: its features, its route, its outcome.

The cascade and the planner share them, so that a plan routes and counts as the run does.
"""

from __future__ import annotations

import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

from tierwise.cascade.job import Job, Work
from tierwise.cascade.outages import OutagePatience
from tierwise.policy.own_model import own_route
from tierwise.policy.router import Policy, route
from tierwise.policy.rules import Features, features
from tierwise.records import Cause, Document, Outcome, Route, Status


def skipped_by_earlier_step(job: Job, document: Document) -> Outcome | None:
    """Return the outcome of a document that an earlier step deferred, rejected or waits in."""
    stopped = document.stopped
    if stopped is None:
        return None
    if stopped.status == "waiting":
        return waiting_outcome(job, document, f"{stopped.step} waits for a batch")
    return _skipped(
        job, document, "earlier_step", f"{stopped.step} was {stopped.status}"
    )


def waiting_outcome(
    job: Job, document: Document, reason: str, route: Route | None = None
) -> Outcome:
    """Return the outcome of a document that waits for a provider batch."""
    return Outcome(
        step=job.step.name,
        status="waiting",
        reason=reason,
        cause="batch",
        sensitivity=document.strictest,
        route=route,
    )


def skipped_by_condition(job: Job, document: Document) -> Outcome:
    """Return the outcome of a document for which the step's `only=` is false."""
    return _skipped(job, document, "condition", f"{condition_name(job)} is false")


def condition_name(job: Job) -> str:
    """Return the name of the function behind `only=`."""
    return getattr(job.only, "__name__", "the condition")


def _skipped(job: Job, document: Document, cause: Cause, reason: str) -> Outcome:
    return Outcome(
        step=job.step.name,
        status="skipped",
        reason=reason,
        cause=cause,
        sensitivity=document.sensitivity,
    )


def features_of(
    job: Job, document: Document, *, tokens: int, prompt_tokens: int
) -> Features:
    """Return the features that rules look at, as of now."""
    deadline = job.run.deadline
    minutes_left = None
    if deadline is not None:
        minutes_left = (deadline - time.time()) / 60
    return features(
        job.step,
        document,
        tokens=tokens,
        prompt_tokens=prompt_tokens,
        budget_used=job.run.budget.used,
        minutes_left=minutes_left,
    )


def route_for(work: Work, policy: Policy, budget_left: Decimal | None) -> Route:
    """Return the document's route; that of a measurement has the measured models."""
    job = work.job
    if job.step.own is not None:
        # The run's policy has its entry.
        return own_route(job.step, job.run.policy, work.features)
    if job.models:
        return Route(
            step=job.step.name,
            rule="none",
            models=job.models,
            reason="the models that are measured",
            thresholds=job.thresholds,
            keeps=job.keeps,
        )
    return routed(work, policy, budget_left)


def routed(work: Work, policy: Policy, budget_left: Decimal | None) -> Route:
    """Return the route that a policy gives the document."""
    return route(
        work.features,
        policy,
        max_output_tokens=work.prompt.head.max_output_tokens,
        splits=work.step.splits is not None,
        budget_left=budget_left,
        current=work.job.current,
    )


def patience_for(work: Work, chosen: Route) -> OutagePatience:
    """Return how long the document waits for a model that is out: as its route says, or the run.

    Models that are measured are waited for.
    """
    run = work.run
    rule = None if work.job.models else run.policy.rules.route_named(chosen.rule)
    seconds = run.patience_s
    if rule is not None and rule.patience is not None:
        seconds = rule.patience
    return OutagePatience(
        seconds=seconds,
        deadline=run.deadline,
        on_outage="wait" if rule is None else rule.on_outage,
    )


def outcome_of(
    work: Work,
    chosen: Route,
    status: Status,
    *,
    reason: str = "",
    cause: Cause | None = None,
    **fields: Any,
) -> Outcome:
    """Return the outcome of a routed document, with its attempts so far."""
    chosen = with_transports(work, chosen)
    return Outcome(
        step=work.step.name,
        status=status,
        reason=reason,
        cause=cause,
        sensitivity=work.features.sensitivity,
        route=chosen,
        attempts=tuple(work.attempts),
        **fields,
    )


def with_transports(work: Work, chosen: Route) -> Route:
    """Return the route with how its calls went, where there was a choice."""
    if not work.transports:
        return chosen
    transports = {
        model: (choice.transport, choice.reason)
        for model, choice in work.transports.items()
    }
    return replace(chosen, transports=transports)


def review_reason(chosen: Route) -> str:
    """Return the reason of an answer that waits for a reviewer."""
    return f"waits for a person's review (route {chosen.rule})"


def no_attempt_reason(chosen: Route) -> str:
    """Return why a route leads to no attempt: its own reason, then why each model was rejected."""
    reason = f"{chosen.reason} (route {chosen.rule})"
    rejected = [
        f"{rejection.model}: {rejection.reason}" for rejection in chosen.rejected
    ]
    if rejected:
        reason += ": " + "; ".join(rejected)
    return reason
