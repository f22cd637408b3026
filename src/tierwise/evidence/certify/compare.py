"""Compare candidates on one golden set: which are measured, with which thresholds, and what all of them prove."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tierwise import __version__
from tierwise.errors import Misuse
from tierwise.evidence import judge
from tierwise.evidence.certify.measure import (
    Exam,
    Measurement,
    Scored,
    answers,
    measured,
    proven,
    score,
)
from tierwise.evidence.judge import Judged, Label
from tierwise.evidence.training.labelled import split
from tierwise.evidence.training.thresholds import fit_threshold
from tierwise.gateway.learned.files import load, trained_file
from tierwise.policy.certificates import ALPHA, Certificate
from tierwise.policy.rules import features
from tierwise.text.tokens import count_tokens

FIT = 0.4  # share of the golden set on which thresholds are fitted; they are certified on the rest
STRICT = (
    0.0005,
    0.005,
)  # levels to fit at first: what barely shows the floor on one part often misses it on the other
Thresholds = Literal["auto", "fit", "none"]
Chain = tuple[str, ...]  # catalog names, in order


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one candidate did among `compared`, and its certificate, where it gets one."""

    measured: Measurement
    compared: int
    certificate: Certificate | None
    note: str = ""
    to_label: tuple[Label, ...] = ()  # answers for a person to label, where they were asked for


def compare(
    exam: Exam,
    candidates: Sequence[Chain],
    *,
    thresholds: Thresholds = "auto",
    earlier: Iterable[Certificate] = (),
    label: int = 0,
    machine: str | None = None,
) -> list[Result]:
    """Measure candidates and say what that proves of each.

    With thresholds, a first model that tells its confidence is also measured as one that hands on what it is
    unsure of: with `fit` always, with `auto` where the candidate misses the floor as it is. `earlier`
    certificates that rest on the same golden set count as compared; see `releveled`. `label` is how many
    answers of each candidate a person should be given to label. Raises Misuse for what cannot be measured.
    """
    refuse(exam, candidates, thresholds)
    limited = [chain for chain in candidates if thresholds != "none" and _tells(exam, chain[0])]
    before = [c for c in earlier if _same_golden_set(exam, c)]
    others = sum(c.models not in candidates for c in before)
    compared = max([len(candidates) + len(limited) + others, *(c.compared for c in before)])
    results = []
    for chain in candidates:
        scored = score(exam, chain, exam.golden.examples)
        plain = measured(exam, chain, scored)
        met = exam.floor is None or plain.bound(compared) >= exam.floor
        sure = None
        if chain in limited and (thresholds == "fit" or not met):
            sure = _with_threshold(exam, chain, scored, compared)
        asked = tuple(judge.to_label(exam.golden.examples, answers(scored), label)) if label else ()
        results += _results(exam, plain, sure, compared, asked, machine)
    return results


def refuse(exam: Exam, candidates: Sequence[Chain], thresholds: Thresholds) -> None:
    """Raises Misuse for what cannot be measured, before anything is spent."""
    policy = exam.engine.policy
    step = exam.step
    if step.correct is None:
        raise Misuse(
            f"the step {step.name} does not say what a right answer is: give step(…, correct=…)"
        )
    for chain in candidates:
        for name in chain:
            unusable = policy.unusable(policy.catalog.model(name), step.name)
            if unusable is not None:
                raise Misuse(f"{name} cannot be measured: {unusable.reason}")
            if seen := _seen(exam, name):
                raise Misuse(
                    f"{name} was trained on {seen} of these examples, and knows their answers; train it anew"
                )
            _refuse_withheld(exam, name)
        if len(set(chain)) < len(chain):
            raise Misuse(f"{' > '.join(chain)} names a model twice")
    if exam.judge:
        if exam.rubric is None:
            raise Misuse(
                f"there is nothing to judge: {step.name} has no rubric (correct=rubric(…), or golden/*.yaml)"
            )
        judge.refuse_weak(
            exam.engine, exam.judge, dict.fromkeys(name for chain in candidates for name in chain)
        )
        _refuse_withheld(exam, exam.judge)
    if thresholds == "fit" and not any(_tells(exam, chain[0]) for chain in candidates):
        raise Misuse(
            "no threshold can be fitted: that takes a first model with `confidence: true` or a trained one, a floor "
            "for the step, `low_confidence` under escalate.on in rules.yaml, and no rubric"
        )


def _refuse_withheld(exam: Exam, name: str) -> None:
    """Raises Misuse where a guard keeps examples from a model: half a golden set would prove nothing."""
    policy = exam.engine.policy
    withheld = {}
    for example in exam.golden.examples:
        tokens = count_tokens(example.text)
        f = features(exam.step, example.document(), tokens=tokens, prompt_tokens=0, budget_used=0)
        if reason := policy.rules.forbidden(policy.catalog.model(name).tier, f):
            withheld[example.id] = reason
    if withheld:
        first, reason = next(iter(withheld.items()))
        told = f"{name} may not see {len(withheld)} of {len(exam.golden.examples)} examples, such as '{first}'"
        raise Misuse(f"{told}: {reason}; leave {name} out, or give --golden a set without them")


