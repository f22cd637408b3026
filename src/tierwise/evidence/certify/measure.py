"""Measurement of candidates on a golden set, through production's cascade, prompts and checks."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from statistics import median
from typing import Any

from tierwise.cascade import Job, RunContext
from tierwise.engine import Engine
from tierwise.errors import BudgetExceeded, ConfigError, describe_exception
from tierwise.evidence import judge
from tierwise.evidence.certify.levels import Level
from tierwise.evidence.certify.wrong_answers import WrongAnswer, wrong_answer
from tierwise.evidence.judge import HumanLabel, JudgeValidation
from tierwise.policy.certificates import (
    Current,
    MeanUsage,
    Shortfall,
    labels_needed,
    lower_bound,
)
from tierwise.policy.floors import PairedFloor
from tierwise.records import Attempt, Batch, Document, Outcome, Usage, text_hash
from tierwise.steps.correctness import Rubric
from tierwise.steps.examples import Example, GoldenSet
from tierwise.steps.step import Step
from tierwise.text.amounts import total

# called with the candidate under way, its documents done, and all of them
OnProgress = Callable[[str, int, int], None]


def _ignore_progress(candidate: str, done: int, documents: int) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One step and the golden set that candidates for it are measured on."""

    engine: Engine
    step: Step
    golden: GoldenSet
    parameters: Mapping[str, Any]
    # the model whose answers are taken for right ones: then agreement is measured, no correctness
    teacher: str | None = None
    judge: str | None = None  # catalog name
    labels: tuple[HumanLabel, ...] = ()  # to validate the judge
    budget_usd: Decimal | None = None  # for everything that is measured
    budget_name: str = field(default_factory=lambda: f"certify {uuid.uuid4().hex[:8]}")
    # how long its calls wait for a model that is out; None: the project's setting
    patience_s: float | None = None
    # epoch seconds: older paid answers are asked for again
    fresh_since: float | None = None
    on_progress: OnProgress = _ignore_progress

    @property
    def current(self) -> Current:
        """What a certificate from this golden set has to agree with."""
        # what is right by a teacher's labels is the same everywhere, and has no hash
        golden = None if self.teacher is not None else self.golden.path.name
        return self.engine.current(self.step, self.parameters, golden)

    @property
    def golden_name(self) -> str:
        """The name of the golden set's file in certificates; with the folder for a teacher's."""
        path = self.golden.path
        if self.teacher is not None:
            return f"{path.parent.name}/{path.name}"
        return path.name

    @property
    def rubric(self) -> Rubric | None:
        """The criteria that need a judge."""
        return self.step.correct if isinstance(self.step.correct, Rubric) else None

    @property
    def floor(self) -> float | None:
        """The share of right answers, or agreement with the teacher, that the rules ask."""
        if self.teacher is not None:
            return self.engine.policy.rules.agreement_floors.get(self.step.name)
        floor = self.engine.policy.floor(self.step.name)
        return None if isinstance(floor, PairedFloor) else floor

    @property
    def paired_floor(self) -> PairedFloor | None:
        """The floor beside a reference, where the rules have one for the step."""
        if self.teacher is not None:
            return None
        floor = self.engine.policy.floor(self.step.name)
        return floor if isinstance(floor, PairedFloor) else None


