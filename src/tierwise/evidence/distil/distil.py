"""A teacher labels documents within a budget, through production's cascade and guards.

First documents to learn from, in rounds: see `select`. Then a uniform sample of the documents that
were set aside, on which a classifier is certified to agree with the teacher. Whatever is paid is on
record in the ledger, and kept in the file of the teacher's labels: a second call goes on from there.
"""

from __future__ import annotations

import math
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from tierwise.engine import Engine
from tierwise.errors import ConfigError, Misuse
from tierwise.evidence.certify.levels import alpha_of_look
from tierwise.evidence.certify.measure import Evaluation
from tierwise.evidence.distil.labels import (
    Purpose,
    TeacherLabel,
    TeacherLabels,
    label_of,
)
from tierwise.evidence.distil.pool import Pool
from tierwise.evidence.distil.select import (
    at_random,
    doubtful_and_random,
    unlike_each_other,
)
from tierwise.evidence.training.labelled import LEAST, Labelled
from tierwise.evidence.training.train import train
from tierwise.gateway.learned.classifier import Classifier
from tierwise.policy.catalog import Model
from tierwise.policy.router import worst_case
from tierwise.records import Batch, Document, Outcome, canonical_hash, highest
from tierwise.steps.examples import Example, GoldenSet
from tierwise.steps.step import Step
from tierwise.text.amounts import plural
from tierwise.text.terms import normalised
from tierwise.text.tokens import count_tokens
from tierwise.text.vectors import Encoder

# called with an activity, its documents done, and all of them
OnProgress = Callable[[str, int, int], None]
_SMALLEST_ROUND = 50  # documents: each round trains a classifier
_ROUNDS = 5  # of labelling, before the classifier is trained for good
_FRAME = 400  # tokens of a prompt around the text, for a first guess at its cost
_SPARE = Decimal("0.95")  # of the money that is left: documents differ in length
# a document with such an outcome has no label of this teacher, however often it is asked
_FINAL_CAUSES = ("failed_checks", "refused", "review")


def _ignore_progress(activity: str, done: int, documents: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Sizes:
    """The most documents to learn from, and to certify with."""

    learn: int = 1500
    certify: int = 800

    @property
    def learning_share(self) -> Decimal:
        """The share of the budget for documents to learn from."""
        return Decimal(self.learn) / Decimal(self.learn + self.certify)


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """One step, its teacher, and the classifier that learns from it."""

    engine: Engine
    step: Step
    parameters: Mapping[str, Any]
    label_field: str  # of the step's output
    labels: tuple[str, ...]  # that the step allows
    teacher: str
    classifier: str
    sizes: Sizes = Sizes()
    budget_usd: Decimal | None = None
    budget_name: str = field(default_factory=lambda: f"distil {uuid.uuid4().hex[:8]}")
    encoders: Mapping[str, Encoder] = field(default_factory=dict)
    terms: bool = True
    on_progress: OnProgress = _ignore_progress

    @property
    def floor(self) -> float:
        """The agreement floor of the step. Raises Misuse where the rules give none."""
        floor = self.engine.policy.rules.agreement_floors.get(self.step.name)
        if floor is None:
            raise Misuse(
                f"the rules give no agreement floor for {self.step.name}; write how often a model "
                "must agree with its teacher into routing_rules/rules.yaml, such as\n\n"
                f"agreement_floors: {{{self.step.name}: 0.90}}"
            )
        return floor

    @property
    def question(self) -> tuple[str, str]:
        """The teacher's identity, and the hash of what it is asked."""
        current = self.engine.current(self.step, self.parameters)
        if self.teacher not in current.identities:
            missing = current.unidentified.get(self.teacher, "it is not known here")
            raise Misuse(f"{self.teacher} cannot be a teacher here: {missing}")
        asked = canonical_hash([current.prompt_hash, current.step_hash])[:16]
        return current.identities[self.teacher], asked


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A classifier that learned from the teacher's labels, and what hindered more of them."""

    classifier: Classifier
    labels: tuple[TeacherLabel, ...]
    stopped: str = ""  # why there are fewer than wanted


@dataclass(frozen=True, kw_only=True)
class AgreementSample:
    """A uniform sample with the teacher's labels; incomplete where `missing` says why."""

    examples: tuple[Example, ...] = ()
    missing: str = ""


@dataclass
class _Asked:
    """What came of one round of questions."""

    labels: list[TeacherLabel] = field(default_factory=list)
    unpaid: str = ""  # the first reason
    faults: Counter[str] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)