def releveled(
    exam: Exam, certificates: Iterable[Certificate], results: Sequence[Result]
) -> list[Certificate]:
    """Earlier certificates on the same golden set, which now stand among more candidates: each proves a little less."""
    measured_now = {r.measured.models for r in results}
    compared = max(r.compared for r in results)
    older = (c for c in certificates if _same_golden_set(exam, c) and c.models not in measured_now)
    return [
        c.model_copy(
            update={"compared": compared, "bound": proven(c.errors, c.n, _judged(c), compared)}
        )
        for c in older
        if c.compared < compared
    ]


def _results(
    exam: Exam,
    plain: Measurement,
    sure: Measurement | str | None,
    compared: int,
    asked: tuple[Label, ...],
    machine: str | None,
) -> list[Result]:
    """A candidate's results. Only one certificate stands for a chain: the one with a threshold, where it is needed."""
    if not isinstance(sure, Measurement):
        proof = _certificate(exam, plain, compared, machine)
        return [
            Result(
                measured=plain,
                compared=compared,
                certificate=proof,
                note=sure or "",
                to_label=asked,
            )
        ]
    limit = exam.floor is not None and sure.bound(compared) >= exam.floor
    chosen = _certificate(exam, sure if limit else plain, compared, machine)
    return [
        Result(
            measured=m,
            compared=compared,
            certificate=chosen if (m is sure) is limit else None,
            to_label=asked,
        )
        for m in (plain, sure)
    ]


def _with_threshold(
    exam: Exam, chain: Chain, scored: Sequence[Scored], compared: int
) -> Measurement | str:
    """A candidate with a threshold on its first model, fitted on one part of the golden set and measured on the other.

    Where none can be fitted, the reason.
    """
    fit, rest = split(exam.golden.examples, FIT, "threshold")
    own = scored if len(chain) == 1 else score(exam, chain[:1], fit)
    fitting = {example.id for example in fit}
    told = [
        (confidence, s.right)
        for s in own
        if s.example.id in fitting
        and s.answered
        and (confidence := s.outcome.attempts[-1].confidence) is not None
    ]
    if not told or not rest or exam.floor is None:
        return f"{chain[0]} told no confidence"
    confidences = [confidence for confidence, _ in told]
    right = [ok for _, ok in told]
    level = ALPHA / compared
    levels = (
        *STRICT,
        level,
        level ** (len(fit) / len(rest)),
    )  # the last shows the floor on more of the like
    for alpha in levels:
        found = fit_threshold(confidences, right, exam.floor, alpha=alpha)
        if found:
            return measured(exam, chain, score(exam, chain, rest, found.threshold), found.threshold)
    return f"no confidence of {chain[0]} sets right answers apart: nothing to hand on by"


def _certificate(
    exam: Exam, found: Measurement, compared: int, machine: str | None
) -> Certificate | None:
    """The dated proof of a measurement; None where it proves nothing: a rubric without a judge, a judge alone."""
    judged = found.judged
    if found.n == 0 or (exam.rubric and judged is None):
        return None
    if judged and (judged.open_labels or not judged.human_labels):
        return None
    current = exam.engine.current(exam.step, exam.parameters)
    return Certificate(
        step=exam.step.name,
        models=found.models,
        identities={name: current.identities[name] for name in found.models},
        prompt=exam.engine.prompts[exam.step.prompt].label,
        prompt_hash=current.prompt_hash,
        step_hash=current.step_hash,
        golden=exam.golden.path.name,
        golden_hash=exam.golden.hash,
        n=found.n,
        errors=found.errors,
        deferred=found.deferred,
        compared=compared,
        bound=found.bound(compared),
        threshold=found.threshold,
        coverage=found.coverage,
        mean_cost=found.mean_cost,
        mean_usage=found.mean_usage,
        latency_p50_s=found.latency_p50_s,
        judged_by=judged.by if judged else None,
        human_labels=judged.human_labels if judged else None,
        false_passes=judged.false_passes if judged else None,
        date=datetime.date.today(),
        machine=machine
        or f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        tierwise_version=__version__,
    )


def _tells(exam: Exam, name: str) -> bool:
    """Whether a model may be given a threshold: it says how sure it is, and what it is unsure of goes on."""
    model = exam.engine.policy.catalog.model(name)
    rules = exam.engine.policy.rules
    tells = model.confidence or model.learned is not None
    return (
        tells
        and exam.floor is not None
        and exam.rubric is None
        and "low_confidence" in rules.escalate.on
    )


def _seen(exam: Exam, name: str) -> int:
    """How many of the golden examples a learned model was trained on."""
    engine = exam.engine
    if not engine.policy.catalog.model(name).learned:
        return 0
    classifier = load(trained_file(engine.project.root, name))
    return sum(classifier.saw(example.text) for example in exam.golden.examples)


def _same_golden_set(exam: Exam, certificate: Certificate) -> bool:
    """Whether a certificate was won on the same examples, by the same prompt, schema and parameters."""
    current = exam.engine.current(exam.step, exam.parameters)
    mine = (exam.step.name, exam.golden.hash, current.prompt_hash, current.step_hash)
    return mine == (
        certificate.step,
        certificate.golden_hash,
        certificate.prompt_hash,
        certificate.step_hash,
    )


def _judged(certificate: Certificate) -> Judged | None:
    """The judge and the labels that a certificate rests on."""
    if certificate.judged_by is None:
        return None
    return Judged(
        by=certificate.judged_by,
        human_labels=certificate.human_labels or 0,
        false_passes=certificate.false_passes or 0,
    )
