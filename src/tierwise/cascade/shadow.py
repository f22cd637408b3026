"""Shadows: a cheaper model's answer to a random sample of documents, within a share of the cost.

Nothing in the run changes through it. A document is drawn by its hash and the run's id, not by its
outcome, so that the sample is representative.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from tierwise.cascade.answers import Answer, Answers
from tierwise.cascade.attempts import FailedCall
from tierwise.cascade.few_shot import conversation
from tierwise.cascade.job import Work
from tierwise.errors import BudgetExceeded
from tierwise.ledger import CallLedger
from tierwise.ledger.people.samples import Audit, identity_of, item_id
from tierwise.policy.catalog import Model
from tierwise.policy.router import rejection_of, tokens_for, worst_case
from tierwise.policy.sequential_test import drawn
from tierwise.records import Attempt, Outcome, Usage
from tierwise.steps.row_faults import accepts_every_answer
from tierwise.steps.step import Step
from tierwise.text.tokens import estimate_prompt_tokens

ZERO = Decimal(0)


@dataclass
class _ShadowBudget:
    """USD that a run's shadows spent, and the expected cost of those in flight."""

    spent: Decimal = ZERO
    reserved: Decimal = ZERO


class Shadows:
    """Samples accepted outcomes of one process. Async; lives on the engine's event loop."""

    def __init__(self, answers: Answers, ledger: CallLedger) -> None:
        self._answers = answers
        self._ledger = ledger
        self._asked: dict[str, Counter[str]] = {}  # step -> model -> samples so far
        self._budgets: dict[str, _ShadowBudget] = {}  # by run
        self._failed: set[str] = set()  # models that failed: not asked again

    async def follow(
        self, work: Work, outcome: Outcome, stopped: Collection[str] = ()
    ) -> None:
        """Sample this accepted outcome if it is drawn, with a shadow's answer where one is allowed.

        `stopped` are models that are out of order. Raises nothing for a model's faults.
        """
        share = work.run.policy.rules.shadow.share
        if outcome.status != "accepted" or work.step.own is not None:
            return
        if not drawn(share, work.run.id, work.document.hash, work.step.name):
            return
        samples = [_sample_of_accepted(work, outcome)]
        costs = cheaper_models(work, outcome)
        for unusable in (*stopped, *self._failed):
            costs.pop(unusable, None)
        name = await self._candidate(work, costs)
        if name:
            model = work.run.policy.catalog.model(name)
            answer = await self._ask(work, model, costs[name])
            if answer:
                samples.append(_sample_of_shadow(work, outcome, model, answer))
        await self._ledger.samples.record(samples)

    async def _candidate(self, work: Work, costs: Mapping[str, Decimal]) -> str | None:
        """Return the affordable model with the fewest samples, and count it as asked."""
        step = work.step.name
        if step not in self._asked:
            count = self._ledger.samples.shadow_answers_by_model
            counts = await asyncio.to_thread(count, step)
            self._asked.setdefault(step, Counter(counts))
        asked = self._asked[step]
        affordable = [name for name in costs if self._is_affordable(work, costs[name])]
        if not affordable:
            return None
        name = min(affordable, key=lambda name: (asked[name], costs[name], name))
        asked[name] += 1
        return name

    def _is_affordable(self, work: Work, cost: Decimal) -> bool:
        """Return True if this stays within the share of the run's other spending, or is free."""
        if cost == 0:
            return True
        budget = self._budget(work)
        share = Decimal(str(work.run.policy.rules.shadow.money))
        limit = share * (work.run.budget.spent - budget.spent)
        return budget.spent + budget.reserved + cost <= limit

    async def _ask(self, work: Work, model: Model, cost: Decimal) -> Answer | None:
        shadow = replace(work, attempts=[])
        budget = self._budget(work)
        budget.reserved += cost
        try:
            return await self._answers.ask(shadow, model, "shadow")
        except FailedCall:  # its attempts are on record
            self._failed.add(model.name)
        except BudgetExceeded:  # nothing was sent
            pass
        finally:
            for attempt in shadow.attempts:
                await self._ledger.record_verdicts(
                    work.run.id, attempt.id, attempt.verdicts
                )
                budget.spent += _worst_cost(work, model, attempt)
            budget.reserved -= cost
        return None

    def _budget(self, work: Work) -> _ShadowBudget:
        return self._budgets.setdefault(work.run.id, _ShadowBudget())