@dataclass
class Money:
    """What is left of the budget, and what a document costs; None: nothing has to be paid."""

    left: Decimal | None
    each: Decimal | None

    def affords(self, amount: Decimal | None = None) -> float:
        """Return how many documents can be paid from an amount, or from all that is left."""
        available = self.left if amount is None else amount
        if available is None or not self.each:
            return math.inf
        return max(0, math.floor(available / self.each))


def check_distillable(
    distillation: Distillation, pool: Pool, earlier_looks: int
) -> None:
    """Raise Misuse for what cannot lead to a certificate, before anything is spent."""
    step = distillation.step
    check_teacher(distillation)
    prompt = distillation.engine.prompts[step.prompt]
    if prompt.earlier_steps:
        steps = ", ".join(sorted(prompt.earlier_steps))
        raise Misuse(
            f"the prompt of {step.name} reads outcomes of earlier steps ({steps}), and a teacher "
            "labels documents as they are read; only a step without them can be distilled"
        )
    documents = len(pool.learn) + len(pool.certify)
    if not documents:
        raise Misuse(_nothing_left(distillation, pool))
    if not (min(len(pool.learn), distillation.sizes.learn) >= LEAST):
        raise Misuse(
            f"{plural(documents, 'document')} are too few: {len(pool.learn)} to learn from, and "
            f"{len(pool.certify)} to certify with; it takes at least {LEAST} to learn from"
        )
    needed = fewest_kept(distillation.floor, earlier_looks + 1)
    available = min(len(pool.certify), distillation.sizes.certify)
    if needed > available:
        limit = f"--certify {distillation.sizes.certify}"
        if len(pool.certify) < distillation.sizes.certify:
            limit = f"{len(pool.certify)} of the documents, which are set aside for it"
        raise Misuse(
            f"an agreement of {distillation.floor:g} takes at least {needed} documents without a "
            f"disagreement, and there are {limit}; give more documents, or a lower floor"
        )


def check_teacher(distillation: Distillation) -> None:
    """Raise Misuse for a model that cannot be the teacher."""
    policy = distillation.engine.policy
    teacher = policy.catalog.model(distillation.teacher)
    if teacher.name == distillation.classifier:
        raise Misuse(
            f"{teacher.name} is the classifier that learns: it agrees with itself always; "
            "name a strong model as the teacher"
        )
    if teacher.learned is not None:
        raise Misuse(
            f"{teacher.name} is a trained classifier, and no teacher; name a strong language model"
        )
    unusable = policy.unusable(teacher, distillation.step.name)
    if unusable is not None:
        raise Misuse(f"{teacher.name} cannot be asked: {unusable.reason}")
    is_unpriced = teacher.price == "unknown"
    if is_unpriced and teacher.name not in policy.rules.budget.allow_unpriced:
        raise Misuse(
            f"the price of {teacher.name} is unknown, so no budget holds; write it into the "
            "catalog, or the model into budget.allow_unpriced"
        )
    if is_paid(teacher) and distillation.budget_usd is None:
        raise Misuse(
            f"{teacher.name} costs money: give the most to spend by --budget-usd"
        )


def is_paid(model: Model) -> bool:
    """Return True for a model that has, or may have, a price."""
    if model.price == "unknown":
        return True
    return not model.price.is_zero


def fewest_kept(floor: float, look: int) -> int:
    """Return the fewest documents without a disagreement that show a floor at a look.

    One of two walks may have to show it alone.
    """
    return math.ceil(math.log(alpha_of_look(look) / 2) / math.log(floor))


