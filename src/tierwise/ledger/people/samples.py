"""Samples: answers that chance picked for labelling, and what their labels show.

One item is one document in one step and run: the answer in use, and a shadow's where there is one.
People may label any item. But labelling disagreements first overestimates the error rate. So chance
marks every other item as counted when it is recorded. Evidence takes the counted items alone, in
the order of recording, up to the first without a label: leaving some out cannot change it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from sqlalchemy import func, insert, select
from sqlalchemy import update as sql_update

from tierwise.errors import DecidedMeanwhile, Misuse, UnknownName
from tierwise.ledger.operations import Operation
from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.people.labels import (
    UNDONE,
    Label,
    Labeller,
    Right,
    by_item,
    label_rows,
    settled,
    settles,
    standing_labels,
)
from tierwise.ledger.people.seals import label_record, seal_row
from tierwise.ledger.rows import Row
from tierwise.ledger.tables import AuditRecord, LabelRecord
from tierwise.policy.certificates import Certificate, Certificates
from tierwise.policy.sequential_test import Evidence, demotion, drawn, update
from tierwise.records import canonical_hash

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from tierwise.ledger.database import Database
    from tierwise.ledger.writer import Writer

# The share of the items that evidence counts. Another share would change past evidence.
COUNTED = 0.5
# step, models -> why their certificate no longer counts
Demoted = Mapping[tuple[str, tuple[str, ...]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """One answer of one item. `right` is its label, None without one.

    `model` is a shadow, or the models that were asked for the answer in use, such as
    `small > large`: how `large` does on documents on which `small` failed is not how it does alone.
    """

    id: str  # item, dot, `accepted` or `shadow`
    run_id: str
    document_id: str
    document_hash: str
    step: str
    model: str
    identity: str  # see `identity_of`
    value: Any
    accepted_model: str
    accepted: Any
    # whether the shadow agrees with the accepted answer; None where no program can compare them
    agreed: bool | None
    right: bool | None = None
    reviewer: str | None = None
    recorded_at: float  # seconds since the epoch, UTC
    reviewed_at: float | None = None

    @property
    def item(self) -> str:
        """The item that this is part of."""
        return self.id.partition(".")[0]

    @property
    def shadow(self) -> bool:
        """True if this answer was not used."""
        return self.id.endswith(".shadow")

    @property
    def counted(self) -> bool:
        """True if it was drawn at random, so that it counts as evidence."""
        return drawn(COUNTED, "counted", self.item)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """An item to label: the answer in use, and the shadow's where there is one."""

    accepted: Audit
    shadow: Audit | None

    @property
    def id(self) -> str:
        """The id that `tierwise label` takes."""
        return self.accepted.item

    @property
    def disagrees(self) -> bool:
        """True if the shadow's answer differs."""
        return self.shadow is not None and self.shadow.agreed is False

    @property
    def asks_both(self) -> bool:
        """True if there is a shadow's answer to label too."""
        return self.shadow is not None and self.shadow.value is not None

    @property
    def words(self) -> tuple[Right, ...]:
        """The labels that fit."""
        if not self.asks_both:
            return ("accepted", "neither")
        # Answers that agree are right or wrong together.
        if self.shadow and self.shadow.agreed:
            return ("both", "neither")
        return ("shadow", "accepted", "both", "neither")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The labels of one model in one step so far. `evidence` is None without a floor."""

    step: str
    model: str
    shadow: bool
    audits: int
    compared: int  # of them, those that a program compared with the accepted answer
    agreed: int
    counted: int
    evidence: Evidence | None


class Samples:
    """The samples of a ledger. Methods raise LedgerError when the database fails."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    async def record(self, audits: Sequence[Audit]) -> None:
        """Record samples; one that is recorded already stays as it is."""
        rows = [asdict(audit) for audit in audits]
        await self._writer.write(Operation(rows={"audit": rows}))

    def label(self, item_id: str, right: Right, labeller: Labeller | str) -> Item:
        """Record and seal a label of the item whose id is or starts with this.

        A name alone is a person whose label counts whatever others said. Raises UnknownName, and
        Misuse for an ambiguous id or a label that does not fit; see `labels.settles` too.
        """
        if isinstance(labeller, str):
            labeller = Labeller(name=labeller)
        item = self.item(item_id)
        if right not in item.words:
            raise Misuse(
                f"{item.id} cannot be labelled '{right}'; it takes {', '.join(item.words)}"
            )
        with self._database.writing() as connection:
            rows = label_rows(connection, item.id)
            if any(row.request == labeller.request for row in rows if row.request):
                return item  # the same request, once more
            is_settled = settles(standing_labels(rows), right, labeller)
            row = _label_row(item, right, labeller, is_settled)
            if is_settled:
                _set_label(connection, item, right, labeller.name, row["labelled_at"])
            _add_label(connection, row)
        return self.item(item.id)

    def undo_label(self, item_id: str, by: str, request: str) -> Item:
        """Take a person's last label of an item back, by a row that says so.

        Raises Misuse where there is none, and DecidedMeanwhile where another person has labelled
        the item since.
        """
        item = self.item(item_id)
        with self._database.writing() as connection:
            rows = label_rows(connection, item.id)
            if any(row.request == request for row in rows):
                return item
            labels = standing_labels(rows)
            own = [label for label in labels if label.reviewer == by]
            if not own:
                raise Misuse(f"{item.id} has no label of {by} to take back")
            later = [label for label in labels if label.number > own[-1].number]
            if later:
                last = later[-1]
                raise DecidedMeanwhile(
                    f"{item.id} was labelled by {last.reviewer} since; both labels stay",
                    (last,),
                )
            before = settled(labels)
            rest = settled([label for label in labels if label is not own[-1]])
            if rest is not before:
                if rest is None:
                    _set_label(connection, item, None, None, None)
                else:
                    _set_label(
                        connection, item, rest.word, rest.reviewer, rest.labelled_at
                    )
            row = _label_row(item, UNDONE, Labeller(name=by, request=request), False)
            _add_label(connection, row | {"undoes": own[-1].number})
        return self.item(item.id)

    @outlasts_outages
    def labels(self, step: str | None = None) -> Mapping[str, list[Label]]:
        """Return the labels that were not taken back, by item; of one step or of all."""
        query = select(LabelRecord.__table__).order_by(LabelRecord.seq)
        if step is not None:
            query = query.where(LabelRecord.step == step)
        with self._database.reading() as connection:
            return by_item(connection.execute(query))

    def item(self, item_id: str) -> Item:
        """Return the item whose id starts with this. Raises UnknownName, or Misuse for several."""
        start = item_id.partition(".")[0]
        audits = self._read(AuditRecord.id.startswith(start, autoescape=True))
        items = _items(audits)
        if not items:
            raise UnknownName("audit", item_id, (item.id for item in self.queue()[:10]))
        if len(items) > 1:
            names = ", ".join(item.id for item in items[:10])
            raise Misuse(
                f"'{item_id}' fits several audits: {names}; give more of the id"
            )
        return items[0]

    def queue(self) -> list[Item]:
        """Return unlabelled items: disagreements, newest first; then counted ones, oldest first."""
        return waiting_items(self.recorded())

    def recorded(self) -> list[Audit]:
        """Return all samples, in the order of recording."""
        return self._read()

    def labelled(self, step: str) -> list[Audit]:
        """Return the labelled samples of a step, in the order of recording."""
        return self._read(AuditRecord.step == step, AuditRecord.right.is_not(None))

    def of_step(self, step: str) -> list[Audit]:
        """Return the samples of a step, labelled or not, in the order of recording."""
        return self._read(AuditRecord.step == step)

    def of_models(self, step: str, models: str, identity: str) -> list[Audit]:
        """Return the samples of one model or chain, in the order of recording."""
        return self._read(
            AuditRecord.step == step,
            AuditRecord.model == models,
            AuditRecord.identity == identity,
        )

    @outlasts_outages
    def shadow_answers_by_model(self, step: str) -> dict[str, int]:
        """Return the number of times that each model was a step's shadow."""
        query = (
            select(AuditRecord.model, func.count().label("answers"))
            .where(AuditRecord.step == step, AuditRecord.id.endswith(".shadow"))
            .group_by(AuditRecord.model)
        )
        with self._database.reading() as connection:
            return {row.model: row.answers for row in connection.execute(query)}

    def standings(self, floors: Mapping[str, float]) -> list[Standing]:
        """Return the evidence on each model's last version, by step; models in use first."""

        def step_and_model(audit: Audit) -> tuple[str, bool, str]:
            return audit.step, audit.shadow, audit.model

        standings: list[Standing] = []
        # sorting keeps the order of recording within each model
        audits = sorted(self._read(), key=step_and_model)
        for (step, _, _), group in groupby(audits, key=step_and_model):
            of_model = list(group)
            last_version = of_model[-1].identity
            current = [audit for audit in of_model if audit.identity == last_version]
            standings.append(_standing(current, floors.get(step)))
        return standings

    @outlasts_outages
    def _read(self, *conditions: Any) -> list[Audit]:
        """Return samples in the order of recording."""
        query = (
            select(AuditRecord.__table__)
            .where(*conditions)
            # The id decides between equal times, so that evidence is the same at each reading.
            .order_by(AuditRecord.recorded_at, AuditRecord.id)
        )
        with self._database.reading() as connection:
            return [Audit(**row._mapping) for row in connection.execute(query)]


