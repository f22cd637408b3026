"""Measure candidates on a golden set, through the same cascade, prompts and checks as production."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from statistics import median
from typing import Any

from tierwise.cascade import Job, RunContext
from tierwise.engine import Engine
from tierwise.errors import BudgetExceeded
from tierwise.evidence import judge
from tierwise.evidence.judge import Judged, Label
from tierwise.policy.certificates import ALPHA, MeanUsage, Shortfall, labels_needed, lower_bound
from tierwise.records import Attempt, Batch, Document, Outcome
from tierwise.steps.correctness import Rubric
from tierwise.steps.examples import Example, GoldenSet
from tierwise.steps.step import Step

Told = Callable[
    [str, int, int], None
]  # what is under way, how many documents are done, of how many


@dataclass(frozen=True, kw_only=True)
class Exam:
    """One step and the golden set that candidates for it are measured on."""

    engine: Engine
    step: Step
    golden: GoldenSet
    parameters: Mapping[str, Any]
    judge: str | None = None  # catalog name
    labels: tuple[Label, ...] = ()  # by people, to hold the judge against
    budget_usd: Decimal | None = None  # for everything that is measured
    budget_name: str = field(default_factory=lambda: f"certify {uuid.uuid4().hex[:8]}")
    fresh_since: float | None = None  # epoch seconds: answers paid before are asked for again
    told: Told = lambda what, done, total: None  # noqa: ARG005

    @property
    def rubric(self) -> Rubric | None:
        """The criteria that need a judge."""
        return self.step.correct if isinstance(self.step.correct, Rubric) else None

    @property
    def floor(self) -> float | None:
        """The least quality that the rules ask of the step."""
        return self.engine.policy.rules.floors.get(self.step.name)


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of one example; `unscored` where a judge's verdict could not be read."""

    example: Example
    outcome: Outcome
    right: bool
    unscored: bool = False

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self.outcome.status == "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one candidate did: a model, or a chain, or either with a threshold on its first model.

    A single model with a threshold is measured on what it keeps; everything else on all that it was given.
    """

    models: tuple[str, ...]
    n: int
    errors: int  # wrong answers and those that were not given
    deferred: int  # of the errors, those without an answer
    threshold: float | None = None
    coverage: float | None = (
        None  # share of the documents that the first model answered itself, under a threshold
    )
    mean_cost: Decimal | None = (
        None  # USD a document, as if nothing had been paid before; None when unknown
    )
    mean_usage: Mapping[str, MeanUsage] | None = None
    latency_p50_s: float | None = None
    wrong: tuple[str, ...] = ()  # ids
    no_answer: str = ""  # the commonest reason for having none
    judged: Judged | None = None

    @property
    def name(self) -> str:
        """`small`, `small > large`, or `small if 0.83 sure > large`."""
        first, *rest = self.models
        sure = "" if self.threshold is None else f" if {self.threshold:.2f} sure"
        return " > ".join([first + sure, *rest])

    def bound(self, compared: int) -> float:
        """What the result proves, one-sided 95 %, among so many candidates; 0 for a judge without people's labels."""
        return proven(self.errors, self.n, self.judged, compared)

    def shortfall(self, floor: float, compared: int) -> Shortfall:
        """What golden examples are missing for a floor."""
        return labels_needed(
            self.errors, self.n, floor, alpha=_level(self.judged), compared=compared
        )

    def labels_for_the_judge(self, floor: float, compared: int) -> int | None:
        """How many more labels by people would do, if the judge passes no wrong answer; None: none would."""
        found = self.judged or Judged(by="")
        left = floor + 1 - lower_bound(self.errors, self.n, alpha=ALPHA / 2, compared=compared)
        if left >= 1:
            return None
        counts = found.false_passes, found.human_labels
        return labels_needed(*counts, left, alpha=ALPHA / 2, compared=compared).if_all_right


def proven(errors: int, n: int, judged: Judged | None, compared: int) -> float:
    """The pass rate that a result proves.

    With a judge: its proven pass rate, less the share of answers that it may pass although they are wrong,
    each at half the level, so that both hold together.
    """
    passed = lower_bound(errors, n, alpha=_level(judged), compared=compared) if n else 0.0
    if judged is None:
        return passed
    if not judged.human_labels or judged.open_labels:
        return 0.0
    trusted = lower_bound(
        judged.false_passes, judged.human_labels, alpha=_level(judged), compared=compared
    )
    return max(0.0, passed - (1 - trusted))


def score(
    exam: Exam, models: tuple[str, ...], examples: Sequence[Example], threshold: float | None = None
) -> list[Scored]:
    """Run examples through a model or a chain, and say of each answer whether it is right.

    Raises BudgetExceeded when money runs out: half a measurement proves nothing.
    """
    thresholds = {} if threshold is None else {models[0]: threshold}
    name = " > ".join(models)
    with _recorded(exam, name) as run:
        job = exam.engine.job(run, exam.step, exam.parameters, models=models, thresholds=thresholds)
        outcomes = _through(exam, job, [example.document() for example in examples], name)
    correct = exam.step.correct
    scored = [
        Scored(
            e, o, o.status == "accepted" and correct is not None and correct(o.value, e.expected)
        )
        for e, o in zip(examples, outcomes, strict=True)
    ]
    return _judged(exam, scored, name) if exam.judge else scored


