"""Shadows: how would a cheaper model have answered? Asked by chance and for little money; nothing is changed by it.

Whether a document is picked depends on its hash and the run's id, not on what came out, so that what is
learned of the picked ones holds for all.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from tierwise.cascade.answers import Answer, Answers, conversation
from tierwise.cascade.attempts import FailedCall, Work
from tierwise.errors import BudgetExceeded
from tierwise.ledger import Ledger
from tierwise.ledger.people.samples import Audit, identity_of, item_id
from tierwise.policy.catalog import Model
from tierwise.policy.router import rejection_of, worst_case
from tierwise.policy.sequential_test import drawn
from tierwise.records import Attempt, Outcome, Usage
from tierwise.steps.step import Step
from tierwise.text.tokens import estimate_prompt_tokens

ZERO = Decimal(0)


@dataclass
class _Purse:
    """USD that a run's shadows spent, and what is expected of those under way."""

    spent: Decimal = ZERO
    promised: Decimal = ZERO


class Shadows:
    """Follows accepted outcomes of one process. Async; lives on the engine's event loop."""

    def __init__(self, answers: Answers, ledger: Ledger) -> None:
        self._answers = answers
        self._ledger = ledger
        self._asked: dict[str, Counter[str]] = {}  # step -> model -> audits so far
        self._purses: dict[str, _Purse] = {}  # by run
        self._failed: set[str] = (
            set()
        )  # models that could not be called: not worth waiting for again

    async def follow(self, work: Work, outcome: Outcome, out: Collection[str] = ()) -> None:
        """Where chance picks this accepted outcome: put it up for a label, with a shadow's answer where one may be had.

        `out` are models that are out of order. Raises nothing for what a model can do wrong.
        """
        share = work.run.policy.rules.shadow.share
        if outcome.status != "accepted" or not drawn(
            share, work.run.id, work.document.hash, work.step.name
        ):
            return
        audits = [_of_accepted(work, outcome)]
        costs = {
            name: cost
            for name, cost in cheaper(work, outcome).items()
            if name not in {*out, *self._failed}
        }
        if name := await self._candidate(work, costs):
            model = work.run.policy.catalog.model(name)
            if answer := await self._ask(work, model, costs[name]):
                audits.append(_of_shadow(work, outcome, model, answer))
        await self._ledger.audits.record(audits)

    async def _candidate(self, work: Work, costs: Mapping[str, Decimal]) -> str | None:
        """Of these models, the one with the fewest audits that can be paid for; it counts as asked."""
        step = work.step.name
        if step not in self._asked:
            counts = await asyncio.to_thread(self._ledger.audits.shadowed, step)
            self._asked.setdefault(step, Counter(counts))
        asked = self._asked[step]
        affordable = [name for name in costs if self._affords(work, costs[name])]
        name = min(affordable, key=lambda name: (asked[name], costs[name], name), default=None)
        if name:
            asked[name] += 1
        return name

    def _affords(self, work: Work, cost: Decimal) -> bool:
        """Whether this keeps within the share of what the run spent otherwise. What costs nothing always does."""
        run = work.run
        run_budget = self._purse(work)
        most = Decimal(str(run.policy.rules.shadow.money)) * (run.budget.spent - run_budget.spent)
        return cost == 0 or run_budget.spent + run_budget.promised + cost <= most

    async def _ask(self, work: Work, model: Model, cost: Decimal) -> Answer | None:
        shadow = replace(work, trail=[])
        run_budget = self._purse(work)
        run_budget.promised += cost
        try:
            return await self._answers.ask(shadow, model, "shadow")
        except FailedCall:  # its attempts are on record
            self._failed.add(model.name)
        except BudgetExceeded:  # nothing was sent
            pass
        finally:
            for attempt in shadow.trail:
                await self._ledger.record_verdicts(work.run.id, attempt.id, attempt.verdicts)
            run_budget.promised -= cost
            run_budget.spent += sum((_paid(work, model, attempt) for attempt in shadow.trail), ZERO)
        return None

    def _purse(self, work: Work) -> _Purse:
        return self._purses.setdefault(work.run.id, _Purse())