def item_id(run_id: str, step: str, document_hash: str) -> str:
    """Return the id of an item; equal documents in one run are one item."""
    return canonical_hash([run_id, step, document_hash])[:12]


def identity_of(
    identities: Mapping[str, str],
    prompt_hash: str,
    step_hash: str,
    golden_hash: str = "",
) -> str:
    """Return the identity of what some models' answers depend on, and of their golden set.

    A certificate that is renewed on the same golden set has the same identity, so its samples stay.
    """
    return canonical_hash(
        [sorted(identities.items()), prompt_hash, step_hash, golden_hash]
    )


def waiting_items(audits: Iterable[Audit]) -> list[Item]:
    """Return the unlabelled items among samples, in the order of `Samples.queue`."""
    disagreements: list[Item] = []
    counted: list[Item] = []
    for item in _items(audits):
        # A labelled item always has a label on the answer in use.
        if item.accepted.right is not None:
            continue
        if item.disagrees:
            disagreements.append(item)
        elif item.accepted.counted:
            counted.append(item)
    return [*reversed(disagreements), *counted]


def evidence_of(audits: Iterable[Audit], floor: float) -> Evidence:
    """Return the evidence of the counted samples in order, up to the first without a label."""
    evidence = Evidence(floor=floor)
    for audit in audits:
        if not audit.counted:
            continue
        # Skipping an item without a label would let people choose what counts.
        if audit.right is None:
            break
        evidence = update(evidence, audit.right)
    return evidence


