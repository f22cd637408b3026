"""Audits on record: answers that chance picked for a person's word, and what those words show.

One item is one document in one step and run: the answer that was used, and a shadow's where there is one.
A person may label any of them. But who labels first what looks wrong, sees more errors than there are; so chance
marks every other item as counted when it is recorded, and evidence takes the counted ones alone, in the order of
recording, up to the first that has no label yet. Nobody can make it better or worse by leaving some out.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import func, insert, select
from sqlalchemy import update as sql_update

from tierwise.errors import Misuse, UnknownName
from tierwise.ledger.operations import Operation
from tierwise.ledger.people.seals import label_record, seal_row
from tierwise.ledger.rows import Row
from tierwise.ledger.tables import AuditRecord, LabelRecord
from tierwise.policy.certificates import Certificate, Certificates
from tierwise.policy.sequential_test import Evidence, demotion, drawn, update
from tierwise.records import canonical_hash

if TYPE_CHECKING:
    from tierwise.ledger.database import Database
    from tierwise.ledger.writer import Writer

COUNTED = (
    # share of the items that evidence counts; another share would tell past evidence anew
    0.5
)
Right = Literal["shadow", "accepted", "both", "neither"]
Demoted = Mapping[
    tuple[str, tuple[str, ...]], str
]  # step, models -> why their certificate no longer counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """One answer of one item. `right` is a person's word, None while nobody gave one.

    `model` is a shadow, or the models that were asked for the answer in use, such as `small > large`: what
    `large` makes of documents on which `small` failed says nothing of `large` alone.
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
    # the shadow with the accepted answer; None where a machine can't tell
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
        return (
            ("both", "neither")
            if self.shadow and self.shadow.agreed
            else ("shadow", "accepted", "both", "neither")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The labels of one model in one step so far. `evidence` is None without a floor."""

    step: str
    model: str
    shadow: bool
    audits: int
    compared: int  # of them, those that a machine held against the accepted answer
    agreed: int
    counted: int
    evidence: Evidence | None


class Samples:
    """The audits of a ledger. Methods raise LedgerError when the database fails."""

    def __init__(self, database: Database, writer: Writer) -> None:
        self._database = database
        self._writer = writer

    async def record(self, audits: Sequence[Audit]) -> None:
        """Put audits on record; one that is there already stays as it is."""
        await self._writer.write(
            Operation(rows={"audit": [asdict(audit) for audit in audits]})
        )

    def label(self, item_id: str, right: Right, reviewer: str) -> Item:
        """Record a person's word on the item whose id is or starts with this, and seal it; a later one replaces it.

        Raises UnknownName, and Misuse for an unclear id or a word that does not fit.
        """
        item = self.item(item_id)
        if right not in item.words:
            raise Misuse(
                f"{item.id} cannot be labelled '{right}'; it takes {', '.join(item.words)}"
            )
        labelled = {item.accepted.id: right in ("accepted", "both")}
        if item.shadow and item.asks_both:
            labelled[item.shadow.id] = right in ("shadow", "both")
        row = _label_row(item, right, reviewer)
        with (
            self._database.translated_errors("written"),
            self._database.writing() as connection,
        ):
            for audit, word in labelled.items():
                values = {
                    "right": word,
                    "reviewer": reviewer,
                    "reviewed_at": row["labelled_at"],
                }
                connection.execute(
                    sql_update(AuditRecord)
                    .where(AuditRecord.id == audit)
                    .values(values)
                )
            stored = connection.execute(
                insert(LabelRecord).values(row).returning(LabelRecord.__table__)
            ).one()
            seal_row(connection, "label", stored.seq, label_record(stored))
        return self.item(item.id)

    def item(self, item_id: str) -> Item:
        """Return the item whose id starts with this. Raises UnknownName, or Misuse for several."""
        found = _items(
            self._read(
                AuditRecord.id.startswith(item_id.partition(".")[0], autoescape=True)
            )
        )
        if not found:
            raise UnknownName("audit", item_id, (item.id for item in self.queue()[:10]))
        if len(found) > 1:
            names = ", ".join(item.id for item in found[:10])
            raise Misuse(
                f"'{item_id}' fits several audits: {names}; give more of the id"
            )
        return found[0]

    def queue(self) -> list[Item]:
        """Return unlabelled items: disagreements, newest first; then counted ones, oldest first."""
        waiting = [item for item in _items(self._read()) if item.accepted.right is None]
        disagreements = [item for item in waiting if item.disagrees]
        rest = [
            item for item in waiting if item.accepted.counted and not item.disagrees
        ]
        return [*reversed(disagreements), *rest]

    def labelled(self, step: str) -> list[Audit]:
        """Return the labelled samples of a step, in the order of recording."""
        return self._read(AuditRecord.step == step, AuditRecord.right.is_not(None))

    def of(self, step: str, models: str, identity: str) -> list[Audit]:
        """Return the samples of one model or chain, in the order of recording."""
        same = (AuditRecord.model == models, AuditRecord.identity == identity)
        return self._read(AuditRecord.step == step, *same)

    def shadowed(self, step: str) -> dict[str, int]:
        """Return the number of times that each model was a step's shadow."""
        query = (
            select(AuditRecord.model, func.count().label("audits"))
            .where(AuditRecord.step == step, AuditRecord.id.endswith(".shadow"))
            .group_by(AuditRecord.model)
        )
        with self._database.reading() as connection:
            return {row.model: row.audits for row in connection.execute(query)}

    def standings(self, floors: Mapping[str, float]) -> list[Standing]:
        """Return the evidence on each model's last version, by step; models in use first."""

        def whose(audit: Audit) -> tuple[str, bool, str]:
            return audit.step, audit.shadow, audit.model

        audits = sorted(self._read(), key=whose)  # keeps the order of recording
        return [
            _standing(
                [audit for audit in group if audit.identity == group[-1].identity],
                floors.get(step),
            )
            for (step, _, _), group in (
                (key, list(rows)) for key, rows in groupby(audits, key=whose)
            )
        ]

    def _read(self, *conditions: Any) -> list[Audit]:
        """Audits in the order of recording."""
        query = (
            select(AuditRecord.__table__)
            .where(*conditions)
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

    So to certify again on the same golden set, or to let a certificate be renewed every night, forgets nothing.
    """
    return canonical_hash(
        [sorted(identities.items()), prompt_hash, step_hash, golden_hash]
    )


def evidence_of(audits: Iterable[Audit], floor: float) -> Evidence:
    """Return the evidence of the counted samples in order, up to the first without a label."""
    found = Evidence(floor=floor)
    for audit in audits:
        if not audit.counted:
            continue
        if audit.right is None:
            break
        found = update(found, audit.right)
    return found


def demoted(
    samples: Samples, certificates: Certificates, floors: Mapping[str, float]
) -> Demoted:
    """Return the certificates that labels refute, each with the reason."""
    reasons = {}
    for certificate in certificates.certificates:
        floor = floors.get(certificate.step, 0.0)
        if 0 < floor < 1 and (
            reason := demotion(evidence_of(_of(samples, certificate), floor))
        ):
            reasons[certificate.step, certificate.models] = reason
    return reasons


def _of(samples: Samples, certificate: Certificate) -> list[Audit]:
    """Return the samples of a certified chain: of its first model, its first two, and so on."""
    found = []
    for asked in range(1, len(certificate.models) + 1):
        identities = {
            name: certificate.identities[name] for name in certificate.models[:asked]
        }
        identity = identity_of(
            identities,
            certificate.prompt_hash,
            certificate.step_hash,
            certificate.golden_hash,
        )
        found += samples.of(certificate.step, " > ".join(identities), identity)
    return sorted(
        (audit for audit in found if not audit.shadow),
        key=lambda audit: (audit.recorded_at, audit.id),
    )


def _label_row(item: Item, right: Right, reviewer: str) -> Row:
    used = item.accepted
    return {
        "item": item.id,
        "run_id": used.run_id,
        "document_hash": used.document_hash,
        "step": used.step,
        "model": used.model,
        "shadow": item.shadow.model if item.shadow and item.asks_both else None,
        "word": right,
        "value_hash": None if used.value is None else canonical_hash(used.value),
        "reviewer": reviewer,
        "labelled_at": time.time(),
    }


def _items(audits: Iterable[Audit]) -> list[Item]:
    """Audits by item, in the order of recording."""
    parts: dict[str, dict[bool, Audit]] = {}
    for audit in audits:
        parts.setdefault(audit.item, {})[audit.shadow] = audit
    return [
        Item(accepted=found[False], shadow=found.get(True)) for found in parts.values()
    ]


def _standing(audits: Sequence[Audit], floor: float | None) -> Standing:
    first = audits[0]
    return Standing(
        step=first.step,
        model=first.model,
        shadow=first.shadow,
        audits=len(audits),
        compared=sum(audit.agreed is not None for audit in audits),
        agreed=sum(audit.agreed is True for audit in audits),
        counted=sum(audit.counted for audit in audits),
        evidence=evidence_of(audits, floor)
        if floor is not None and 0 < floor < 1
        else None,
    )
