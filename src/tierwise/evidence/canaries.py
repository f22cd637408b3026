"""Canaries: golden items that are asked again, where a server reports another model.

The rule. Items are drawn at random among those that the certificate was measured on. The new
model's answers are compared, item by item, with what the certificate has on record: lost items are
wrong now and were right, gained ones the other way round. The certificate is restored for the new
model if the exact paired test shows at most 10 points worse at 95 %, and is void otherwise. Without
a lost item that takes 29. What canaries cannot show is that nothing changed at all.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from tierwise.engine import Engine
from tierwise.errors import BudgetExceeded, TierwiseError
from tierwise.evidence.certify.golden_step import load_golden_step, random_sample
from tierwise.evidence.certify.measure import (
    Evaluation,
    ScoredExample,
    is_handed_on,
    item_key,
    score,
    served_names,
)
from tierwise.evidence.certify.paired_test import paired_p_value
from tierwise.policy.certificates import ALPHA, Certificate
from tierwise.policy.rules import features
from tierwise.policy.sentinel import CanaryVerdict, Suspension
from tierwise.policy.served_names import is_same_model, shown_name
from tierwise.records import rank
from tierwise.steps.examples import Example, GoldenSet
from tierwise.text.tokens import count_tokens

WORSE = 0.10  # what canaries have to rule out
# Calls that failed say nothing about the model's answers.
_NO_ANSWER = frozenset({"outage", "setup", "budget", "unpriced", "provider_fault"})


@dataclass(frozen=True, slots=True)
class CanaryResult:
    """What became of a suspended certificate: a verdict, or why there is none."""

    suspension: Suspension
    verdict: CanaryVerdict | None
    why_not: str = ""

    @property
    def sentence(self) -> str:
        """The result in words."""
        certificate = self.suspension.certificate
        chain = " > ".join(certificate.models)
        what = f"the certificate of {chain} for {certificate.step}"
        if self.verdict is None:
            return f"{what} stays suspended: {self.why_not}"
        verdict = self.verdict
        counts = (
            f"of {verdict.asked} golden items asked again, {verdict.lost} are wrong that were "
            f"right and {verdict.gained} the other way round"
        )
        served = shown_name(verdict.served)
        if verdict.is_restored:
            return (
                f"{what} is restored for '{served}': {counts}, at most 10 points worse"
            )
        return f"{what} is void for '{served}': {counts}, and at most 10 points worse is not shown"


def is_free_and_local(engine: Engine, certificate: Certificate) -> bool:
    """Return True if asking a certificate's models costs nothing and leaves no house."""
    catalog = engine.policy.catalog
    models = [catalog.model(name) for name in certificate.models]
    return all(
        catalog.tiers[model.tier].stays_in_house
        and model.price != "unknown"
        and model.price.is_zero
        for model in models
    )


def ask_canaries(
    engine: Engine,
    suspension: Suspension,
    *,
    items: int,
    budget_usd: Decimal | None,
) -> CanaryResult:
    """Ask golden items again and put the verdict on record; see the rule above.

    `budget_usd` is the most to spend. Documents that are confidential or stricter go to models of
    in-house tiers alone, and no guard is passed. Raises nothing for what a model or a golden set
    does wrong: the certificate stays suspended.
    """
    try:
        return _ask(engine, suspension, items, budget_usd)
    except BudgetExceeded as error:
        return CanaryResult(suspension, None, f"the canaries' budget: {error}")
    except TierwiseError as error:
        return CanaryResult(suspension, None, str(error))


def _ask(
    engine: Engine, suspension: Suspension, items: int, budget_usd: Decimal | None
) -> CanaryResult:
    certificate = suspension.certificate
    why_not = _why_not(suspension)
    if why_not is not None:
        return CanaryResult(suspension, None, why_not)
    path = engine.project.root / "golden" / certificate.golden
    golden = load_golden_step(
        engine.project, certificate.step, path, limit=certificate.items
    )
    if golden.golden.hash != certificate.golden_hash:
        return CanaryResult(
            suspension,
            None,
            f"golden/{certificate.golden} is no longer what it was measured on",
        )
    evaluation = Evaluation(
        engine=engine,
        step=golden.step,
        golden=golden.golden,
        parameters=golden.parameters,
        budget_usd=budget_usd,
        budget_name=f"canaries {uuid.uuid4().hex[:8]}",
        patience_s=0.0,
        fresh_since=time.time(),
    )
    allowed = tuple(
        example
        for example in golden.golden.examples
        if _may_be_asked(evaluation, certificate, example)
    )
    drawn = random_sample(allowed, items)
    if paired_p_value(0, 0, len(drawn), WORSE) > ALPHA:
        return CanaryResult(
            suspension, None, f"{len(drawn)} golden items are too few to show anything"
        )
    evaluation = replace(evaluation, golden=GoldenSet(path, drawn))
    scored = score(evaluation, certificate.models, drawn, certificate.threshold)
    failed = [s for s in scored if s.outcome.cause in _NO_ANSWER]
    if failed:
        reason = failed[0].outcome.reason
        return CanaryResult(
            suspension, None, f"{len(failed)} of {len(drawn)} got no answer: {reason}"
        )
    return _judged(engine, suspension, evaluation, scored)