def demoted(
    samples: Samples, certificates: Certificates, floors: Mapping[str, float]
) -> Demoted:
    """Return the certificates that labels refute, each with the reason."""
    reasons: dict[tuple[str, tuple[str, ...]], str] = {}
    # People's labels are of correctness, and they refute a certificate of agreement too.
    for certificate in certificates.all:
        floor = floors.get(certificate.step)
        if not is_testable(floor):
            continue
        evidence = evidence_of(_samples_of(samples, certificate), floor)
        reason = demotion(evidence)
        if reason:
            reasons[certificate.step, certificate.models] = reason
    return reasons


def is_testable(floor: float | None) -> TypeGuard[float]:
    """Return True if labels can refute a floor: any answer meets 0, and no evidence shows 1."""
    return floor is not None and 0 < floor < 1


def chain_identities(certificate: Certificate) -> list[tuple[str, str]]:
    """Return the models and the identity under which samples of a certified chain are recorded.

    Those of its first model, its first two, and so on: a sample is recorded under the models that
    were asked, so an early answer names fewer.
    """
    keys = []
    for length in range(1, len(certificate.models) + 1):
        models = certificate.models[:length]
        identities = {name: certificate.identities[name] for name in models}
        identity = identity_of(
            identities,
            certificate.prompt_hash,
            certificate.step_hash,
            certificate.golden_hash,
        )
        keys.append((" > ".join(identities), identity))
    return keys