def cheaper_models(work: Work, outcome: Outcome) -> dict[str, Decimal]:
    """Return the uncertified models that are allowed and expected to cost less, with that cost."""
    policy = work.run.policy
    answered = outcome.attempts[-1]
    cost_now = expected_cost(work, policy.catalog.model(answered.model), answered)
    tried = {attempt.model for attempt in outcome.attempts}
    cheaper = {}
    for name, model in policy.catalog.models.items():
        if name in tried or not _is_allowed(work, model) or _is_certified(work, name):
            continue
        cost = expected_cost(work, model, answered)
        if cost is None:
            continue
        # Only a free model is surely cheaper than an unknown cost.
        is_cheaper = cost == 0 if cost_now is None else cost < cost_now
        if is_cheaper:
            cheaper[name] = cost
    return cheaper


def _is_allowed(work: Work, model: Model) -> bool:
    rejection = rejection_of(
        work.run.policy,
        model,
        work.features,
        max_output_tokens=work.prompt.head.max_output_tokens,
        budget_left=work.run.budget.left,
    )
    return rejection is None


def _is_certified(work: Work, name: str) -> bool:
    policy = work.run.policy
    step = work.step.name
    floor = policy.floor(step)
    if floor is None:
        return False
    certificate = policy.certificates.certified(step, [name], floor, work.job.current)
    return certificate is not None


def expected_cost(work: Work, model: Model, answered: Attempt) -> Decimal | None:
    """Return the USD for an answer as long as the given one, with this model's own prompt."""
    if answered.usage is None:
        return None
    prompt = estimate_prompt_tokens(conversation(work, model))
    return model.cost(Usage(prompt, answered.usage.completion_tokens))


def _worst_cost(work: Work, model: Model, attempt: Attempt) -> Decimal:
    """Return an attempt's cost; its worst case when the cost is unknown."""
    if attempt.cost is not None:
        return attempt.cost
    limit = work.prompt.head.max_output_tokens
    return worst_case(model, tokens_for(model, work.features), limit) or ZERO


def agreement(step: Step, shadow: Any, accepted: Any) -> bool | None:
    """Return True if two answers are the same by the step's own measure, None if unknown.

    A measure that accepts every answer says nothing, since golden sets give it other fields.
    """
    if shadow is None:
        return None
    if shadow == accepted:
        return True
    if step.correct is None:
        return False
    try:
        if accepts_every_answer(step, accepted):
            return None
        return bool(step.correct(shadow, accepted))
    except Exception:  # noqa: BLE001 - the project's function, made for golden sets
        return None  # a person decides


def _sample_of_accepted(work: Work, outcome: Outcome) -> Audit:
    asked = tuple(dict.fromkeys(attempt.model for attempt in outcome.attempts))
    sample = _sample(work, outcome, "accepted", asked, value=outcome.value, agreed=None)
    golden_hash = _golden_hash(work, asked)
    return replace(sample, identity=_identity(work, asked, golden_hash))


def _golden_hash(work: Work, asked: tuple[str, ...]) -> str:
    """Return the hash of the golden set that certified a chain which begins with these models."""
    # Sorted, so that the certificate of these models alone comes before those of longer chains.
    for certificate in work.run.policy.certificates.all:
        if (
            certificate.step == work.step.name
            and certificate.models[: len(asked)] == asked
        ):
            return certificate.golden_hash
    return ""


def _sample_of_shadow(
    work: Work, outcome: Outcome, model: Model, answer: Answer
) -> Audit:
    asked = (model.name,)
    if answer.output is None or answer.failed:
        # The checks would have rejected the answer: it is wrong, as in certification.
        sample = _sample(work, outcome, "shadow", asked, value=None, agreed=None)
        return replace(
            sample, right=False, reviewer="checks", reviewed_at=sample.recorded_at
        )
    value = answer.output.model_dump(mode="json")
    agreed = agreement(work.step, value, outcome.value)
    return _sample(work, outcome, "shadow", asked, value=value, agreed=agreed)


def _sample(
    work: Work,
    outcome: Outcome,
    role: str,
    asked: tuple[str, ...],
    *,
    value: Any,
    agreed: bool | None,
) -> Audit:
    return Audit(
        id=f"{item_id(work.run.id, work.step.name, work.document.hash)}.{role}",
        run_id=work.run.id,
        document_id=work.document.id,
        document_hash=work.document.hash,
        step=work.step.name,
        model=" > ".join(asked),
        identity=_identity(work, asked),
        value=value,
        accepted_model=outcome.model or asked[-1],
        accepted=outcome.value,
        agreed=agreed,
        recorded_at=time.time(),
    )


def _identity(work: Work, asked: tuple[str, ...], golden_hash: str = "") -> str:
    current = work.job.current
    identities = {name: current.identities[name] for name in asked}
    return identity_of(identities, current.prompt_hash, current.step_hash, golden_hash)