def _why_not(suspension: Suspension) -> str | None:
    """Return why canaries cannot decide about a certificate; None if they can."""
    certificate = suspension.certificate
    certify = f"`tierwise certify {certificate.step} --fresh` decides"
    if certificate.wrong is None or certificate.items is None:
        return f"it does not have its golden items on record; {certify}"
    if suspension.model not in certificate.models:
        return f"its reference {suspension.model} changed; {certify}"
    if certificate.judged_by is not None:
        return f"its answers were judged by {certificate.judged_by}; {certify}"
    return None


def _judged(
    engine: Engine,
    suspension: Suspension,
    evaluation: Evaluation,
    scored: Sequence[ScoredExample],
) -> CanaryResult:
    """Compare the answers with those on record, and put the verdict on record."""
    certificate = suspension.certificate
    names = served_names(scored).get(suspension.model, ())
    if not names:
        return CanaryResult(
            suspension, None, f"the server of {suspension.model} reported no model"
        )
    others = [name for name in names if not is_same_model(name, suspension.certified)]
    if not others:
        return CanaryResult(
            suspension,
            None,
            f"the server of {suspension.model} reports '{shown_name(names[0])}' again, "
            "and it counts once that is all that it reports",
        )
    was_wrong = set(certificate.wrong or ())
    lost = 0
    gained = 0
    for s in scored:
        before = item_key(s.example.text) in was_wrong
        now = _is_wrong(evaluation, certificate, s)
        lost += now and not before
        gained += before and not now
    p_value = paired_p_value(lost, gained, len(scored), WORSE)
    verdict = CanaryVerdict(
        step=certificate.step,
        models=certificate.models,
        evidence=certificate.evidence_hash,
        model=suspension.model,
        served=others[0],
        asked=len(scored),
        lost=lost,
        gained=gained,
        is_restored=p_value <= ALPHA,
        at=time.time(),
    )
    engine.ledger.served.record(verdict)
    return CanaryResult(suspension, verdict)


def _is_wrong(
    evaluation: Evaluation, certificate: Certificate, scored: ScoredExample
) -> bool:
    """Return True if a wrong answer is delivered: what goes on to another model is none."""
    if certificate.partial and not scored.answered and is_handed_on(evaluation, scored):
        return False
    return not scored.right


def _may_be_asked(
    evaluation: Evaluation, certificate: Certificate, example: Example
) -> bool:
    """Return True if all models of a certificate may see an example."""
    policy = evaluation.engine.policy
    document_features = features(
        evaluation.step,
        example.document(),
        tokens=count_tokens(example.text),
        prompt_tokens=0,
        budget_used=0,
    )
    is_confidential = rank(document_features.sensitivity) >= rank("confidential")
    for name in certificate.models:
        tier = policy.catalog.model(name).tier
        if is_confidential and not policy.catalog.tiers[tier].stays_in_house:
            return False
        if policy.rules.forbidden(tier, document_features):
            return False
    return True


def ask_all(
    engine: Engine,
    *,
    items: int,
    budget_usd: Decimal | None,
    step: str | None = None,
    only_free: bool = False,
) -> list[CanaryResult]:
    """Ask canaries of every suspended certificate that the rules would use.

    With `only_free`, only of models that cost nothing and stay in the house.
    """
    results = []
    for suspension in list(engine.suspended.values()):
        certificate = suspension.certificate
        if step is not None and certificate.step != step:
            continue
        if not suspension.is_open or certificate.step not in engine.policy.rules.floors:
            continue
        if only_free and not is_free_and_local(engine, certificate):
            why_not = (
                "asking its models again may cost money; give --budget-usd, "
                "or `budget_usd` under [tool.tierwise.canaries]"
            )
            results.append(CanaryResult(suspension, None, why_not))
            continue
        results.append(
            ask_canaries(engine, suspension, items=items, budget_usd=budget_usd)
        )
    engine.update_demotions()
    return results
