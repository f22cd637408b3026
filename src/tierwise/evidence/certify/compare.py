"""Comparison of candidates on one golden set: which are measured, and what that proves of each."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from tierwise import __version__
from tierwise.errors import ConfigError, Misuse
from tierwise.evidence import judge
from tierwise.evidence.certify.measure import (
    Evaluation,
    Measurement,
    ScoredExample,
    answers_by_id,
    measure,
    proven_accuracy,
    score,
)
from tierwise.evidence.judge import HumanLabel, JudgeValidation
from tierwise.evidence.training.labelled import split
from tierwise.evidence.training.thresholds import fit_threshold
from tierwise.gateway.learned.files import load, trained_file
from tierwise.policy.certificates import ALPHA, Certificate
from tierwise.policy.rules import features
from tierwise.text.tokens import count_tokens

# share of the golden set that thresholds are fitted on; the rest certifies them
FIT = 0.4
# Levels to fit at first: a threshold that barely shows the floor on one part often misses it on the
# other.
STRICT = (0.0005, 0.005)
Thresholds = Literal["auto", "fit", "none"]
Chain = tuple[str, ...]  # catalog names, in order


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateResult:
    """The measurement of one candidate among `compared`, and its certificate, if it gets one."""

    measurement: Measurement
    compared: int
    certificate: Certificate | None
    note: str = ""
    # answers for human labelling, where asked for
    to_label: tuple[HumanLabel, ...] = ()


def compare(
    evaluation: Evaluation,
    candidates: Sequence[Chain],
    *,
    thresholds: Thresholds = "auto",
    earlier: Iterable[Certificate] = (),
    to_label: int = 0,
    machine: str | None = None,
) -> list[CandidateResult]:
    """Measure candidates and return what that proves of each.

    With thresholds, a first model that reports its confidence is also measured as one that hands on
    the answers it is unsure of: with `fit` always, with `auto` where the candidate misses the floor
    otherwise. `earlier` certificates on the same golden set count as compared; see
    `with_lower_bounds`. `to_label` is the number of answers of each candidate for human labelling.
    Raises Misuse for candidates that cannot be measured.
    """
    check_measurable(evaluation, candidates, thresholds)
    may_have_threshold: list[Chain] = []
    if thresholds != "none":
        may_have_threshold = [
            chain for chain in candidates if _may_have_threshold(evaluation, chain[0])
        ]
    before = [c for c in earlier if _is_on_same_golden_set(evaluation, c)]
    compared = _number_compared(candidates, may_have_threshold, before)
    results = []
    for chain in candidates:
        scored = score(evaluation, chain, evaluation.golden.examples)
        plain = measure(evaluation, chain, scored)
        meets_floor = (
            evaluation.floor is None or plain.bound(compared) >= evaluation.floor
        )
        limited = None
        if chain in may_have_threshold and (thresholds == "fit" or not meets_floor):
            limited = _with_threshold(evaluation, chain, scored, compared)
        asked: list[HumanLabel] = []
        if to_label:
            asked = judge.select_for_labelling(
                evaluation.golden.examples, answers_by_id(scored), to_label
            )
        results += _results(evaluation, plain, limited, compared, tuple(asked), machine)
    return results


def _number_compared(
    candidates: Sequence[Chain],
    may_have_threshold: Sequence[Chain],
    before: Sequence[Certificate],
) -> int:
    """Return the number of candidates that share alpha.

    It never falls: a certificate from a larger comparison keeps its size.
    """
    others = sum(certificate.models not in candidates for certificate in before)
    # a chain that may get a threshold is tested twice: plain, and with it
    now = len(candidates) + len(may_have_threshold) + others
    compared_before = [certificate.compared for certificate in before]
    return max([now, *compared_before])


def check_measurable(
    evaluation: Evaluation, candidates: Sequence[Chain], thresholds: Thresholds
) -> None:
    """Raise Misuse for candidates that cannot be measured, before anything is spent."""
    step = evaluation.step
    if step.correct is None:
        raise Misuse(
            f"the step {step.name} does not say what a right answer is: give step(…, correct=…)"
        )
    for chain in candidates:
        for name in chain:
            _check_model(evaluation, name)
        if len(set(chain)) < len(chain):
            raise Misuse(f"{' > '.join(chain)} names a model twice")
    if evaluation.judge:
        if evaluation.rubric is None:
            raise Misuse(
                f"there is nothing to judge: {step.name} has no rubric "
                "(correct=rubric(…), or golden/*.yaml)"
            )
        for chain in candidates:
            judge.check_judge(evaluation.engine, evaluation.judge, chain)
        _check_guards(evaluation, evaluation.judge)
    _check_prompts(evaluation)
    can_fit = any(_may_have_threshold(evaluation, chain[0]) for chain in candidates)
    if thresholds == "fit" and not can_fit:
        raise Misuse(
            "no threshold can be fitted: that takes a first model with `confidence: true` or a "
            "trained one, a floor for the step, `low_confidence` under escalate.on in rules.yaml, "
            "and no rubric"
        )


def _check_prompts(evaluation: Evaluation) -> None:
    """Raise ConfigError for an example that the prompt cannot be filled in for."""
    prompt = evaluation.engine.prompts[evaluation.step.prompt]
    parameters = {"part": None, **evaluation.parameters}
    for example in evaluation.golden.examples:
        try:
            prompt.render(example.document(), parameters)
        except ConfigError as error:
            raise ConfigError(
                f"the prompt {prompt.name} does not fit this row: {error.message}; "
                "give the row the outcomes and metadata that production has",
                path=evaluation.golden.path,
                line=example.line or None,
            ) from None


def _check_model(evaluation: Evaluation, name: str) -> None:
    policy = evaluation.engine.policy
    unusable = policy.unusable(policy.catalog.model(name), evaluation.step.name)
    if unusable:
        raise Misuse(f"{name} cannot be measured: {unusable.reason}")
    seen = _trained_on(evaluation, name)
    if seen:
        raise Misuse(
            f"{name} was trained on {seen} of these examples, and knows their answers; "
            "train it again without them"
        )
    _check_guards(evaluation, name)


def _check_guards(evaluation: Evaluation, name: str) -> None:
    """Raise Misuse if a guard withholds examples from a model: half a set would prove nothing."""
    policy = evaluation.engine.policy
    tier = policy.catalog.model(name).tier
    examples = evaluation.golden.examples
    withheld: dict[str, str] = {}  # by the example's id: why
    for example in examples:
        document_features = features(
            evaluation.step,
            example.document(),
            tokens=count_tokens(example.text),
            prompt_tokens=0,
            budget_used=0,
        )
        reason = policy.rules.forbidden(tier, document_features)
        if reason:
            withheld[example.id] = reason
    if withheld:
        first, reason = next(iter(withheld.items()))
        raise Misuse(
            f"{name} may not see {len(withheld)} of {len(examples)} examples, such as '{first}': "
            f"{reason}; leave {name} out, or give --golden a set without them"
        )


def with_lower_bounds(
    evaluation: Evaluation,
    certificates: Iterable[Certificate],
    results: Sequence[CandidateResult],
) -> list[Certificate]:
    """Return earlier certificates on the same golden set, with the bounds they now prove.

    There are more candidates than before, so each proves a little less.
    """
    measured_now = {result.measurement.models for result in results}
    compared = max(result.compared for result in results)
    lowered = []
    for certificate in certificates:
        # replaced by this measurement, or of as large a comparison already
        if certificate.models in measured_now or certificate.compared >= compared:
            continue
        if not _is_on_same_golden_set(evaluation, certificate):
            continue
        bound = proven_accuracy(
            certificate.errors, certificate.n, _judge_validation(certificate), compared
        )
        lowered.append(
            certificate.model_copy(update={"compared": compared, "bound": bound})
        )
    return lowered


def keep_larger(
    evaluation: Evaluation,
    results: Sequence[CandidateResult],
    earlier: Iterable[Certificate],
) -> list[CandidateResult]:
    """Return the results without certificates that would replace those of larger measurements.

    A void certificate is no loss, and the same golden set is no smaller one.
    """
    larger = larger_certificates(
        evaluation, [result.measurement.models for result in results], earlier
    )
    kept = []
    for result in results:
        certificate = larger.get(result.measurement.models)
        if certificate is None or result.certificate is None:
            kept.append(result)
            continue
        note = (
            f"not written: the certificate of {certificate.date} rests on {certificate.n} labels "
            f"({certificate.golden}), this one would on {result.certificate.n}; "
            "--replace writes it all the same"
        )
        kept.append(replace(result, certificate=None, note=note))
    return kept


def larger_certificates(
    evaluation: Evaluation, candidates: Iterable[Chain], earlier: Iterable[Certificate]
) -> dict[Chain, Certificate]:
    """Return the valid certificates of candidates that rest on more labels than there are now."""
    current = evaluation.engine.current(evaluation.step, evaluation.parameters)
    wanted = set(candidates)
    size = len(evaluation.golden.examples)
    return {
        certificate.models: certificate
        for certificate in earlier
        if certificate.step == evaluation.step.name
        and certificate.models in wanted
        and certificate.golden_hash != evaluation.golden.hash
        and _measured_on(certificate) > size
        and certificate.void_reasons(current) is None
    }


def _measured_on(certificate: Certificate) -> float:
    """Return the number of examples behind a certificate, those that were handed on included."""
    # n counts the answered ones; they are the share `coverage` of all
    if certificate.partial and certificate.coverage:
        return certificate.n / certificate.coverage
    return certificate.n


def _results(
    evaluation: Evaluation,
    plain: Measurement,
    limited: Measurement | str | None,
    compared: int,
    to_label: tuple[HumanLabel, ...],
    machine: str | None,
) -> list[CandidateResult]:
    """Return a candidate's results: plain, and with a threshold where that was measured.

    A chain has one certificate: that with a threshold if it meets the floor, else the plain one.
    `limited` is a text where no threshold could be fitted.
    """
    if not isinstance(limited, Measurement):
        result = CandidateResult(
            measurement=plain,
            compared=compared,
            certificate=_certificate(evaluation, plain, compared, machine),
            note=limited or "",
            to_label=to_label,
        )
        return [result]
    floor = evaluation.floor
    meets_floor = floor is not None and limited.bound(compared) >= floor
    certified = limited if meets_floor else plain
    certificate = _certificate(evaluation, certified, compared, machine)
    return [
        CandidateResult(
            measurement=measurement,
            compared=compared,
            certificate=certificate if measurement is certified else None,
            to_label=to_label,
        )
        for measurement in (plain, limited)
    ]


def _with_threshold(
    evaluation: Evaluation, chain: Chain, scored: Sequence[ScoredExample], compared: int
) -> Measurement | str:
    """Measure a candidate with a threshold on its first model.

    The threshold is fitted on one part of the golden set and measured on the other. Returns the
    reason where none can be fitted.
    """
    fit, rest = split(evaluation.golden.examples, FIT, "threshold")
    # the first model alone: in a chain, a later one may have given the answer
    first = scored if len(chain) == 1 else score(evaluation, chain[:1], fit)
    fit_ids = {example.id for example in fit}
    confidences = []
    right = []
    for s in first:
        if s.example.id not in fit_ids or not s.answered:
            continue
        confidence = s.outcome.attempts[-1].confidence
        if confidence is not None:
            confidences.append(confidence)
            right.append(s.right)
    if not confidences or not rest or evaluation.floor is None:
        return f"{chain[0]} reported no confidence"
    level = ALPHA / compared  # Bonferroni: all candidates together have ALPHA
    # the last level shows the floor on more examples of the same kind, as many as the rest has
    for alpha in (*STRICT, level, level ** (len(fit) / len(rest))):
        fitted = fit_threshold(confidences, right, evaluation.floor, alpha=alpha)
        if fitted:
            scored_rest = score(evaluation, chain, rest, fitted.threshold)
            return measure(evaluation, chain, scored_rest, fitted.threshold)
    return f"no confidence of {chain[0]} separates right answers from wrong ones"


def _certificate(
    evaluation: Evaluation, measurement: Measurement, compared: int, machine: str | None
) -> Certificate | None:
    """Return the dated proof of a measurement; None where it proves nothing.

    That is so for a rubric without a judge, and for a judge without human labels.
    """
    judged = measurement.judged  # None: no judge was asked
    if measurement.n == 0 or (evaluation.rubric and judged is None):
        return None
    if judged and (judged.open_labels or not judged.human_labels):
        return None
    engine = evaluation.engine
    current = engine.current(evaluation.step, evaluation.parameters)
    return Certificate(
        **current.evidence(
            measurement.models, evaluation.golden.path.name, measurement.threshold
        ),
        step=evaluation.step.name,
        prompt=engine.prompts[evaluation.step.prompt].label,
        golden_hash=evaluation.golden.hash,
        n=measurement.n,
        errors=measurement.errors,
        deferred=measurement.deferred,
        compared=compared,
        bound=measurement.bound(compared),
        threshold=measurement.threshold,
        coverage=measurement.coverage,
        mean_cost=measurement.mean_cost,
        mean_usage=measurement.mean_usage,
        latency_p50_s=measurement.latency_p50_s,
        judged_by=judged.by if judged else None,
        human_labels=judged.human_labels if judged else None,
        false_passes=judged.false_passes if judged else None,
        date=datetime.date.today(),
        machine=machine or _this_machine(),
        tierwise_version=__version__,
    )


def _this_machine() -> str:
    return (
        f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    )


def _may_have_threshold(evaluation: Evaluation, name: str) -> bool:
    """Return True if a model reports its confidence, and the rules hand on its unsure answers."""
    policy = evaluation.engine.policy
    model = policy.catalog.model(name)
    reports_confidence = model.confidence or model.learned is not None
    is_escalated = "low_confidence" in policy.rules.escalate.on
    is_certifiable = evaluation.floor is not None and evaluation.rubric is None
    return reports_confidence and is_escalated and is_certifiable


def _trained_on(evaluation: Evaluation, name: str) -> int:
    """Return the number of golden examples that a learned model was trained on."""
    engine = evaluation.engine
    if not engine.policy.catalog.model(name).learned:
        return 0
    classifier = load(trained_file(engine.project.root, name))
    return sum(classifier.saw(example.text) for example in evaluation.golden.examples)


def _is_on_same_golden_set(evaluation: Evaluation, certificate: Certificate) -> bool:
    """Return True if a certificate has the same examples, prompt, schema and parameters."""
    current = evaluation.engine.current(evaluation.step, evaluation.parameters)
    return (
        certificate.step == evaluation.step.name
        and certificate.golden_hash == evaluation.golden.hash
        and certificate.prompt_hash == current.prompt_hash
        and certificate.step_hash == current.step_hash
    )


def _judge_validation(certificate: Certificate) -> JudgeValidation | None:
    """Return the judge and the human labels that a certificate rests on."""
    if certificate.judged_by is None:
        return None
    return JudgeValidation(
        by=certificate.judged_by,
        human_labels=certificate.human_labels or 0,
        false_passes=certificate.false_passes or 0,
    )
