"""The engine of a rehearsal: it routes and counts every document of a flow, and calls nobody."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from typing import Any

from tierwise.cascade import Job, RunContext
from tierwise.cascade.attempts import build_call
from tierwise.cascade.few_shot import conversation
from tierwise.cascade.job import Work
from tierwise.cascade.parts import parts_of
from tierwise.engine import RunRecords
from tierwise.errors import BudgetExceeded
from tierwise.ledger import DeferredRow, RunRow, RunState, SummaryRow
from tierwise.ledger.views.history import Key, Past, history, paid_calls
from tierwise.plan.assumed_outcomes import (
    Assumed,
    applies,
    assumed_of,
    assumed_steps,
    chance,
    stand_in,
)
from tierwise.plan.dry_run_engine import DryRunEngine
from tierwise.plan.expected_cost import Expectation, expect, most, prompts_of
from tierwise.plan.missing_certificates import missing_proof
from tierwise.plan.paid_answers import Unpaid, paid_cascade
from tierwise.plan.plan import Plan
from tierwise.plan.totals import ZERO, Tally
from tierwise.policy.budget import Budget
from tierwise.policy.catalog import Model
from tierwise.policy.router import Policy, route, unroutable_cause, worst_case
from tierwise.policy.rules import Features, RouteRule, Rules, features
from tierwise.project import Project
from tierwise.records import Batch, Cause, Document, Message, Outcome, Route, Status
from tierwise.text.tokens import PER_MESSAGE, count_tokens, estimate_prompt_tokens

_LESSONS = 5  # documents whose examples are counted; the others' are taken to be as long


class Planner(DryRunEngine):
    """Takes an engine's place while a flow is planned: the same routes and prompts, no call, nothing on record."""

    def __init__(self, project: Project, env: Mapping[str, str] | None = None) -> None:
        super().__init__(project, env)
        self.tally = Tally()
        self.budget_usd: Decimal | None = None
        self._paid: dict[tuple[str, str], frozenset[str]] = {}
        self._expectations: dict[tuple[str, str, int], Expectation] = {}
        self._seen: set[int] = set()
        self._tokens: dict[str, int] = {}
        self._lessons: dict[tuple[str, str, str], list[int]] = {}
        self._answers = paid_cascade(self.ledger)
        self._runner = (
            asyncio.Runner()
        )  # in this thread: a hop to the engine's takes longer than the answer
        speaking = (
            self._model(name) for name in self.policy.by_strength if not self._model(name).learned
        )
        self._priced = next((model.name for model in speaking if model.price != "unknown"), None)

    def close(self) -> None:
        """Close the ledger."""
        self._runner.close()
        super().close()

    def start_run(
        self,
        flow: str,
        *,
        budget_usd: Decimal | None = None,
        tags: Mapping[str, str] | None = None,
        deadline: float | None = None,
        **_: Any,
    ) -> RunContext:
        """A run that is on no record, under its own budget and what the limits of the rules leave now."""
        self.budget_usd = budget_usd
        shared = self.ledger.run_budget(self.policy.rules.budget.shared(tags or {})).left
        left = min((usd for usd in (budget_usd, shared) if usd is not None), default=None)
        budget = Budget(None if left is None else max(left, ZERO))
        return RunContext(
            id=f"plan of {flow}", policy=self.policy, budget=budget, deadline=deadline
        )

    def finish_run(self, run: RunContext, state: RunState) -> None:
        """Nothing: there was no run."""

    @property
    def records(self) -> RunRecords:
        """The records of a planned run: no documents and no cost."""
        return _PlannedRecords(self.budget_usd, self.policy.hash)

    def record(self, run: RunContext, document: Document, outcome: Outcome) -> None:  # noqa: ARG002
        """Count a document that could not be read, or went through a step without a model."""
        self.tally.documents.add(document.id)
        if outcome.status == "deferred":
            self.tally.deferred(outcome.step, document.id, outcome.reason)

    def run_job(self, job: Job, batch: Batch) -> Batch:
        """The batch with every document's outcome of a job's step, as far as it is known."""
        return batch.with_documents(
            tuple(self._planned(job, document) for document in batch.load())
        )

    def plan(self, flow: str, parameters: Mapping[str, str]) -> Plan:
        """What was planned so far, as one value."""
        least, longest = self.tally.seconds()
        return Plan(
            flow=flow,
            parameters=dict(parameters),
            policy_hash=self.policy.hash,
            made_at=time.time(),
            documents=len(self.tally.documents),
            budget_usd=self.budget_usd,
            routes=self.tally.routes,
            rows=self.tally.rows,
            waiting=self.tally.waiting,
            skipped=dict(self.tally.skipped),
            assumed=dict(self.tally.assumed),
            expected_deferred=self.tally.expected_deferred,
            missing=tuple(self.tally.missing.values()),
            references=self.tally.references,
            shadow=shadow.money if (shadow := self.policy.rules.shadow).share else 0.0,
            seconds_least=least,
            seconds_most=longest,
        )

    def _planned(self, job: Job, document: Document) -> Document:
        self.tally.documents.add(document.id)
        if "read" not in document.outcomes:
            self.tally.readable.add(document.id)
        outcome = self._skipped(job, document) or self._in_parts(job, document)
        if outcome.status == "skipped":
            self.tally.skipped[job.step.name] += 1
        if outcome.status == "deferred":
            self.tally.deferred(job.step.name, document.id, outcome.reason)
        self._notify(document, outcome)
        return document.with_outcome(outcome)

    def _skipped(self, job: Job, document: Document) -> Outcome | None:
        cause: Cause
        if waiting := document.deferred:
            cause = "earlier_step"
            reason = f"{waiting.step} is deferred"
        else:
            holds = applies(job.only, document) if job.only else True
            if holds is None:
                self.tally.assumed[
                    f"that {job.step.name} applies ({_name(job.only)} is not known yet)"
                ] += 1
            if holds is not False:
                return None
            cause = "condition"
            reason = f"{_name(job.only)} is false"
        return Outcome(
            step=job.step.name,
            status="skipped",
            reason=reason,
            cause=cause,
            sensitivity=document.sensitivity,
        )

    def _in_parts(self, job: Job, document: Document) -> Outcome:
        """The outcome of a document; of its parts, where its step gathers and it is long."""
        outcomes = [self._outcome(job, part) for part in parts_of(job, document)]
        return assumed_of(job.step, outcomes) if len(outcomes) > 1 else outcomes[0]

    def _outcome(self, job: Job, document: Document) -> Outcome:
        messages = job.prompt.render(document, {"part": None, **job.parameters})
        f = self._features(job, document, messages)
        work = Work(job=job, document=document, parameters=job.parameters, features=f)
        chosen = self._route(work)
        self._note_proof(work, chosen)
        if not chosen.models:
            reasons = [
                f"{chosen.reason} (route {chosen.rule})",
                *(f"{r.model}: {r.reason}" for r in chosen.rejected),
            ]
            return _deferred(work, chosen, "; ".join(reasons), unroutable_cause(chosen))
        self.tally.routed(chosen, self._model(chosen.models[0]).tier, work.features.prompt_tokens)
        self._compare(work, chosen)
        known, rest = self._known(work, chosen, messages)
        outcome = known or self._estimated(work, chosen, rest, messages)
        if chosen.review == "human" and outcome.status == "accepted":
            reason = f"waits for a person's review (route {chosen.rule})"
            return _deferred(work, chosen, reason, "review")
        return outcome

    def _features(self, job: Job, document: Document, messages: tuple[Message, ...]) -> Features:
        """A document's features; outcomes that are only assumed decide nothing."""
        tokens = self._count(document.text)
        system, *rest = messages  # the same for all documents of a step
        prompt_tokens = estimate_prompt_tokens(rest) + PER_MESSAGE + self._count(system.content)
        f = features(
            job.step,
            document,
            tokens=tokens,
            prompt_tokens=prompt_tokens,
            budget_used=job.run.budget.used,
            minutes_left=None
            if job.run.deadline is None
            else (job.run.deadline - time.time()) / 60,
        )
        if not (assumed := assumed_steps(document)):
            return f
        if assumed & self._decisive.get(job.step.name, frozenset()):
            self.tally.assumed[
                f"that no rule about outcomes holds for {job.step.name} (they are not known yet)"
            ] += 1
        return replace(
            f, outcomes={step: value for step, value in f.outcomes.items() if step not in assumed}
        )

    def _route(self, work: Work) -> Route:
        job = work.job
        if job.models:
            return Route(
                step=job.step.name, rule="none", models=job.models, thresholds=job.thresholds
            )
        return self._routed(work, self.policy, job.run.budget.left)

    def _routed(self, work: Work, policy: Policy, budget_left: Decimal | None) -> Route:
        return route(
            work.features,
            policy,
            max_output_tokens=work.prompt.head.max_output_tokens,
            splits=work.step.splits is not None,
            budget_left=budget_left,
            current=work.job.current,
        )

    def _known(
        self, work: Work, chosen: Route, messages: tuple[Message, ...]
    ) -> tuple[Outcome | None, tuple[str, ...]]:
        """The outcome, where paid answers give it; else the models that remain to be asked."""
        models = chosen.models[: self.policy.rules.escalate.most + 1]
        first = self._model(models[0])
        if self.fresh or not self._paid_on(work.step.name, first.name):
            return None, models
        asked = conversation(work, first) if first.uses_few_shot else messages
        if build_call(work, first, asked).hash not in self._paid_on(work.step.name, first.name):
            return None, models
        reach = chance(work.document)
        run_budget = copy.copy(
            work.run.budget
        )  # what the cascade reserves for a call that is not made must not stay
        run = replace(work.run, budget=run_budget)
        job = replace(
            work.job, run=run, only=None, models=chosen.models, thresholds=chosen.thresholds
        )
        try:
            done = self._runner.run(self._answers.run(job, work.document))
        except Unpaid as unpaid:
            place = chosen.models.index(unpaid.model)
            for name in chosen.models[:place]:
                self.tally.reused(
                    work.step.name, self._model(name), self._expect(work, name), reach, 1
                )
            return None, models[place:] or (unpaid.model,)
        outcome = replace(done.outcomes[work.step.name], route=chosen)
        for name in dict.fromkeys(attempt.model for attempt in outcome.attempts):
            calls = sum(attempt.model == name for attempt in outcome.attempts)
            self.tally.reused(
                work.step.name, self._model(name), self._expect(work, name), reach, calls
            )
        return outcome, ()

    def _estimated(
        self, work: Work, chosen: Route, models: tuple[str, ...], messages: tuple[Message, ...]
    ) -> Outcome:
        """The outcome that is assumed when these models are asked in order, and what that costs."""
        budget = work.run.budget
        before = chance(work.document)
        assert isinstance(budget, Budget)  # noqa: S101 - see `start_run`
        reach = before
        spent = ZERO
        first = self._model(models[0])
        try:
            allowed = first.name in self.policy.rules.budget.allow_unpriced
            worst = worst_case(
                first, work.features.prompt_tokens, work.prompt.head.max_output_tokens
            )
            reserved = budget.reserve(worst, unpriced_allowed=allowed)
        except BudgetExceeded as error:
            return _deferred(work, chosen, f"budget: {error}", "budget")
        for name in models:
            spent += self._asked(work, self._model(name), reach, messages)
            passes = self._expect(work, name).passes
            reach *= 0.0 if passes is None else 1 - passes
        budget.settle(reserved, spent)
        self.tally.expected_deferred += reach
        tokens = self._expect(work, first.name).completion_tokens
        return Assumed(
            step=work.step.name,
            status="accepted",
            value=stand_in(work.step.schema(work.parameters), tokens),
            model=first.name,
            sensitivity=work.features.sensitivity,
            route=chosen,
            chance=1 - reach / before if before else 0.0,
        )

    def _asked(
        self, work: Work, model: Model, reach: float, messages: tuple[Message, ...]
    ) -> Decimal:
        """Put on the tally what one model costs; gives the expected USD."""
        expectation = self._expect(work, model.name)
        step = work.step.name
        identity = hash(
            (step, model.name, messages, work.document.hash)
        )  # assumed outcomes are all alike
        if identity in self._seen and not self.fresh:  # an equal document: paid once
            self.tally.reused(step, model, expectation, reach, 1)
            return ZERO
        self._seen.add(identity)
        prompts = self._prompts(work, model, expectation)
        cost = expectation.cost(model, prompts)
        limit = work.prompt.head.max_output_tokens
        self.tally.asked(
            step,
            model,
            expectation,
            document_id=work.document.id,
            prompts=prompts,
            reach=reach,
            cost=cost,
            most=most(model, prompts, limit),
        )
        return (cost or ZERO) * Decimal(str(reach))

    def _prompts(self, work: Work, model: Model, expectation: Expectation) -> tuple[int, ...]:
        return prompts_of(
            model,
            work.features.prompt_tokens
            + (self._example_tokens(work, model) if model.uses_few_shot else 0),
            work.features.tokens,
            work.prompt.head.max_output_tokens,
            expectation.completion_tokens,
            splits=work.step.splits is not None,
        )

    def _example_tokens(self, work: Work, model: Model) -> int:
        """Tokens of the examples that a model is shown."""
        counted = self._lessons.setdefault(
            (work.step.name, model.name, work.features.sensitivity), []
        )
        if len(counted) < _LESSONS:
            counted.append(
                estimate_prompt_tokens(conversation(work, model)) - work.features.prompt_tokens
            )
        return sum(counted) // len(counted)

    def _compare(self, work: Work, chosen: Route) -> None:
        """What the strongest models would take for this document."""
        own = self._expect(work, chosen.models[0])
        strongest = self._routed(work, self._by_strength, None).models
        best = {"the strongest that is allowed and available": strongest[0] if strongest else None}
        best["the strongest with a price"] = self._priced
        for what, name in best.items():
            if name:
                expectation = self._expect(work, name).like(own)
                model = self._model(name)
                self.tally.best(
                    what, name, expectation.cost(model, self._prompts(work, model, expectation))
                )

    def _note_proof(self, work: Work, chosen: Route) -> None:
        if work.step.name not in self.tally.missing and (
            said := missing_proof(self, work.job, chosen)
        ):
            self.tally.missing[work.step.name] = said

    def _expect(self, work: Work, name: str) -> Expectation:
        step = work.step.name
        limit = work.prompt.head.max_output_tokens
        if (step, name, limit) not in self._expectations:
            certificate = self.policy.certificates.find(step, [name])
            if certificate and certificate.void_reasons(work.job.current):
                certificate = None
            past = self._past.get((step, work.prompt.label, name))
            self._expectations[step, name, limit] = expect(
                self._model(name), limit, past, certificate
            )
        return self._expectations[step, name, limit]

    def _paid_on(self, step: str, model: str) -> frozenset[str]:
        if (step, model) not in self._paid:
            self._paid[step, model] = paid_calls(self.ledger, step, model)
        return self._paid[step, model]

    def _count(self, text: str) -> int:
        if text not in self._tokens:
            self._tokens[text] = count_tokens(text)
        return self._tokens[text]

    def _model(self, name: str) -> Model:
        return self.policy.catalog.model(name)

    @cached_property
    def _past(self) -> Mapping[Key, Past]:
        return history(self.ledger)

    @cached_property
    def _by_strength(self) -> Policy:
        """The policy with one route: the strongest that may see the document."""
        names = [name for name in self.policy.by_strength if not self._model(name).learned]
        strongest = RouteRule.model_validate({"name": "strongest", "try": names})
        rules = self.policy.rules
        return replace(
            self.policy,
            rules=Rules(version=1, guards=rules.guards, routes=(strongest,), budget=rules.budget),
        )

    @cached_property
    def _decisive(self) -> Mapping[str, frozenset[str]]:
        """Step -> steps whose outcomes its guards and routes look at."""
        rules = self.policy.rules
        conditions = [
            *(guard.when for guard in rules.guards),
            *(rule.when for rule in rules.routes),
        ]
        return {
            prompt.head.step: frozenset(
                path.partition(".")[0]
                for when in conditions
                if when.step is None or prompt.head.step in when.step
                for path in when.outcomes
            )
            for prompt in self.prompts
        }