def _nothing_left(distillation: Distillation, pool: Pool) -> str:
    """Return why there is no document to label."""
    if pool.withheld:
        return (
            f"no document is left that {distillation.teacher} may see: "
            f"{pool.withheld_because} ({plural(pool.withheld, 'document')}); "
            "name a teacher that the guards allow"
        )
    if pool.unreadable:
        return f"none of {plural(pool.read, 'document')} can be read"
    if pool.labelled_by_people:
        return (
            f"all {plural(pool.labelled_by_people, 'document')} are labelled in golden/ already; "
            "give a source with others"
        )
    return "there is no document to label"


def label_to_learn(
    distillation: Distillation, pool: Pool, labels: TeacherLabels, money: Money
) -> tuple[Learned, TeacherLabels]:
    """Let the teacher label documents to learn from, and train the classifier.

    Raises Misuse where the teacher gives no labels of the step.
    """
    identity, asked = distillation.question
    sizes = distillation.sizes
    stopped = ""
    while True:
        mine = labels.of(identity, asked, "learn")
        known = {label.key[0] for label in mine}
        unlabelled = [
            document
            for document in pool.learn
            if _key(document, identity, asked)[0] not in known
        ]
        wanted = min(sizes.learn - len(mine), len(unlabelled))
        if wanted <= 0:
            break
        share = None
        if money.left is not None:
            # what has been spent so far is spent of the share for learning
            kept_back = (distillation.budget_usd or Decimal(0)) * (
                1 - sizes.learning_share
            )
            share = max(Decimal(0), money.left - kept_back)
        size = min(_round(distillation, pool), wanted, money.affords(share))
        if size < 1:
            stopped = "the budget for learning is used up"
            break
        by_clusters = len(mine) < _round(distillation, pool)
        chosen = _choose(
            distillation, unlabelled, mine, int(size), by_clusters=by_clusters
        )
        outcome = _ask(distillation, chosen, "learn", labels, money)
        labels = labels.with_labels(outcome.labels)
        if outcome.unpaid:
            stopped = outcome.unpaid
            break
        if outcome.faults:
            [(reason, _)] = outcome.faults.most_common(1)
            stopped = f"{plural(outcome.faults.total(), 'call')} failed: {reason}"
            break
        _refuse_other_labels(distillation, outcome)
    mine = labels.of(identity, asked, "learn")
    return _learned(distillation, mine, stopped), labels


def _round(distillation: Distillation, pool: Pool) -> int:
    """Return the documents of a round of labelling."""
    wanted = min(distillation.sizes.learn, len(pool.learn))
    return max(_SMALLEST_ROUND, math.ceil(wanted / _ROUNDS))


def _choose(
    distillation: Distillation,
    unlabelled: Sequence[Document],
    mine: Sequence[TeacherLabel],
    size: int,
    *,
    by_clusters: bool,
) -> list[Document]:
    """Return the documents of the next round."""
    if by_clusters:
        # of several encoders, the one that is named first
        encoder = next(iter(distillation.encoders.values()), None)
        return unlike_each_other(unlabelled, size, encoder)
    salt = f"round {len(mine)}"
    try:
        classifier = _fitted(distillation, mine)
    except ConfigError:
        # too few labels of two kinds so far
        return at_random(unlabelled, size, salt)
    predictions = classifier.predict(
        [document.text for document in unlabelled],
        sensitivity=highest(*(document.strictest for document in unlabelled)),
    )
    confidences = [prediction.confidence for prediction in predictions]
    return doubtful_and_random(unlabelled, confidences, size, salt)


