"""The engine of a plan: it routes and counts every document of a flow, and calls no model."""

from __future__ import annotations

import asyncio
import copy
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import cached_property
from typing import Any, TypeVar

from tierwise.cascade import Job, RunContext
from tierwise.cascade.call_building import build_call
from tierwise.cascade.few_shot import conversation
from tierwise.cascade.job import Work
from tierwise.cascade.parts import parts_of
from tierwise.cascade.routing import (
    condition_name,
    features_of,
    no_attempt_reason,
    outcome_of,
    review_reason,
    route_for,
    routed,
    skipped_by_condition,
    skipped_by_earlier_step,
)
from tierwise.cascade.transport import transport_setting
from tierwise.engine import RunRecords, Unknown
from tierwise.errors import BudgetExceeded
from tierwise.ledger import DeferredRow, RunFolders, RunRow, RunState, SummaryRow
from tierwise.ledger.views.history import Key, Past
from tierwise.plan.assumed_outcomes import (
    AssumedOutcome,
    applies,
    assumed_steps,
    chance,
    known_value,
    merged_assumed,
    placeholder_value,
)
from tierwise.plan.dry_run_engine import DryRunEngine
from tierwise.plan.expected_cost import (
    Expectation,
    expect,
    expect_own,
    highest_cost,
    prompts_of,
)
from tierwise.plan.missing_certificates import missing_certificate
from tierwise.plan.paid_answers import UnpaidCall, paid_cascade
from tierwise.plan.plan import Plan
from tierwise.plan.planned_transports import PlannedTransports
from tierwise.plan.totals import ZERO, Totals
from tierwise.policy.budget import Budget
from tierwise.policy.by_field import share_whole
from tierwise.policy.catalog import Model
from tierwise.policy.router import Policy, tokens_for, unroutable_cause, worst_case
from tierwise.policy.rules import Features, RouteRule, Rules
from tierwise.policy.transport import TransportSetting, Turnaround
from tierwise.project import Project
from tierwise.records import (
    GROUP_BY,
    Batch,
    Document,
    Message,
    Outcome,
    Route,
    Status,
)
from tierwise.text.amounts import plural
from tierwise.text.tokens import PER_MESSAGE, count_tokens, estimate_prompt_tokens

T = TypeVar("T")
# Members of a group, where no run of the flow says how many there are.
_GROUP_SIZE = 5
# Documents whose few-shot examples are counted; those of the others are taken to be as long.
_COUNTED_DOCUMENTS = 5


