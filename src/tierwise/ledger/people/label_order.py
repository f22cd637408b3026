"""Which sample to label next: the one that most likely settles a decision.

Decisions are the demotion of a certificate in use, and the proof that a shadow is worth certifying.
The order chooses among decisions by their value. Within a decision, samples keep the order of
recording, and only those that chance marked as counted are evidence: so nothing is counted because
of what it shows. Disagreements that are not counted come last. They correct golden sets and train
models, and are no evidence.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tierwise.ledger.people.samples import (
    Audit,
    Item,
    chain_identities,
    evidence_of,
    in_order_of_recording,
    is_testable,
    waiting_items,
)
from tierwise.policy.certificates import Certificate, Certificates
from tierwise.policy.label_value import Decision, believe, value

# step, models as text, identity
_Version = tuple[str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenDecision:
    """A decision that labels may settle, and the samples that would."""

    step: str
    models: tuple[str, ...]
    decision: Decision
    waiting: tuple[str, ...]  # ids of counted items without a label, the oldest first
    unread: int  # counted items that are labelled, but come after one that is not
    value: float  # see `label_value.value`
    certificate: Certificate | None  # None of a shadow

    @property
    def is_settled(self) -> bool:
        """True if the labels so far settle it."""
        return self.decision.is_made(self.decision.evidence)


@dataclass(frozen=True, slots=True)
class LabelOrder:
    """The items to label, the next one first, and the decisions, the most valuable first."""

    items: tuple[Item, ...]
    decisions: tuple[OpenDecision, ...]

    def decisions_of(self, item: Item) -> list[OpenDecision]:
        """Return the decisions for which an item is, or was, a sample."""
        models = {(item.accepted.model, False)}
        if item.shadow is not None:
            models.add((item.shadow.model, True))
        found = []
        for each in self.decisions:
            of_shadow = each.certificate is None
            # an early answer of a chain is recorded under its first models
            names = [
                " > ".join(each.models[: length + 1])
                for length in range(len(each.models))
            ]
            of_item = any((name, of_shadow) in models for name in names)
            if each.step == item.accepted.step and of_item:
                found.append(each)
        return found


def label_order(
    audits: Sequence[Audit],
    certificates: Certificates,
    floors: Mapping[str, float],
    *,
    step: str | None = None,
) -> LabelOrder:
    """Return what to label next among these samples, of one step or of all."""
    if step is not None:
        audits = [audit for audit in audits if audit.step == step]
    decisions = [
        *_demotions(audits, certificates.all, floors),
        *_promotions(audits, floors),
    ]
    if step is not None:
        decisions = [each for each in decisions if each.step == step]
    decisions.sort(key=lambda each: (-each.value, -len(each.waiting), each.step))

    # An item that serves two decisions is worth the sum. One that comes later in the order of
    # recording is worth less, as it moves nothing before the others are labelled.
    worth: dict[str, float] = defaultdict(float)
    for each in decisions:
        for place, item_id in enumerate(each.waiting):
            worth[item_id] += each.value / (1 + place)
    queue = waiting_items(audits)
    valuable = [item for item in queue if worth[item.id] > 0]
    valuable.sort(key=lambda item: (-worth[item.id], *_recorded(item)))
    others = [item for item in queue if worth[item.id] <= 0]
    return LabelOrder(items=(*valuable, *others), decisions=tuple(decisions))


def _recorded(item: Item) -> tuple[float, str]:
    return in_order_of_recording(item.accepted)


def _demotions(
    audits: Sequence[Audit],
    certificates: Iterable[Certificate],
    floors: Mapping[str, float],
) -> list[OpenDecision]:
    """Return the decisions about certificates of which there are samples."""
    by_version: dict[_Version, list[Audit]] = defaultdict(list)
    for audit in audits:
        if not audit.shadow:
            by_version[audit.step, audit.model, audit.identity].append(audit)
    decisions = []
    for certificate in certificates:
        floor = floors.get(certificate.step)
        if not is_testable(floor):
            continue
        of_chain: list[Audit] = []
        for models, identity in chain_identities(certificate):
            of_chain += by_version[certificate.step, models, identity]
        if not of_chain:
            continue
        of_chain.sort(key=in_order_of_recording)
        decision = Decision("demotion", evidence_of(of_chain, floor))
        decisions.append(
            _open_decision(certificate.models, decision, of_chain, certificate)
        )
    return decisions


def _promotions(
    audits: Sequence[Audit], floors: Mapping[str, float]
) -> list[OpenDecision]:
    """Return the decisions about the last version of each shadow."""
    by_model: dict[tuple[str, str], list[Audit]] = defaultdict(list)
    for audit in audits:
        if audit.shadow:
            by_model[audit.step, audit.model].append(audit)
    shadows: dict[str, int] = defaultdict(int)
    for of_step, _ in by_model:
        shadows[of_step] += 1
    decisions = []
    for (of_step, model), of_model in by_model.items():
        floor = floors.get(of_step)
        if not is_testable(floor):
            continue
        last_version = of_model[-1].identity
        current = [audit for audit in of_model if audit.identity == last_version]
        evidence = evidence_of(current, floor)
        decision = Decision("promotion", evidence, sharing=shadows[of_step])
        decisions.append(_open_decision((model,), decision, current, None))
    return decisions


def _open_decision(
    models: tuple[str, ...],
    decision: Decision,
    audits: Sequence[Audit],
    certificate: Certificate | None,
) -> OpenDecision:
    counted = [audit for audit in audits if audit.counted]
    in_order = counted[: decision.evidence.n]
    rest = counted[decision.evidence.n :]
    waiting = tuple(audit.item for audit in rest if audit.right is None)
    golden = (0, 0)
    if certificate is not None:
        golden = (certificate.n - certificate.errors, certificate.errors)
    worth = 0.0
    if waiting:
        belief = believe(
            [audit.right is True for audit in in_order],
            waiting=len(waiting),
            golden=golden,
        )
        worth = value(decision, belief)
    return OpenDecision(
        step=audits[0].step,
        models=models,
        decision=decision,
        waiting=waiting,
        unread=len(rest) - len(waiting),
        value=worth,
        certificate=certificate,
    )