def _learned(
    distillation: Distillation, mine: Sequence[TeacherLabel], stopped: str
) -> Learned:
    """Train the classifier for good. Raises Misuse where there are too few labels."""
    answered = [label for label in mine if label.label is not None]
    because = f" ({stopped})" if stopped else ""
    if len(answered) < LEAST:
        raise Misuse(
            f"{plural(len(answered), 'label')} of {distillation.teacher} are too few to learn "
            f"from, it takes {LEAST}{because}; those are kept, and another call goes on from there"
        )
    distillation.on_progress(f"training {distillation.classifier}", 0, len(answered))
    try:
        classifier = _fitted(distillation, answered)
    except ConfigError as error:
        raise Misuse(
            f"{distillation.classifier} cannot learn from {plural(len(answered), 'label')} of "
            f"{distillation.teacher}: {error.message}{because}"
        ) from None
    return Learned(classifier=classifier, labels=tuple(answered), stopped=stopped)


def _fitted(distillation: Distillation, labels: Sequence[TeacherLabel]) -> Classifier:
    examples = [
        Labelled(label.id, label.text, label.label)
        for label in labels
        if label.label is not None
    ]
    return train(
        examples,
        # a classifier without any label learned nothing, and is refused by `train`
        sensitivity=highest(*(label.sensitivity for label in labels)),
        labels=distillation.labels,
        encoders=distillation.encoders,
        terms=distillation.terms,
        teacher=distillation.teacher,
    )


def _refuse_other_labels(distillation: Distillation, outcome: _Asked) -> None:
    """Raise Misuse where most answers of a round had no label of the step."""
    unanswered = outcome.unanswered.total()
    if unanswered * 2 <= len(outcome.labels):
        return
    [(reason, _)] = outcome.unanswered.most_common(1)
    raise Misuse(
        f"{distillation.teacher} gave no acceptable answer for {unanswered} of "
        f"{plural(len(outcome.labels), 'document')}, most often: {reason}; "
        f"its answers need the labels of {distillation.step.name}: "
        f"{', '.join(distillation.labels)}"
    )


def label_to_certify(
    distillation: Distillation,
    pool: Pool,
    labels: TeacherLabels,
    money: Money,
    look: int,
) -> tuple[AgreementSample, TeacherLabels]:
    """Let the teacher label a uniform sample of the documents that were set aside.

    Its size is decided by the money alone, before an answer of it is known. A sample that the money
    does not suffice for proves nothing: answers that are missing may be those that differ.
    """
    identity, asked = distillation.question
    known = {label.key for label in labels.of(identity, asked, "certify")}
    affordable = money.affords(None if money.left is None else money.left * _SPARE)
    sample: list[Document] = []
    unlabelled: list[Document] = []
    for document in pool.certify[: distillation.sizes.certify]:
        if _key(document, identity, asked) not in known:
            if len(unlabelled) >= affordable:
                break
            unlabelled.append(document)
        sample.append(document)
    needed = fewest_kept(distillation.floor, look)
    if len(sample) < needed:
        return AgreementSample(
            missing=f"the budget is used up: {plural(len(sample), 'document')} could be labelled "
            f"to certify with, and it takes at least {needed}"
        ), labels
    if unlabelled:
        outcome = _ask(distillation, unlabelled, "certify", labels, money)
        labels = labels.with_labels(outcome.labels)
        if outcome.unpaid or outcome.faults:
            reason = outcome.unpaid or next(iter(outcome.faults))
            done = len(sample) - len(unlabelled) + len(outcome.labels)
            return AgreementSample(
                missing=f"{done} of {len(sample)} documents of the sample are labelled: {reason}"
            ), labels
    by_key = {label.key: label for label in labels.of(identity, asked, "certify")}
    examples = tuple(
        Example(
            id=document.id,
            text=document.text,
            # None: the teacher gave no answer, which no answer agrees with
            expected={
                distillation.label_field: by_key[_key(document, identity, asked)].label
            },
            sensitivity=document.strictest,
            language=document.language,
            metadata=document.metadata,
            outcomes={},
        )
        for document in sample
    )
    return AgreementSample(examples=examples), labels