def cheaper(work: Work, outcome: Outcome) -> dict[str, Decimal]:
    """The models that may be asked instead and should cost less, without a certificate, with what each should cost."""
    policy = work.run.policy
    answered = outcome.attempts[-1]
    used = expected(work, policy.catalog.model(answered.model), answered)
    tried = {attempt.model for attempt in outcome.attempts}
    found = {}
    for name, model in policy.catalog.models.items():
        if name in tried or not _may_be_asked(work, model) or _certified(work, name):
            continue
        cost = expected(work, model, answered)
        if cost is not None and (cost == 0 if used is None else cost < used):
            found[name] = cost
    return found


def _may_be_asked(work: Work, model: Model) -> bool:
    limit = work.prompt.head.max_output_tokens
    left = work.run.budget.left
    return (
        rejection_of(
            work.run.policy, model, work.features, max_output_tokens=limit, budget_left=left
        )
        is None
    )


def _certified(work: Work, name: str) -> bool:
    policy = work.run.policy
    step = work.step.name
    floor = policy.rules.floors.get(step)
    return (
        floor is not None
        and policy.certificates.certified(step, [name], floor, work.job.current) is not None
    )


def expected(work: Work, model: Model, answered: Attempt) -> Decimal | None:
    """USD for an answer of the same length as the one at hand, from a model with the prompt that it would get."""
    if answered.usage is None:
        return None
    prompt = estimate_prompt_tokens(conversation(work, model))
    return model.cost(Usage(prompt, answered.usage.completion_tokens))


def _paid(work: Work, model: Model, attempt: Attempt) -> Decimal:
    """What an attempt cost; at worst, where nobody knows."""
    if attempt.cost is not None:
        return attempt.cost
    limit = work.prompt.head.max_output_tokens
    return worst_case(model, work.features.prompt_tokens, limit) or ZERO


def agreement(step: Step, shadow: Any, accepted: Any) -> bool | None:
    """Whether two answers are the same by the step's own measure; None where that can't tell.

    A measure that asks nothing of an answer's own fields, since golden sets give it others, can't.
    """
    if shadow is None or shadow == accepted:
        return None if shadow is None else True
    if step.correct is None:
        return False
    try:
        return None if _asks_nothing(step, accepted) else bool(step.correct(shadow, accepted))
    except Exception:  # noqa: BLE001 - the project's function, made for golden sets; a person will tell
        return None


def _asks_nothing(step: Step, accepted: Mapping[str, Any]) -> bool:
    """Whether even an empty answer would be right."""
    try:
        return step.correct is not None and bool(step.correct({}, accepted))
    except Exception:  # noqa: BLE001 - it looked for a field
        return False


def _of_accepted(work: Work, outcome: Outcome) -> Audit:
    asked = tuple(dict.fromkeys(attempt.model for attempt in outcome.attempts))
    certificates = (
        work.run.policy.certificates.certificates
    )  # sorted: the one of these models before longer chains
    known = (
        c for c in certificates if c.step == work.step.name and c.models[: len(asked)] == asked
    )
    audit = _audit(work, outcome, "accepted", asked, value=outcome.value, agreed=None)
    golden = next((c.golden_hash for c in known), "")
    return replace(audit, identity=_identity(work, asked, golden))


def _of_shadow(work: Work, outcome: Outcome, model: Model, answer: Answer) -> Audit:
    if (
        answer.output is None or answer.failed
    ):  # the checks would not have let it pass: wrong, as in certification
        audit = _audit(work, outcome, "shadow", (model.name,), value=None, agreed=None)
        return replace(audit, right=False, reviewer="checks", reviewed_at=audit.recorded_at)
    value = answer.output.model_dump(mode="json")
    same = agreement(work.step, value, outcome.value)
    return _audit(work, outcome, "shadow", (model.name,), value=value, agreed=same)


def _audit(
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