class Planner(DryRunEngine):
    """Replaces an engine while a flow is planned.

    Routes and prompts are the same; no model is called, and nothing goes on record.
    """

    def __init__(self, project: Project, env: Mapping[str, str] | None = None) -> None:
        super().__init__(project, env)
        self.totals = Totals()
        self.budget_usd: Decimal | None = None
        self.time_left_s: float | None = None  # until the run's deadline
        # by step and model: call hashes
        self._paid: dict[tuple[str, str], frozenset[str]] = {}
        self._expectations: dict[tuple[str, str, int], Expectation] = {}
        self._asked: set[int] = set()  # hashes of document, prompt and model
        self._token_counts: dict[str, int] = {}  # by text
        self._example_counts: dict[tuple[str, str, str], list[int]] = {}
        self._paid_cascade = paid_cascade(self.ledger)
        # In this thread: a hop to the engine's loop would take longer than a paid answer.
        self._runner = asyncio.Runner()

    def close(self) -> None:
        """Close the event loop and the ledger."""
        self._runner.close()
        super().close()

    def start_run(
        self,
        flow: str,
        *,
        budget_usd: Decimal | None = None,
        tags: Mapping[str, str] | None = None,
        deadline: float | None = None,
        transport: TransportSetting | None = None,
        detached: bool = False,
        **_: Any,
    ) -> RunContext:
        """Return a run that is not recorded.

        Its budget is its own, or the rest of the rules' limits where that is less.
        """
        self.budget_usd = budget_usd
        self.time_left_s = math.inf if detached else None
        if deadline is not None:
            self.time_left_s = deadline - time.time()
        shared_limits = self.policy.rules.budget.shared(tags or {})
        left_of_shared = self.ledger.run_budget(shared_limits).left
        limits = [usd for usd in (budget_usd, left_of_shared) if usd is not None]
        limit = max(min(limits), ZERO) if limits else None
        return RunContext(
            id=f"plan of {flow}",
            policy=self.policy,
            budget=Budget(limit),
            deadline=deadline,
            transport=transport,
            detached=detached,
        )

    def stop_run(self, run: RunContext) -> None:
        """Do nothing: no call is made."""

    def finish_run(
        self, run: RunContext, state: RunState, folders: Sequence[RunFolders] = ()
    ) -> None:
        """Do nothing: there was no run."""

    @property
    def records(self) -> RunRecords:
        """The records of a planned run: no documents and no cost."""
        return _PlannedRecords(self.budget_usd, self.policy.hash)

    def record(self, run: RunContext, document: Document, outcome: Outcome) -> None:  # noqa: ARG002
        """Count a document that could not be read, or went through a step without a model."""
        if not document.members:
            self.totals.documents.add(document.id)
        if outcome.status == "deferred":
            self.totals.add_deferred(outcome.step, document.id, outcome.reason)

    def evaluate(
        self, function: Callable[[Document], T], document: Document
    ) -> T | Unknown:
        """Return what a flow's function gives; UNKNOWN when it reads an assumed outcome."""
        return known_value(function, document)

    def assumed_group_size(self, flow: str, documents: int) -> int:
        """Return the size of groups whose keys are not known yet, and note the assumption."""
        mean = self.ledger.groups.mean_members(flow)
        size = _GROUP_SIZE if mean is None else max(1, round(mean))
        source = "as no run says more" if mean is None else "as in the last run"
        assumption = (
            f"that groups have {plural(size, 'document')}, {source} "
            "(their keys are not known yet)"
        )
        self.totals.assumed[assumption] += documents
        return size

    def start_groups(
        self,
        run: RunContext,
        groups: Sequence[tuple[Document, Sequence[Document]]],
    ) -> list[Document]:
        """Return the groups, as likely to go on as all of their members together."""
        return [self._started_group(run, *group) for group in groups]

    def _started_group(
        self, run: RunContext, group: Document, members: Sequence[Document]
    ) -> Document:
        waits = group.outcomes.get(GROUP_BY)
        if waits:
            self.record(run, group, waits)
            return group
        likely = math.prod(chance(member) for member in members)
        if likely == 1.0:
            return group
        outcome = AssumedOutcome(
            step=GROUP_BY,
            status="accepted",
            sensitivity=group.sensitivity,
            chance=likely,
        )
        return group.with_outcome(outcome)

    def run_job(self, job: Job, batch: Batch) -> Batch:
        """Return the batch with every document's outcome of a job's step, as far as it is known."""
        return batch.with_documents(
            tuple(self._with_outcome(job, document) for document in batch.load())
        )

    def plan(self, flow: str, parameters: Mapping[str, str]) -> Plan:
        """Return everything that was planned so far, as one value."""
        totals = self.totals
        shadow = self.policy.rules.shadow
        seconds_least, seconds_most = totals.seconds()
        shadow_share = shadow.money if shadow.share else 0.0  # of the run's spending
        return Plan(
            flow=flow,
            parameters=dict(parameters),
            policy_hash=self.policy.hash,
            made_at=time.time(),
            documents=len(totals.documents),
            budget_usd=self.budget_usd,
            routes=totals.routes,
            rows=totals.rows(self._transports()),
            waiting=totals.waiting,
            skipped=dict(totals.skipped),
            assumed=dict(totals.assumed),
            expected_deferred=totals.expected_deferred,
            missing=tuple(totals.missing.values()),
            references=totals.references,
            shadow=shadow_share,
            seconds_least=seconds_least,
            seconds_most=seconds_most,
        )

    def _transports(self) -> PlannedTransports:
        """Return what the choice between online calls and batches depends on."""
        return PlannedTransports(
            time_left_s=self.time_left_s,
            turnaround=lambda model: Turnaround.of(
                self.ledger.batches.seconds_taken(model)
            ),
        )

    # ---- one document

    def _with_outcome(self, job: Job, document: Document) -> Document:
        """Return the document with the step's outcome, and count it."""
        # a group's documents were counted already
        if not document.members:
            self.totals.documents.add(document.id)
            if "read" not in document.outcomes:
                self.totals.readable.add(document.id)
        outcome = self._skipped(job, document) or self._outcome_of_parts(job, document)
        if outcome.status == "skipped":
            self.totals.skipped[job.step.name] += 1
        if outcome.status == "deferred":
            self.totals.add_deferred(job.step.name, document.id, outcome.reason)
        self._notify(document, outcome)
        return document.with_outcome(outcome)

    def _skipped(self, job: Job, document: Document) -> Outcome | None:
        skipped = skipped_by_earlier_step(job, document)
        if skipped or job.only is None:
            return skipped
        is_applicable = applies(job.only, document)
        if is_applicable is None:
            assumption = (
                f"that {job.step.name} applies ({condition_name(job)} is not known yet)"
            )
            self.totals.assumed[assumption] += 1
        if is_applicable is False:
            return skipped_by_condition(job, document)
        return None

    def _outcome_of_parts(self, job: Job, document: Document) -> Outcome:
        """Return the outcome of a document; a long one is merged from its parts."""
        outcomes = [self._outcome(job, part) for part in parts_of(job, document)]
        if len(outcomes) == 1:
            return outcomes[0]
        return merged_assumed(job.step, outcomes)

    def _outcome(self, job: Job, document: Document) -> Outcome:
        """Route the document; return its paid outcome, or the one that is assumed."""
        if job.step.own is not None:
            return self._outcome_without_model(job, document)
        messages = job.prompt.render(document, {"part": None, **job.parameters})
        features = self._features(job, document, messages)
        work = Work(
            job=job, document=document, parameters=job.parameters, features=features
        )
        chosen = route_for(work, self.policy, job.run.budget.left)
        work.transport = transport_setting(job, chosen)
        self._note_missing_certificate(work, chosen)
        if not chosen.models:
            reason = no_attempt_reason(chosen)
            return outcome_of(
                work, chosen, "deferred", reason=reason, cause=unroutable_cause(chosen)
            )
        first_tier = self._model(chosen.models[0]).tier
        self.totals.add_route(chosen, first_tier, features.prompt_tokens)
        self._add_references(work, chosen)
        outcome, models = self._paid_outcome(work, chosen, messages)
        if outcome is None:
            outcome = self._assumed_outcome(work, chosen, models, messages)
        if chosen.review == "human" and outcome.status == "accepted":
            reason = review_reason(chosen)
            return outcome_of(work, chosen, "deferred", reason=reason, cause="review")
        return outcome

    def _outcome_without_model(self, job: Job, document: Document) -> Outcome:
        """Return the outcome of a step without a model: its recorded result, or an assumed one.

        A plan calls no function, as it may do more than return a value.
        """
        tokens = self._count_tokens(document.text)
        work = Work(
            job=job,
            document=document,
            parameters=job.parameters,
            features=features_of(job, document, tokens=tokens, prompt_tokens=tokens),
        )
        chosen = route_for(work, self.policy, job.run.budget.left)
        if not chosen.models:
            reason = no_attempt_reason(chosen)
            return outcome_of(
                work, chosen, "deferred", reason=reason, cause=unroutable_cause(chosen)
            )
        name = chosen.models[0]
        model = job.run.policy.catalog.model(name)
        self.totals.add_route(chosen, model.tier, tokens)
        expectation = expect_own(
            self._history.get((job.step.name, job.prompt.label, name))
        )
        reach = chance(document)
        if not assumed_steps(document) and not self.fresh:
            outcome = self._recorded_outcome(work)
            if outcome is not None:
                self.totals.add_reused(job.step.name, model, expectation, reach, 1)
                return replace(outcome, route=chosen)
        budget = job.run.budget
        assert isinstance(budget, Budget)  # noqa: S101 - see `start_run`
        cost = model.most_cost(0, 0) or ZERO
        try:
            reserved = budget.reserve(cost, unpriced_allowed=False)
        except BudgetExceeded as error:
            return outcome_of(
                work, chosen, "deferred", reason=f"budget: {error}", cause="budget"
            )
        self.totals.add_call(
            job.step.name,
            model,
            expectation,
            document_id=document.id,
            prompts=(0,),
            reach=reach,
            cost=cost,
            most=cost,
            most_calls=1,
        )
        budget.settle(reserved, cost * Decimal(str(reach)))
        passes = expectation.passes
        self.totals.expected_deferred += 0.0 if passes is None else reach * (1 - passes)
        return AssumedOutcome(
            step=job.step.name,
            status="accepted",
            value=placeholder_value(job.step.schema(job.parameters), 0),
            model=name,
            sensitivity=work.features.sensitivity,
            route=chosen,
            chance=1.0 if passes is None else passes,
        )

    def _recorded_outcome(self, work: Work) -> Outcome | None:
        """Return the outcome that the results on record give; None where there is none."""
        run = replace(work.run, budget=copy.copy(work.run.budget))
        job = replace(work.job, run=run, only=None)
        try:
            done = self._runner.run(self._paid_cascade.run(job, work.document))
        except UnpaidCall:
            return None
        if done.outcomes[work.step.name].attempts == ():
            return None  # such as a body that reads an outcome which is not known yet
        return done.outcomes[work.step.name]

    def _features(
        self, job: Job, document: Document, messages: tuple[Message, ...]
    ) -> Features:
        """Return a document's features. Outcomes that are only assumed decide nothing."""
        # the system message is the same for all documents of a step
        system, *rest = messages
        system_tokens = PER_MESSAGE + self._count_tokens(system.content)
        features = features_of(
            job,
            document,
            tokens=self._count_tokens(document.text),
            prompt_tokens=estimate_prompt_tokens(rest) + system_tokens,
        )
        assumed = assumed_steps(document)
        if not assumed:
            return features
        step = job.step.name
        if not assumed.isdisjoint(self._decisive_steps.get(step, frozenset())):
            assumption = (
                f"that no rule about outcomes holds for {step} (they are not known yet)"
            )
            self.totals.assumed[assumption] += 1
        known = {
            name: value
            for name, value in features.outcomes.items()
            if name not in assumed
        }
        return replace(features, outcomes=known)

    # ---- paid answers

    def _paid_outcome(
        self, work: Work, chosen: Route, messages: tuple[Message, ...]
    ) -> tuple[Outcome | None, tuple[str, ...]]:
        """Return the outcome, where paid answers give it; else the models that must be asked."""
        models = chosen.models[: self.policy.rules.escalate.most + 1]
        if self.fresh or not self._is_paid(work, models[0], messages):
            return None, models
        # A copy: the cascade reserves for calls that are not made.
        run = replace(work.run, budget=copy.copy(work.run.budget))
        job = replace(
            work.job,
            run=run,
            only=None,
            models=chosen.models,
            thresholds=chosen.thresholds,
        )
        try:
            done = self._runner.run(self._paid_cascade.run(job, work.document))
        except UnpaidCall as unpaid:
            position = chosen.models.index(unpaid.model)
            for name in chosen.models[:position]:
                self._add_reused(work, name, 1)
            return None, models[position:] or (unpaid.model,)
        outcome = replace(done.outcomes[work.step.name], route=chosen)
        calls = Counter(attempt.model for attempt in outcome.attempts)
        for name, number in calls.items():
            self._add_reused(work, name, number)
        return outcome, ()

    def _is_paid(self, work: Work, name: str, messages: tuple[Message, ...]) -> bool:
        """Return True if the first call to a model was paid before."""
        paid = self._paid_calls(work.step.name, name)
        if not paid:
            return False
        model = self._model(name)
        if model.uses_few_shot:
            messages = conversation(work, model)
        return build_call(work, model, messages).hash in paid

    def _add_reused(self, work: Work, name: str, calls: int) -> None:
        expectation = self._expectation(work, name)
        reach = chance(work.document)
        self.totals.add_reused(
            work.step.name, self._model(name), expectation, reach, calls
        )

    # ---- assumed answers

    def _assumed_outcome(
        self,
        work: Work,
        chosen: Route,
        models: tuple[str, ...],
        messages: tuple[Message, ...],
    ) -> Outcome:
        """Count the cost of asking these models in order; return the assumed outcome."""
        budget = work.run.budget
        assert isinstance(budget, Budget)  # noqa: S101 - see `start_run`
        try:
            reserved = self._reserve(work, budget, models[0])
        except BudgetExceeded as error:
            return outcome_of(
                work, chosen, "deferred", reason=f"budget: {error}", cause="budget"
            )
        before = chance(work.document)
        reach = before  # the probability that the document gets to a model
        spent = ZERO
        for name in models:
            spent += self._add_call(work, self._model(name), reach, messages)
            passes = self._expectation(work, name).passes
            if name == models[0] and name in chosen.keeps:
                passes = self._share_whole(work, chosen)
            reach *= 0.0 if passes is None else 1 - passes
        budget.settle(reserved, spent)
        self.totals.expected_deferred += reach
        tokens = self._expectation(work, models[0]).completion_tokens
        return AssumedOutcome(
            step=work.step.name,
            status="accepted",
            value=placeholder_value(work.step.schema(work.parameters), tokens),
            model=models[0],
            sensitivity=work.features.sensitivity,
            route=chosen,
            chance=1 - reach / before if before else 0.0,
        )

    def _reserve(self, work: Work, budget: Budget, name: str) -> Decimal:
        """Reserve the worst case of a call. Raises BudgetExceeded."""
        limit = work.prompt.head.max_output_tokens
        model = self._model(name)
        worst = worst_case(model, tokens_for(model, work.features), limit)
        is_unpriced_allowed = name in self.policy.rules.budget.allow_unpriced
        return budget.reserve(worst, unpriced_allowed=is_unpriced_allowed)

    def _add_call(
        self, work: Work, model: Model, reach: float, messages: tuple[Message, ...]
    ) -> Decimal:
        """Count what one model costs, and return the expected USD."""
        expectation = self._expectation(work, model.name)
        step = work.step.name
        # The document's hash is part of it since placeholder values make prompts alike.
        identity = hash((step, model.name, messages, work.document.hash))
        if identity in self._asked and not self.fresh:
            # An equal document was planned before: its answer is paid once.
            self.totals.add_reused(step, model, expectation, reach, 1)
            return ZERO
        self._asked.add(identity)
        prompts = self._prompts(work, model, expectation)
        cost = expectation.cost(model, prompts)
        reask = self._most_reasks(model)
        self.totals.add_call(
            step,
            model,
            expectation,
            document_id=work.document.id,
            prompts=prompts,
            reach=reach,
            cost=cost,
            most=highest_cost(
                model, prompts, work.prompt.head.max_output_tokens, reask=reask
            ),
            # Each answer may be repaired, and the last one asked for again.
            most_calls=2 * len(prompts) + reask,
            batch_cost=self._batch_cost(work, model, expectation, prompts),
            setting=work.transport,
        )
        return (cost or ZERO) * Decimal(str(reach))

    def _batch_cost(
        self,
        work: Work,
        model: Model,
        expectation: Expectation,
        prompts: tuple[int, ...],
    ) -> Decimal | None:
        """Return the USD of a document in batches; None where it may be in none."""
        if model.batch is None or work.transport == "online":
            return None
        stores_days = model.batch.stores_days
        if self.policy.rules.batch_forbidden(work.features, stores_days):
            return None
        return expectation.cost(model, prompts, "batch")

    def _prompts(
        self, work: Work, model: Model, expectation: Expectation
    ) -> tuple[int, ...]:
        """Return the tokens of each prompt that a document takes on a model."""
        tokens = tokens_for(model, work.features)
        if model.uses_few_shot:
            tokens += self._example_tokens(work, model)
        return prompts_of(
            model,
            tokens,
            work.features.tokens,
            work.prompt.head.max_output_tokens,
            expectation.completion_tokens,
            splits=work.step.splits is not None,
        )

    def _example_tokens(self, work: Work, model: Model) -> int:
        """Return the mean tokens of a model's few-shot examples, counted for a few documents."""
        key = (work.step.name, model.name, work.features.sensitivity)
        counts = self._example_counts.setdefault(key, [])
        if len(counts) < _COUNTED_DOCUMENTS:
            with_examples = estimate_prompt_tokens(conversation(work, model))
            counts.append(with_examples - work.features.prompt_tokens)
        return sum(counts) // len(counts)

    # ---- comparisons

    def _add_references(self, work: Work, chosen: Route) -> None:
        """Count the cost of this document on the strongest models."""
        own = self._expectation(work, chosen.models[0])
        allowed = routed(work, self._strongest_first, None).models
        strongest = {
            "the strongest that is allowed and available": allowed[0]
            if allowed
            else None,
            "the strongest with a price": self._strongest_priced,
        }
        for title, name in strongest.items():
            if name is None:
                continue
            model = self._model(name)
            expectation = self._expectation(work, name).like(own)
            prompts = self._prompts(work, model, expectation)
            self.totals.add_reference(title, name, expectation.cost(model, prompts))

    def _note_missing_certificate(self, work: Work, chosen: Route) -> None:
        step = work.step.name
        if step in self.totals.missing:
            return
        remedy = missing_certificate(self, work.job, chosen)
        if remedy:
            self.totals.missing[step] = remedy

    # ---- what is read once

    def _expectation(self, work: Work, name: str) -> Expectation:
        step = work.step.name
        limit = work.prompt.head.max_output_tokens
        key = (step, name, limit)
        if key not in self._expectations:
            certificate = self.policy.certificates.find(step, [name])
            if certificate and certificate.void_reasons(work.job.current):
                certificate = None
            if certificate is None:
                # what a model keeps by its agreement with a teacher, it keeps all the same
                agreement = self.policy.certificates.find_agreement(step, [name])
                if agreement and not agreement.void_reasons(work.job.current):
                    certificate = agreement
            past = self._history.get((step, work.prompt.label, name))
            model = self._model(name)
            self._expectations[key] = expect(
                model, limit, past, certificate, reask=self._most_reasks(model)
            )
        return self._expectations[key]

    def _share_whole(self, work: Work, chosen: Route) -> float | None:
        """Return the share of documents that the first model keeps whole, in a step by field."""
        return share_whole(
            self.policy.certificates,
            work.step.name,
            chosen.models,
            chosen.keeps,
            tuple(work.step.returns.model_fields),
        )

    def _most_reasks(self, model: Model) -> int:
        """Return how often a model may be asked again; a trained classifier never is."""
        if model.learned:
            return 0
        return self.policy.rules.escalate.reask

    def _paid_calls(self, step: str, model: str) -> frozenset[str]:
        key = (step, model)
        if key not in self._paid:
            self._paid[key] = self.ledger.history.paid_calls(step, model)
        return self._paid[key]

    def _count_tokens(self, text: str) -> int:
        if text not in self._token_counts:
            self._token_counts[text] = count_tokens(text)
        return self._token_counts[text]

    def _model(self, name: str) -> Model:
        return self.policy.catalog.model(name)

    @cached_property
    def _history(self) -> Mapping[Key, Past]:
        return self.ledger.history.past()

    @cached_property
    def _by_strength(self) -> list[str]:
        """The language models, strongest first; a classifier knows one step only."""
        return [
            name for name in self.policy.by_strength if not self._model(name).learned
        ]

    @cached_property
    def _strongest_priced(self) -> str | None:
        for name in self._by_strength:
            if self._model(name).price != "unknown":
                return name
        return None

    @cached_property
    def _strongest_first(self) -> Policy:
        """The policy with one route: the strongest model that may see the document."""
        strongest = RouteRule.model_validate(
            {"name": "strongest", "try": self._by_strength}
        )
        rules = self.policy.rules
        only_strongest = Rules(
            version=1, guards=rules.guards, routes=(strongest,), budget=rules.budget
        )
        return replace(self.policy, rules=only_strongest)

    @cached_property
    def _decisive_steps(self) -> Mapping[str, frozenset[str]]:
        """Step -> steps whose outcomes its guards and routes look at."""
        rules = self.policy.rules
        conditions = [guard.when for guard in rules.guards]
        conditions += [rule.when for rule in rules.routes]
        decisive: dict[str, frozenset[str]] = {}
        for prompt in self.prompts:
            step = prompt.head.step
            read: set[str] = set()
            for when in conditions:
                if when.step is None or step in when.step:
                    read.update(path.partition(".")[0] for path in when.outcomes)
            decisive[step] = frozenset(read)
        return decisive


class _PlannedRecords:
    """The records of a planned run, in which nothing was done yet."""

    def __init__(self, budget_usd: Decimal | None, policy_hash: str) -> None:
        self._budget_usd = budget_usd
        self._policy_hash = policy_hash

    def resolve(self, name: str, /) -> RunRow:
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