def measured_agreement(
    engine: Engine,
    distillation: Distillation,
    sample: AgreementSample,
    labels: TeacherLabels,
    on_progress: OnProgress,
) -> Evaluation:
    """Return what `compare` measures: the step on the sample, right where the teacher agrees."""
    name = distillation.label_field

    def agrees(value: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
        teacher_said = expected[name]
        if teacher_said is None:
            # It gave no acceptable answer, and the classifier gave one: they differ.
            return False
        return bool(value.get(name) == teacher_said)

    return Evaluation(
        engine=engine,
        step=replace(distillation.step, correct=agrees),
        golden=GoldenSet(labels.path, sample.examples),
        parameters=distillation.parameters,
        teacher=distillation.teacher,
        on_progress=on_progress,
    )


def first_guess(distillation: Distillation, pool: Pool) -> Money:
    """Return the budget, with a guess at what a document costs: half of the longest answer."""
    model = distillation.engine.policy.catalog.model(distillation.teacher)
    if distillation.budget_usd is None:
        return Money(None, None)
    prompt = distillation.engine.prompts[distillation.step.prompt]
    some = [*pool.learn[:100], *pool.certify[:100]]
    tokens = sum(count_tokens(document.text) for document in some) // max(1, len(some))
    each = worst_case(model, tokens + _FRAME, prompt.head.max_output_tokens // 2)
    return Money(distillation.budget_usd, each)


def _key(document: Document, identity: str, asked: str) -> tuple[str, str, str]:
    return normalised(document.text), identity, asked


def _ask(
    distillation: Distillation,
    documents: Sequence[Document],
    purpose: Purpose,
    labels: TeacherLabels,
    money: Money,
) -> _Asked:
    """Ask the teacher, and keep its labels in the file, whatever ends it."""
    engine = distillation.engine
    identity, question = distillation.question
    aim = "learn from" if purpose == "learn" else "certify with"
    activity = f"{distillation.teacher} labels documents to {aim}"
    asked = _Asked()
    answered = 0
    spent: list[Decimal | None] = []

    def keep(document: Document, outcome: Outcome) -> None:
        nonlocal answered
        answered += 1
        paid = [attempt for attempt in outcome.attempts if not attempt.reused]
        spent.extend(attempt.cost for attempt in paid)
        _sort(distillation, document, outcome, purpose, identity, question, asked)
        distillation.on_progress(activity, answered, len(documents))

    distillation.on_progress(activity, 0, len(documents))
    try:
        with engine.recorded_run(
            f"distil {distillation.step.name}: {distillation.teacher}",
            budget_usd=distillation.budget_usd,
            budget_name=distillation.budget_name,
        ) as run:
            job = engine.job(
                run,
                distillation.step,
                distillation.parameters,
                models=(distillation.teacher,),
            )
            with engine.on_outcome(keep):
                engine.run_job(job, Batch(tuple(documents), total=len(documents)))
            if distillation.budget_usd is not None:
                money.left = run.budget.left
    finally:
        # also after a Ctrl-C: these labels are paid
        labels.with_labels(asked.labels).write(distillation.label_field)
    known = [cost for cost in spent if cost is not None]
    if known and asked.labels:
        money.each = sum(known, Decimal(0)) / len(known)
    return asked


def _sort(
    distillation: Distillation,
    document: Document,
    outcome: Outcome,
    purpose: Purpose,
    identity: str,
    question: str,
    asked: _Asked,
) -> None:
    """Put an outcome where it belongs: a label, no label for good, not paid, or a fault."""
    label = None
    if outcome.status == "accepted":
        label = outcome.value.get(distillation.label_field)
    elif outcome.cause in ("budget", "unpriced"):
        asked.unpaid = asked.unpaid or outcome.reason
        return
    elif outcome.cause not in _FINAL_CAUSES:
        asked.faults[outcome.reason] += 1
        return
    if label not in distillation.labels:
        label = None
        asked.unanswered[outcome.reason or "another label"] += 1
    asked.labels.append(
        label_of(
            document,
            label,
            teacher=distillation.teacher,
            identity=identity,
            asked=question,
            purpose=purpose,
        )
    )
