"""Which candidates can be measured, said before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tierwise.errors import ConfigError, Misuse
from tierwise.evidence import judge
from tierwise.evidence.certify.measure import Evaluation
from tierwise.gateway.learned.files import load, trained_file
from tierwise.policy.rules import features
from tierwise.text.tokens import count_tokens

Thresholds = Literal["auto", "fit", "none"]
Chain = tuple[str, ...]  # catalog names, in order


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
    if evaluation.paired_floor is not None:
        _check_comparison(evaluation, candidates)
    _check_prompts(evaluation)
    can_fit = any(may_have_threshold(evaluation, chain[0]) for chain in candidates)
    if thresholds == "fit" and not can_fit:
        raise Misuse(
            "no threshold can be fitted: that takes a first model with `confidence: true` or a "
            "trained one, a floor for the step, `low_confidence` under escalate.on in rules.yaml, "
            "and no rubric"
        )


def with_reference(evaluation: Evaluation, candidates: Sequence[Chain]) -> list[Chain]:
    """Return the candidates with the reference of the step's floor first, where it has one."""
    paired = evaluation.paired_floor
    if paired is None or paired.reference is None:
        return list(candidates)
    reference = (paired.reference,)
    return [reference, *(chain for chain in candidates if chain != reference)]


def _check_comparison(evaluation: Evaluation, candidates: Sequence[Chain]) -> None:
    """Raise Misuse where nothing can be compared with a reference."""
    step = evaluation.step.name
    paired = evaluation.paired_floor
    if paired is None or paired.reference is None:
        raise Misuse(
            f"no model is left that {step} could be compared with: "
            "name one under `than` in rules.yaml, or `tierwise models` says what to set"
        )
    if evaluation.rubric is not None:
        raise Misuse(
            f"{step} has a rubric, and a judge cannot say which of two models is worse: "
            "give the step a floor that is a share of right answers"
        )
    if all(chain == (paired.reference,) for chain in candidates):
        raise Misuse(
            f"{paired.reference} is the reference of {step}: "
            "name a model to compare with it, --models MODEL"
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


def may_have_threshold(evaluation: Evaluation, name: str) -> bool:
    """Return True if a model reports its confidence, and the rules hand on its unsure answers."""
    policy = evaluation.engine.policy
    model = policy.catalog.model(name)
    reports_confidence = model.confidence or model.learned is not None
    is_escalated = "low_confidence" in policy.rules.escalate.on
    has_floor = evaluation.floor is not None or evaluation.paired_floor is not None
    is_certifiable = has_floor and evaluation.rubric is None
    return reports_confidence and is_escalated and is_certifiable


def _trained_on(evaluation: Evaluation, name: str) -> int:
    """Return the number of golden examples that a learned model was trained on."""
    engine = evaluation.engine
    if not engine.policy.catalog.model(name).learned:
        return 0
    classifier = load(trained_file(engine.project.root, name))
    return sum(classifier.saw(example.text) for example in evaluation.golden.examples)