@dataclass(frozen=True, slots=True)
class ScoredExample:
    """An example with its outcome; `unscored` if a judge's verdict could not be read."""

    example: Example
    outcome: Outcome
    right: bool
    unscored: bool = False

    @property
    def answered(self) -> bool:
        """True if there is an answer."""
        return self.outcome.status == "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The results of one candidate: a model or a chain, perhaps with a threshold on its first.

    A single model with a threshold is measured on the documents that it keeps, every other
    candidate on all.
    """

    models: tuple[str, ...]
    n: int
    errors: int  # wrong answers and missing ones
    deferred: int  # of the errors, those without an answer
    threshold: float | None = None
    # under a threshold: the share that the first model answered
    coverage: float | None = None
    # USD a document, if nothing was paid before; None: unknown
    mean_cost: Decimal | None = None
    mean_usage: Mapping[str, MeanUsage] | None = None
    latency_p50_s: float | None = None
    wrong: tuple[WrongAnswer, ...] = ()
    # of all examples; the names are those that gave at least a fifth of a model's answers
    served: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    served_since: float | None = None  # when the last answer was made
    items: int = 0  # examples, those that were handed on included
    wrong_items: tuple[str, ...] = ()  # see `item_key`
    no_answer: str = ""  # the commonest reason for a missing answer
    judged: JudgeValidation | None = None

    @property
    def name(self) -> str:
        """`small`, `small > large`, or `small if 0.83 sure > large`."""
        first, *rest = self.models
        if self.threshold is not None:
            first += f" if {self.threshold:.2f} sure"
        return " > ".join([first, *rest])

    def bound(self, level: Level) -> float:
        """Return the accuracy that is proven at a level; 0 for a judge without human labels."""
        return proven_accuracy(self.errors, self.n, self.judged, level)

    def shortfall(self, floor: float, level: Level) -> Shortfall:
        """Return the number of golden examples that are missing for a floor."""
        return labels_needed(
            self.errors,
            self.n,
            floor,
            alpha=_alpha(self.judged, level),
            compared=level.compared,
        )

    def labels_for_the_judge(self, floor: float, level: Level) -> int | None:
        """Return the number of human labels that are missing for a floor; None: none suffices.

        On the assumption that the judge passes no wrong answer among them.
        """
        alpha = level.alpha / 2
        compared = level.compared
        passed = lower_bound(self.errors, self.n, alpha=alpha, compared=compared)
        # from `proven_accuracy`: floor = passed - (1 - needed)
        needed = floor + 1 - passed  # the share of passed answers that must be right
        if needed >= 1:
            return None
        validation = self.judged or JudgeValidation(by="")
        shortfall = labels_needed(
            validation.false_passes,
            validation.human_labels,
            needed,
            alpha=alpha,
            compared=compared,
        )
        return shortfall.if_all_right


def proven_accuracy(
    errors: int, n: int, judged: JudgeValidation | None, level: Level
) -> float:
    """Return the accuracy that a result proves at a level.

    With a judge: the proven share of answers that it passed, less the share of wrong answers that
    it may pass. Each is bounded at half the level, so that both bounds are valid together.
    """
    alpha = _alpha(judged, level)
    compared = level.compared
    passed = lower_bound(errors, n, alpha=alpha, compared=compared) if n else 0.0
    if judged is None:
        return passed
    if not judged.human_labels or judged.open_labels:
        return 0.0
    reliable = lower_bound(
        judged.false_passes, judged.human_labels, alpha=alpha, compared=compared
    )
    return max(0.0, passed - (1 - reliable))


def score(
    evaluation: Evaluation,
    models: tuple[str, ...],
    examples: Sequence[Example],
    threshold: float | None = None,
    keeps: Mapping[str, Mapping[str, float | None]] | None = None,
) -> list[ScoredExample]:
    """Run examples through a model or a chain and score each answer.

    `keeps` are the fields that are kept of each model, in a step by field.
    Raises BudgetExceeded when the budget is exhausted: half a measurement proves nothing.
    """
    # the confidence of the first model alone decides whether the next one is asked
    thresholds = {} if threshold is None else {models[0]: threshold}
    name = " > ".join(models)
    documents = [example.document() for example in examples]
    with _recorded_run(evaluation, name) as run:
        job = evaluation.engine.job(
            run,
            evaluation.step,
            evaluation.parameters,
            models=models,
            thresholds=thresholds,
            keeps=keeps or {},
        )
        outcomes = _run(evaluation, job, documents, name)
    scored = [
        ScoredExample(example, outcome, right=_is_right(evaluation, example, outcome))
        for example, outcome in zip(examples, outcomes, strict=True)
    ]
    if evaluation.judge:
        return _judged(evaluation, scored, name)
    return scored


def _is_right(evaluation: Evaluation, example: Example, outcome: Outcome) -> bool:
    """Return True for a right answer. Raises ConfigError where the project's measure fails."""
    step = evaluation.step
    if outcome.status != "accepted" or step.correct is None:
        return False
    try:
        return bool(step.correct(outcome.value, example.expected))
    except Exception as error:  # noqa: BLE001 - a measure is the project's code
        raised = describe_exception(error)
        raise ConfigError(
            f"the measure of {step.name} raised {raised} on an answer to '{example.id}'; "
            "mend it, so that it is True or False for every answer (paid answers are kept)",
            path=evaluation.golden.path,
            line=example.line or None,
        ) from None