class _PlannedRecords:
    """The records of a planned run, in which nothing was done yet."""

    def __init__(self, budget_usd: Decimal | None, policy_hash: str) -> None:
        self._budget_usd = budget_usd
        self._policy_hash = policy_hash

    def resolve_run(self, name: str, /) -> RunRow:
        return RunRow(
            id=name,
            flow=name,
            flow_run_id=None,
            flow_run_name=None,
            state="planned",
            started_at=time.time(),
            finished_at=None,
            documents=0,
            accepted=0,
            deferred=0,
            attempts=0,
            reused=0,
            cost_known=ZERO,
            cost_unknown=0,
            budget_usd=self._budget_usd,
            parameters={},
            policy_hash=self._policy_hash,
            tierwise_version="",
        )

    def summary(self, _: str, /) -> Sequence[SummaryRow]:
        return ()

    def outcome_counts(self, _: str, /) -> Mapping[str, Mapping[Status, int]]:
        return {}

    def deferred(self, _: str, /) -> Sequence[DeferredRow]:
        return ()


def _name(only: Any) -> str:
    return getattr(only, "__name__", "the condition")


def _deferred(work: Work, chosen: Route, reason: str, cause: Cause) -> Outcome:
    return Outcome(
        step=work.step.name,
        status="deferred",
        reason=reason,
        cause=cause,
        sensitivity=work.features.sensitivity,
        route=chosen,
    )