def measured(
    exam: Exam, models: tuple[str, ...], scored: Sequence[Scored], threshold: float | None = None
) -> Measurement:
    """What scored examples say of a candidate."""
    alone = threshold is not None and len(models) == 1
    counted = [s for s in scored if s.answered or not handed_on(exam, s)] if alone else scored
    kept = sum(s.answered and s.outcome.model == models[0] for s in scored)
    unanswered = Counter(s.outcome.reason for s in counted if not s.answered)
    seconds = [sum(attempt.latency_s for attempt in s.outcome.attempts) for s in scored]
    costs = [_cost(exam.engine, s.outcome) for s in scored]
    known = [cost for cost in costs if cost is not None]
    return Measurement(
        models=models,
        n=len(counted),
        errors=sum(not s.right for s in counted),
        deferred=unanswered.total(),
        threshold=threshold,
        coverage=None if threshold is None else kept / len(scored),
        mean_cost=round(sum(known, Decimal(0)) / len(known), 10)
        if len(known) == len(costs)
        else None,
        mean_usage=_mean_usage(models, scored),
        latency_p50_s=round(median(seconds), 3),
        wrong=tuple(s.example.id for s in counted if not s.right),
        no_answer=unanswered.most_common(1)[0][0] if unanswered else "",
        judged=_held_against(exam, counted) if exam.judge and exam.rubric else None,
    )


def handed_on(exam: Exam, scored: Scored) -> bool:
    """Whether a document that a model did not answer goes on to the next one, as the rules have it."""
    last = scored.outcome.attempts[-1] if scored.outcome.attempts else None
    failed = (
        {verdict.check for verdict in last.verdicts if verdict.passed is False} if last else set()
    )
    return not failed or bool(failed & set(exam.engine.policy.rules.escalate.on))


def answers(scored: Sequence[Scored]) -> dict[str, Mapping[str, Any]]:
    """The answers that were given, by the examples' ids."""
    return {s.example.id: s.outcome.value for s in scored if s.answered}


@contextmanager
def _recorded(exam: Exam, what: str) -> Iterator[RunContext]:
    """A run of its own on record, on the exam's budget."""
    run = exam.engine.start_run(
        f"certify {exam.step.name}: {what}",
        budget_usd=exam.budget_usd,
        budget_name=exam.budget_name,
    )
    try:
        yield replace(run, fresh_since=exam.fresh_since or run.fresh_since)
    except BaseException as error:
        exam.engine.finish_run(run, "failed" if isinstance(error, Exception) else "cancelled")
        raise
    exam.engine.finish_run(run, "completed")


def _through(exam: Exam, job: Job, documents: Sequence[Document], what: str) -> list[Outcome]:
    """The outcome of each document."""
    done = 0

    def count(_: Document, __: Outcome) -> None:
        nonlocal done
        done += 1
        exam.told(what, done, len(documents))

    exam.told(what, 0, len(documents))
    with exam.engine.watched_by(count):
        batch = exam.engine.run_job(job, Batch(tuple(documents), total=len(documents)))
    outcomes = [document.outcomes[job.step.name] for document in batch.documents]
    unpaid = [outcome.reason for outcome in outcomes if outcome.cause == "budget"]
    if unpaid:
        paid = len(outcomes) - len(unpaid)
        raise BudgetExceeded(
            f"{what}: {unpaid[0]}; {paid} of {len(outcomes)} answers are paid and kept, "
            "so a run with a higher --budget-usd goes on from there"
        )
    return outcomes


def _judged(exam: Exam, scored: Sequence[Scored], name: str) -> list[Scored]:
    """The same with a judge's verdict on each answer that still can be right."""
    rubric = exam.rubric
    by = exam.judge
    open_ones = [s for s in scored if s.right]
    if rubric is None or by is None or not open_ones:
        return list(scored)
    with _recorded(exam, f"{name}, judged by {by}") as run:
        job = judge.judging(exam.engine, run, exam.step, rubric, by)
        briefs = [judge.brief(s.example, s.outcome) for s in open_ones]
        verdicts = map(judge.passed, _through(exam, job, briefs, f"{name}, judged by {by}"))
    known = dict(zip((s.example.id for s in open_ones), verdicts, strict=True))
    return [
        replace(s, right=known[s.example.id] is True, unscored=known[s.example.id] is None)
        if s.example.id in known
        else s
        for s in scored
    ]


def _held_against(exam: Exam, scored: Sequence[Scored]) -> Judged:
    found = Judged(by=exam.judge or "", unscored=sum(s.unscored for s in scored))
    return judge.held_against(
        exam.labels, answers(scored), {s.example.id: s.right for s in scored}, found
    )


def _level(judged: Judged | None) -> float:
    """Alpha for the golden set: half of it goes to the judge's own errors, where there is one."""
    return ALPHA if judged is None else ALPHA / 2


def _answering(outcome: Outcome) -> list[Attempt]:
    """The attempts that say what an outcome takes: a fault of the day that reported no tokens says nothing."""
    return [attempt for attempt in outcome.attempts if attempt.usage or not attempt.error]


def _cost(engine: Engine, outcome: Outcome) -> Decimal | None:
    """USD of an outcome when nothing was paid before."""
    costs = [engine.policy.catalog.model(a.model).cost(a.usage) for a in _answering(outcome)]
    return None if None in costs else sum((c for c in costs if c is not None), Decimal(0))


def _mean_usage(models: tuple[str, ...], scored: Sequence[Scored]) -> dict[str, MeanUsage] | None:
    """Tokens a document for each model; None when a server did not say."""
    attempts = [attempt for s in scored for attempt in _answering(s.outcome)]
    usages = [(attempt.model, attempt.usage) for attempt in attempts if attempt.usage]
    if len(usages) < len(attempts):
        return None

    def mean(tokens: Iterable[int]) -> float:
        return round(sum(tokens) / len(scored), 3)

    return {
        model: MeanUsage(
            prompt_tokens=mean(usage.prompt_tokens for name, usage in usages if name == model),
            cached_tokens=mean(usage.cached_tokens for name, usage in usages if name == model),
            completion_tokens=mean(
                usage.completion_tokens for name, usage in usages if name == model
            ),
        )
        for model in models
    }