def measure(
    evaluation: Evaluation,
    models: tuple[str, ...],
    scored: Sequence[ScoredExample],
    threshold: float | None = None,
) -> Measurement:
    """Return the measurement of a candidate from its scored examples."""
    counted = scored
    coverage = None
    if threshold is not None:
        kept = sum(s.answered and s.outcome.model == models[0] for s in scored)
        coverage = kept / len(scored)
        if len(models) == 1:
            # the documents that the model hands on are the next model's to answer
            counted = [
                s for s in scored if s.answered or not is_handed_on(evaluation, s)
            ]
    reasons = Counter(s.outcome.reason for s in counted if not s.answered)
    commonest = reasons.most_common(1)
    latencies = [
        sum(attempt.latency_s for attempt in s.outcome.attempts) for s in scored
    ]
    return Measurement(
        models=models,
        n=len(counted),
        errors=sum(not s.right for s in counted),
        deferred=reasons.total(),
        threshold=threshold,
        coverage=coverage,
        mean_cost=_mean_cost(evaluation.engine, scored),
        mean_usage=_mean_usage(models, scored),
        latency_p50_s=round(median(latencies), 3),
        wrong=tuple(
            wrong_answer(evaluation.step, s.example, s.outcome, unscored=s.unscored)
            for s in counted
            if not s.right
        ),
        served=served_names(scored),
        served_since=_served_since(evaluation.engine, scored),
        items=len(scored),
        wrong_items=tuple(
            sorted(item_key(s.example.text) for s in counted if not s.right)
        ),
        no_answer=commonest[0][0] if commonest else "",
        judged=_validated(evaluation, counted),
    )


def item_key(text: str) -> str:
    """Return the first digits of a golden text's SHA-256, by which a certificate names it."""
    return text_hash(text)[:12]


def served_names(scored: Sequence[ScoredExample]) -> dict[str, tuple[str, ...]]:
    """Return what each model's server called it, where it said; rare names are left out."""
    counts: dict[str, Counter[str]] = {}
    for s in scored:
        for attempt in s.outcome.attempts:
            if attempt.served_model:
                names = counts.setdefault(attempt.model, Counter())
                names[attempt.served_model] += 1
    served = {}
    for model, names in counts.items():
        most = names.most_common()
        served[model] = tuple(
            name for name, count in most if count * 5 >= names.total()
        )
    return served


def _served_since(engine: Engine, scored: Sequence[ScoredExample]) -> float | None:
    """Return when the last of the answers was made, of those with a served name.

    For an answer that was paid before, that is when it was paid: so a measurement that is repeated
    without a new call gives the same certificate.
    """
    calls = {
        attempt.call_hash
        for s in scored
        for attempt in s.outcome.attempts
        if attempt.served_model
    }
    return engine.ledger.served.last_made(calls)


def is_handed_on(evaluation: Evaluation, scored: ScoredExample) -> bool:
    """Return True if a document without an answer goes to the next model, by the rules."""
    attempts = scored.outcome.attempts
    if not attempts:
        return True
    last_verdicts = attempts[-1].verdicts
    failed = {verdict.check for verdict in last_verdicts if verdict.passed is False}
    escalating = set(evaluation.engine.policy.rules.escalate.on)
    return not failed or bool(failed & escalating)


def answers_by_id(scored: Sequence[ScoredExample]) -> dict[str, Mapping[str, Any]]:
    """Return the answers by the examples' ids, without the missing ones."""
    answers: dict[str, Mapping[str, Any]] = {}
    for each in scored:
        if each.answered:
            answers[each.example.id] = each.outcome.value
    return answers


@contextmanager
def _recorded_run(evaluation: Evaluation, candidate: str) -> Iterator[RunContext]:
    """Open a run of its own in the ledger, on the evaluation's budget."""
    with evaluation.engine.recorded_run(
        f"certify {evaluation.step.name}: {candidate}",
        budget_usd=evaluation.budget_usd,
        budget_name=evaluation.budget_name,
        patience_s=evaluation.patience_s,
    ) as run:
        # All runs of one evaluation share the time since when answers are asked for again.
        yield replace(run, fresh_since=evaluation.fresh_since or run.fresh_since)


