"""What the pages on labels show: the next item of a person, and how far people agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tierwise.cascade.shadow import agreement
from tierwise.desk.access import Person
from tierwise.desk.desk import Desk
from tierwise.ledger.people.label_order import LabelOrder, OpenDecision, label_order
from tierwise.ledger.people.labels import Label, People, Right, settled, waits_for
from tierwise.ledger.people.samples import Item
from tierwise.policy.kappa import Kappa, cohens_kappa
from tierwise.records import Sensitivity, highest
from tierwise.steps.step import Step

Labels = Mapping[str, Sequence[Label]]


@dataclass(frozen=True, kw_only=True)
class StepLabels:
    """The labels of one step, as one person sees them."""

    step: str
    waiting: int  # for this person
    differing: int  # of them, those on which two others differ
    settled: int
    kappa: Kappa
    decisions: Sequence[OpenDecision]


@dataclass(frozen=True, kw_only=True)
class SampledOutcome:
    """What the ledger has of a sampled document besides the answers."""

    sensitivity: Sensitivity
    question: str | None
    schema: Mapping[str, Any]


def order_of(desk: Desk, step: str | None = None) -> LabelOrder:
    """Return what to label next, of one step or of all."""
    return label_order(
        desk.ledger.samples.recorded(),
        desk.project.certificates,
        desk.project.rules.share_floors,
        step=step,
    )


def items_for(
    order: LabelOrder, labels: Labels, person: str, people: People
) -> list[Item]:
    """Return the items that wait for a person, the next one first.

    Those on which two others differ come first: a third person settles them at once.
    """
    waiting = [
        item
        for item in order.items
        if waits_for(labels.get(item.id, ()), person, people)
    ]
    waiting.sort(key=lambda item: len(labels.get(item.id, ())) < 2)
    return waiting


def labels_by_step(
    order: LabelOrder, labels: Labels, person: str, people: People
) -> list[StepLabels]:
    """Return the state of each step with samples."""
    of_steps: dict[str, dict[str, Sequence[Label]]] = defaultdict(dict)
    for item, of_item in labels.items():
        if of_item:
            of_steps[of_item[0].step][item] = of_item
    steps = {*of_steps, *(item.accepted.step for item in order.items)}
    mine = items_for(order, labels, person, people)
    found = []
    for step in sorted(steps):
        waiting = [item for item in mine if item.accepted.step == step]
        differing = [item for item in waiting if len(labels.get(item.id, ())) >= 2]
        of_step = of_steps[step]
        found.append(
            StepLabels(
                step=step,
                waiting=len(waiting),
                differing=len(differing),
                settled=sum(settled(each) is not None for each in of_step.values()),
                kappa=cohens_kappa(pairs_of(of_step.values())),
                decisions=[each for each in order.decisions if each.step == step],
            )
        )
    return found


def pairs_of(labels: Iterable[Sequence[Label]]) -> list[tuple[str, str]]:
    """Return the first two labels of each item that two people labelled independently."""
    pairs: list[tuple[str, str]] = []
    for of_item in labels:
        # A first label that settled its item was seen by whoever labelled the item after that.
        if len(of_item) < 2 or of_item[0].settles:
            continue
        pairs.append((of_item[0].word, of_item[1].word))
    return pairs


def outcome_of(desk: Desk, item: Item) -> SampledOutcome:
    """Return the sensitivity and the schema of a sampled document."""
    sample = item.accepted
    rows = list(desk.ledger.runs.outcomes(sample.run_id, sample.document_id))
    levels = [row.outcome.sensitivity for row in rows]
    question = None
    for row in rows:
        if row.outcome.step == sample.step:
            question = row.question
    schema = desk.ledger.reviews.schema(question or "") or {}
    return SampledOutcome(
        # a document whose rows are gone is treated as the most sensitive one
        sensitivity=highest(*levels) if levels else "restricted",
        question=question,
        schema=schema,
    )


def may_see(desk: Desk, person: Person, item: Item) -> bool:
    """Return True if a person may read a sampled document."""
    return desk.access.may_see(person, outcome_of(desk, item).sensitivity)


def word_of_answer(step: Step, item: Item, answer: Any) -> Right | None:
    """Return the label that follows from a person's own answer, by the step's measure.

    None where no program can compare the answers, so that the person has to.
    """
    is_right = agreement(step, item.accepted.value, answer)
    if is_right is None:
        return None
    if not item.asks_both:
        return "accepted" if is_right else "neither"
    if item.shadow is None:
        return None
    if item.shadow.agreed:
        return "both" if is_right else "neither"
    shadow_is_right = agreement(step, item.shadow.value, answer)
    if shadow_is_right is None:
        return None
    if is_right and shadow_is_right:
        return "both"
    if is_right:
        return "accepted"
    return "shadow" if shadow_is_right else "neither"
