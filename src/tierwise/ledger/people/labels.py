"""Labels of samples by one person or by two independent ones, with a third where these differ.

Rows are only ever added; which label counts follows from the rows of an item alone. Two people
label an item without seeing each other's label. Where the two agree, that is the item's label.
Where they differ, the label of a third person is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, select

from tierwise.errors import DecidedMeanwhile, Misuse
from tierwise.ledger.tables import LabelRecord

Right = Literal["shadow", "accepted", "both", "neither"]
UNDONE: Final = "undone"
People = Literal[1, 2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One person's label of an item. `answer` is the right answer, if the person gave one.

    `settles` is True if it is the item's label, and not one of two that are compared.
    """

    number: int
    item: str
    step: str
    word: Right
    reviewer: str
    labelled_at: float
    settles: bool
    is_blind: bool = False
    answer: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Labeller:
    """Who labels, and how.

    `people` is the number of people who label each item independently. None: this label counts
    whatever others said, as on the command line. A `request` that arrives twice is applied once.
    `answer` is the right answer, where the person gave one. Blind: no model's answer was shown.
    """

    name: str
    people: People | None = None
    request: str | None = None
    is_blind: bool = False
    answer: Any = None


def standing_labels(rows: Iterable[Any]) -> list[Label]:
    """Return the labels of an item that were not taken back; rows come in order."""
    labels: dict[int, Label] = {}
    for row in rows:
        if row.word == UNDONE:
            labels.pop(row.undoes, None)
            continue
        labels[row.seq] = Label(
            number=row.seq,
            item=row.item,
            step=row.step,
            word=row.word,
            reviewer=row.reviewer,
            labelled_at=row.labelled_at,
            # rows of older versions have no such field
            settles=row.settles is not False,
            is_blind=bool(row.is_blind),
            answer=row.answer,
        )
    return list(labels.values())


def settled(labels: Sequence[Label]) -> Label | None:
    """Return the label that counts, None as long as there is none."""
    settling = [label for label in labels if label.settles]
    return settling[-1] if settling else None


def settles(labels: Sequence[Label], word: Right, labeller: Labeller) -> bool:
    """Return True if a new label is the item's label.

    Raises DecidedMeanwhile for an item that others settled, and Misuse for one that this person
    has labelled already.
    """
    if labeller.people is None:
        return True
    done = settled(labels)
    own = [label for label in labels if label.reviewer == labeller.name]
    if own:
        raise Misuse(
            f"you labelled {own[-1].item} already; take that back first, to label it again"
        )
    if done is not None:
        raise DecidedMeanwhile(
            f"{done.item} was labelled by {done.reviewer} meanwhile: {done.word}",
            (done,),
        )
    if labeller.people == 1:
        return True
    if not labels:
        return False
    # The second person agrees or not; the third decides.
    return len(labels) >= 2 or labels[0].word == word


def waits_for(labels: Sequence[Label], person: str, people: People) -> bool:
    """Return True if an item waits for a label by this person."""
    if settled(labels) is not None:
        return False
    if any(label.reviewer == person for label in labels):
        return False
    return people == 2 or not labels


def label_rows(connection: Connection, item: str) -> list[Any]:
    """Return the rows of an item, in order."""
    query = (
        select(LabelRecord.__table__)
        .where(LabelRecord.item == item)
        .order_by(LabelRecord.seq)
    )
    return list(connection.execute(query))


def by_item(rows: Iterable[Any]) -> Mapping[str, list[Label]]:
    """Return the standing labels of each item; rows come in order."""
    of_items: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        of_items[row.item].append(row)
    return {item: standing_labels(of_item) for item, of_item in of_items.items()}