def _run(
    evaluation: Evaluation, job: Job, documents: Sequence[Document], candidate: str
) -> list[Outcome]:
    """Return the outcome of each document. Raises BudgetExceeded if any was not paid for."""
    done = 0

    def count(_: Document, __: Outcome) -> None:
        nonlocal done
        done += 1
        evaluation.on_progress(candidate, done, len(documents))

    evaluation.on_progress(candidate, 0, len(documents))
    with evaluation.engine.on_outcome(count):
        batch = evaluation.engine.run_job(
            job, Batch(tuple(documents), total=len(documents))
        )
    outcomes = [document.outcomes[job.step.name] for document in batch.load()]
    unpaid = [outcome.reason for outcome in outcomes if outcome.cause == "budget"]
    if unpaid:
        paid = len(outcomes) - len(unpaid)
        raise BudgetExceeded(
            f"{candidate}: {unpaid[0]}; "
            f"{paid} of {len(outcomes)} answers are paid and kept, "
            "so a run with a higher --budget-usd continues from there"
        )
    return outcomes


def _judged(
    evaluation: Evaluation, scored: Sequence[ScoredExample], candidate: str
) -> list[ScoredExample]:
    """Return the scored examples with a judge's verdict on each answer that can be right."""
    rubric = evaluation.rubric
    judge_name = evaluation.judge
    # what fails the rubric's own needs is wrong already, and is not paid for
    undecided = [s for s in scored if s.right]
    if rubric is None or judge_name is None or not undecided:
        return list(scored)
    name = f"{candidate}, judged by {judge_name}"
    documents = [judge.judge_document(s.example, s.outcome) for s in undecided]
    with _recorded_run(evaluation, name) as run:
        job = judge.judge_job(
            evaluation.engine, run, evaluation.step, rubric, judge_name
        )
        outcomes = _run(evaluation, job, documents, name)
    verdicts = {
        s.example.id: judge.passes_rubric(outcome)
        for s, outcome in zip(undecided, outcomes, strict=True)
    }
    judged = []
    for s in scored:
        if s.example.id in verdicts:
            verdict = verdicts[s.example.id]
            # None: the verdict could not be read, which counts as wrong
            judged.append(replace(s, right=verdict is True, unscored=verdict is None))
        else:
            judged.append(s)
    return judged


def _validated(
    evaluation: Evaluation, scored: Sequence[ScoredExample]
) -> JudgeValidation | None:
    """Return the judge's validation by human labels; None where nothing was judged."""
    if not evaluation.judge or not evaluation.rubric:
        return None
    unscored = sum(s.unscored for s in scored)
    return judge.with_human_labels(
        evaluation.labels,
        answers_by_id(scored),
        passed={s.example.id: s.right for s in scored},
        validation=JudgeValidation(by=evaluation.judge, unscored=unscored),
    )


def _alpha(judged: JudgeValidation | None, level: Level) -> float:
    """Return alpha for the golden set: half of it goes to the judge's errors, if there is one."""
    return level.alpha if judged is None else level.alpha / 2


def _typical_attempts(outcome: Outcome) -> list[Attempt]:
    """Return the attempts that show a candidate's cost: not passing faults without usage."""
    return [
        attempt for attempt in outcome.attempts if attempt.usage or not attempt.error
    ]


def _mean_cost(engine: Engine, scored: Sequence[ScoredExample]) -> Decimal | None:
    """Return USD a document, counting no earlier payment; None when unknown."""
    catalog = engine.policy.catalog
    costs = []
    for s in scored:
        for attempt in _typical_attempts(s.outcome):
            model = catalog.model(attempt.model)
            costs.append(model.cost(attempt.usage))
    cost = total(costs)
    if cost is None:
        return None
    return round(cost / len(scored), 10)


def _mean_usage(
    models: tuple[str, ...], scored: Sequence[ScoredExample]
) -> dict[str, MeanUsage] | None:
    """Return tokens a document for each model; None when a server did not report them."""
    usages: dict[str, list[Usage]] = {model: [] for model in models}
    for s in scored:
        for attempt in _typical_attempts(s.outcome):
            if not attempt.usage:
                return None
            usages.setdefault(attempt.model, []).append(attempt.usage)
    return {model: _mean(usages[model], len(scored)) for model in models}


def _mean(usages: Sequence[Usage], documents: int) -> MeanUsage:
    def mean(tokens: int) -> float:
        return round(tokens / documents, 3)

    return MeanUsage(
        prompt_tokens=mean(sum(usage.prompt_tokens for usage in usages)),
        cached_tokens=mean(sum(usage.cached_tokens for usage in usages)),
        completion_tokens=mean(sum(usage.completion_tokens for usage in usages)),
        cache_write_tokens=mean(sum(usage.cache_write_tokens for usage in usages)),
        cache_write_1h_tokens=mean(
            sum(usage.cache_write_1h_tokens for usage in usages)
        ),
    )