def _samples_of(samples: Samples, certificate: Certificate) -> list[Audit]:
    """Return the samples of a certified chain: of its first model, its first two, and so on."""
    of_chain: list[Audit] = []
    for models, identity in chain_identities(certificate):
        of_chain += samples.of_models(certificate.step, models, identity)
    # Sorted once more, as each part of the chain was read on its own.
    in_use = [audit for audit in of_chain if not audit.shadow]
    return sorted(in_use, key=in_order_of_recording)


def in_order_of_recording(audit: Audit) -> tuple[float, str]:
    """Return the key that sorts samples as evidence takes them."""
    return audit.recorded_at, audit.id


def _labels_by_answer(item: Item, right: Right) -> dict[str, bool]:
    """Return, for each answer of an item that is labelled, whether it is right."""
    labels = {item.accepted.id: right in ("accepted", "both")}
    if item.shadow and item.asks_both:
        labels[item.shadow.id] = right in ("shadow", "both")
    return labels


def _label_row(
    item: Item, word: Right | Literal["undone"], labeller: Labeller, is_settled: bool
) -> Row:
    in_use = item.accepted
    value_hash = None
    if in_use.value is not None:
        value_hash = canonical_hash(in_use.value)
    shadow = None
    if item.shadow and item.asks_both:
        shadow = item.shadow.model
    answer_hash = None
    if labeller.answer is not None:
        answer_hash = canonical_hash(labeller.answer)
    return {
        "item": item.id,
        "run_id": in_use.run_id,
        "document_hash": in_use.document_hash,
        "step": in_use.step,
        "model": in_use.model,
        "shadow": shadow,
        "word": word,
        "value_hash": value_hash,
        "reviewer": labeller.name,
        "labelled_at": time.time(),
        "request": labeller.request,
        "settles": is_settled,
        "is_blind": labeller.is_blind,
        "answer": labeller.answer,
        "answer_hash": answer_hash,
    }


def _add_label(connection: Connection, row: Row) -> None:
    adding = insert(LabelRecord).values(row).returning(LabelRecord.__table__)
    stored = connection.execute(adding).one()
    seal_row(connection, "label", stored.seq, label_record(stored))


def _set_label(
    connection: Connection,
    item: Item,
    right: Right | None,
    reviewer: str | None,
    at: float | None,
) -> None:
    """Write the label that counts to the samples of an item; None takes it away."""
    by_answer: Mapping[str, bool | None]
    if right is None:
        by_answer = dict.fromkeys(_labels_by_answer(item, "neither"), None)
    else:
        by_answer = _labels_by_answer(item, right)
    for audit_id, is_right in by_answer.items():
        label_of_answer = (
            sql_update(AuditRecord)
            .where(AuditRecord.id == audit_id)
            .values(right=is_right, reviewer=reviewer, reviewed_at=at)
        )
        connection.execute(label_of_answer)


def _items(audits: Iterable[Audit]) -> list[Item]:
    """Group samples by item, in the order of recording."""
    in_use: dict[str, Audit] = {}
    shadows: dict[str, Audit] = {}
    for audit in audits:
        if audit.shadow:
            shadows[audit.item] = audit
        else:
            in_use[audit.item] = audit
    return [
        Item(accepted=accepted, shadow=shadows.get(item))
        for item, accepted in in_use.items()
    ]


def _standing(audits: Sequence[Audit], floor: float | None) -> Standing:
    """Summarise the samples of one version of a model in one step."""
    evidence = None
    if is_testable(floor):
        evidence = evidence_of(audits, floor)
    first = audits[0]
    return Standing(
        step=first.step,
        model=first.model,
        shadow=first.shadow,
        audits=len(audits),
        compared=sum(audit.agreed is not None for audit in audits),
        agreed=sum(audit.agreed is True for audit in audits),
        counted=sum(audit.counted for audit in audits),
        evidence=evidence,
    )
