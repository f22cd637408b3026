"""The review queue as pages show it: selected, in an order, with the neighbours of an item."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

from tierwise.desk.addresses import from_parameter, to_parameter
from tierwise.documents.places import source_of
from tierwise.errors import LedgerError, Misuse
from tierwise.ledger import Decision
from tierwise.ledger.views.waiting import WaitingRow
from tierwise.review.backlog import QueueFilter

if TYPE_CHECKING:
    from tierwise.desk.desk import Desk

Order = Literal["oldest", "value"]
ORDERS: Mapping[Order, str] = {
    "oldest": "the longest wait first",
    "value": "those that settle the most documents first",
}
_PARTS = ("step", "cause", "flow", "of_run", "tag", "older")
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_LONGEST_AGE = 6  # digits
_FRESH_S = 5.0  # what runs defer meanwhile is shown after that time
_DUTY = 20.0  # a read that takes a second is made every 20 s
_MOST_GONE = 5000
_SLOW_S = 0.2  # a read that no request waits for, but the first


@dataclass(frozen=True, slots=True)
class ItemKey:
    """One item of the queue."""

    run_id: str
    document_id: str
    step: str

    @classmethod
    def of(cls, row: WaitingRow) -> ItemKey:
        """Return the key of a row."""
        return cls(row.run_id, row.document_id, row.step)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a person selected; empty texts are all."""

    step: str = ""
    cause: str = ""
    flow: str = ""
    of_run: str = ""  # an item's address has `run` already
    tag: str = ""
    older: str = ""
    order: Order = "oldest"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Selection:
        """Return the selection in an address or a form. Raises Misuse for an unknown order."""
        # A name of any characters comes as a parameter, as ids do.
        chosen = {name: from_parameter(str(values.get(name) or "")) for name in _PARTS}
        chosen["older"] = chosen["older"].strip()  # a person writes it
        order = str(values.get("order") or "oldest")
        if order not in ORDERS:
            raise Misuse(f"'{order}' is no order of the queue: {', '.join(ORDERS)}")
        selection = cls(**chosen, order=order)  # type: ignore[arg-type] # checked above
        selection.filter()  # an age that is none is refused here
        return selection

    def filter(self) -> QueueFilter:
        """Return the filter of the command line for this selection. Raises Misuse."""
        older = _seconds(self.older) if self.older else None
        return QueueFilter(
            flow=self.flow or None,
            cause=self.cause or None,
            step=self.step or None,
            older_than_s=older,
        )

    @property
    def chosen(self) -> dict[str, str]:
        """The parts that select something, by name."""
        return {name: getattr(self, name) for name in _PARTS if getattr(self, name)}

    @property
    def sent(self) -> dict[str, str]:
        """The parts that select something as a form or an address sends them."""
        return {name: to_parameter(value) for name, value in self.chosen.items()}

    def address(self, key: ItemKey | None = None, **more: str) -> str:
        """Return the address of an item's page, or of the list, with this selection."""
        path = "/review"
        values: dict[str, str] = {}
        if key is not None:
            path = "/review/item"
            values = {
                "run": key.run_id,
                "document": to_parameter(key.document_id),
                "at": key.step,
            }
        values |= self.sent
        if self.order != "oldest":
            values["order"] = self.order
        values |= more
        return f"{path}?{urlencode(values)}" if values else path


def _seconds(span: str) -> float:
    """Return a span such as `12h` in seconds. Raises Misuse for another text."""
    number, unit = span[:-1], span[-1:].lower()
    is_number = number.isdecimal() and len(number) <= _LONGEST_AGE
    if unit not in _UNITS or not is_number:
        raise Misuse(f"'{span[:40]}' is no age; write 30m, 12h, 2d or 1w")
    return int(number) * _UNITS[unit]


def key_of(values: Mapping[str, Any]) -> ItemKey:
    """Return the item that an address or a form names."""
    return ItemKey(
        str(values.get("run", "")),
        from_parameter(str(values.get("document", ""))),
        str(values.get("at", "")),
    )


@dataclass(frozen=True, slots=True)
class _Read:
    """The queue as it was read: its rows, the tags of its runs, and the last decision then."""

    rows: Sequence[WaitingRow]
    tags: Mapping[str, Mapping[str, str]]
    last: int
    read_at: float
    took_s: float

    def is_old(self, now: float) -> bool:
        """Return True once it is worth reading again: a slow read less often."""
        return now - self.read_at > max(_FRESH_S, _DUTY * self.took_s)


@dataclass(frozen=True)
class QueueRows:
    """What waits for a person, and what many requests ask of it."""

    rows: Sequence[WaitingRow]
    tags: Mapping[str, Mapping[str, str]]

    @cached_property
    def keys(self) -> Sequence[ItemKey]:
        """The items in the order of the rows."""
        return [ItemKey.of(row) for row in self.rows]

    @cached_property
    def settles(self) -> Mapping[tuple[str | None, str], int]:
        """How many waiting documents one decision settles, by question and text."""
        return Counter((row.question, row.document_hash) for row in self.rows)

    @cached_property
    def tag_names(self) -> Sequence[str]:
        """All tags, such as `team=claims`."""
        runs = {row.run_id for row in self.rows}
        return sorted({tag for run_id in runs for tag in _tags(self.tags, run_id)})


class QueueReader:
    """Reads the queue once for many requests, and applies newer decisions to what was read.

    What runs defer meanwhile is shown some seconds later. A slow read is made in the background.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: _Read | None = None
        self._thread: threading.Thread | None = None
        # What a read and the decisions up to a number came to.
        self._made: tuple[_Read, int, QueueRows] | None = None
        # Rows that a decision removed before the last read: it may be taken back.
        self._gone: dict[ItemKey, WaitingRow] = {}

    def rows(self, desk: Desk) -> QueueRows:
        """Return what waits for a person."""
        with self._lock:
            read = self._read
            if read is None or (
                read.is_old(time.monotonic()) and read.took_s < _SLOW_S
            ):
                read = self._keep(_read(desk))
            elif read.is_old(time.monotonic()) and not self._is_reading():
                self._thread = threading.Thread(
                    target=self._read_again, args=(desk,), daemon=True
                )
                self._thread.start()
        newer = desk.ledger.reviews.since(read.last)
        last = newer[-1].number if newer else read.last
        made = self._made
        if made is not None and made[0] is read and made[1] == last:
            return made[2]
        rows = _still_waiting(read.rows, newer, self._gone)
        if rows is None:
            # A decision from before the read was taken back: its item is not among the rows.
            with self._lock:
                read = self._keep(_read(desk))
            rows, last = read.rows, read.last
        found = QueueRows(rows, read.tags)
        self._made = (read, last, found)
        return found

    def _is_reading(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _read_again(self, desk: Desk) -> None:
        try:
            read = _read(desk)
        except LedgerError:
            return  # the next request tries again
        with self._lock:
            self._keep(read)

    def _keep(self, read: _Read) -> _Read:
        """Replace the last read, and return the new one; the caller has the lock."""
        if self._read is not None:
            waiting = {ItemKey.of(row) for row in read.rows}
            for row in self._read.rows:
                key = ItemKey.of(row)
                if key not in waiting:
                    self._gone[key] = row
            while len(self._gone) > _MOST_GONE:
                del self._gone[next(iter(self._gone))]
            # Of a run whose last item was decided, for when that is taken back.
            read = replace(read, tags={**self._read.tags, **read.tags})
        self._read = read
        return read


def _read(desk: Desk) -> _Read:
    begun = time.monotonic()
    # Before the rows: what is decided meanwhile is applied once more, which changes nothing.
    last = desk.ledger.reviews.last_number()
    root = desk.project.root
    found = desk.ledger.runs.queue(lambda path: source_of(path, root))
    rows = [row for row in found if not row.is_decided]
    tags = desk.ledger.runs.tags_of({row.run_id for row in rows})
    now = time.monotonic()
    return _Read(rows, tags, last, now, now - begun)


def _still_waiting(
    rows: Sequence[WaitingRow],
    newer: Sequence[Decision],
    gone: Mapping[ItemKey, WaitingRow],
) -> Sequence[WaitingRow] | None:
    """Return the rows without those that newer decisions are about.

    A row whose decision was taken back is among the rows, or else among the `gone` ones. None where
    it is in neither.
    """
    if not newer:
        return rows
    of_outcomes: dict[ItemKey, Decision] = {}
    of_texts: dict[tuple[str | None, str], Decision] = {}
    for decision in newer:
        key = ItemKey(decision.run_id, decision.document_id, decision.step)
        of_outcomes[key] = decision
        if decision.question is not None:
            of_texts[decision.question, decision.document_hash] = decision
    # Of thousands of rows, a decision is about few: the others are told by two cheap looks.
    documents = {key.document_id for key in of_outcomes}
    texts = {text for _, text in of_texts}
    reopened = {key for key, each in of_outcomes.items() if each.decision == "reopened"}
    if reopened:
        present = {ItemKey.of(row) for row in rows if row.document_id in documents}
        missing = reopened - present
        if not missing <= gone.keys():
            return None
        if missing:
            rows = sorted((*rows, *(gone[key] for key in missing)), key=_queue_place)

    def waits(row: WaitingRow) -> bool:
        if row.document_id not in documents and row.document_hash not in texts:
            return True
        found = (
            of_outcomes.get(ItemKey.of(row)),
            of_texts.get((row.question, row.document_hash)),
        )
        return all(each is None or each.decision == "reopened" for each in found)

    return [row for row in rows if waits(row)]


def _queue_place(row: WaitingRow) -> tuple[float, str, str, str]:
    """Return the key that sorts the queue: the longest wait first."""
    return row.waits_since, row.run_id, row.document_id, row.step


@dataclass(frozen=True, kw_only=True)
class QueueView:
    """The queue as a person selected it. `every` is the queue without the selection."""

    selection: Selection
    rows: Sequence[WaitingRow]
    keys: Sequence[ItemKey]
    every: Sequence[WaitingRow]
    tags: Sequence[str]
    settles: Mapping[tuple[str | None, str], int]

    def __len__(self) -> int:
        return len(self.rows)

    def place(self, key: ItemKey) -> int | None:
        """Return the position of an item, from 0; None where it does not wait."""
        for place, other in enumerate(self.keys):
            if other == key:
                return place
        return None

    def neighbours(self, key: ItemKey) -> tuple[ItemKey | None, ItemKey | None]:
        """Return the items before and after one."""
        place = self.place(key)
        if place is None:
            return None, (ItemKey.of(self.rows[0]) if self.rows else None)
        before = ItemKey.of(self.rows[place - 1]) if place else None
        is_last = place + 1 >= len(self.rows)
        return before, (None if is_last else ItemKey.of(self.rows[place + 1]))

    def values(self, name: str) -> list[tuple[str, int]]:
        """Return the values of a field of the whole queue, each with the number of items."""
        counts = Counter(getattr(row, name) or "" for row in self.every)
        return sorted((value, count) for value, count in counts.items() if value)


def read_queue(desk: Desk, reader: QueueReader, selection: Selection) -> QueueView:
    """Return the queue as selected."""
    every = reader.rows(desk)
    rows: Sequence[WaitingRow] = every.rows
    keys = every.keys
    if selection.chosen or selection.order == "value":
        wanted = selection.filter()
        now = time.time()
        rows = [
            row
            for row in every.rows
            if wanted.fits(row, now)
            and selection.of_run in ("", row.run_id)
            and (not selection.tag or selection.tag in _tags(every.tags, row.run_id))
        ]
        if selection.order == "value":
            rows.sort(key=lambda row: -every.settles[row.question, row.document_hash])
        keys = [ItemKey.of(row) for row in rows]
    return QueueView(
        selection=selection,
        rows=rows,
        keys=keys,
        every=every.rows,
        tags=every.tag_names,
        settles=every.settles,
    )


def _tags(tags: Mapping[str, Mapping[str, str]], run_id: str) -> list[str]:
    return [f"{name}={value}" for name, value in tags.get(run_id, {}).items()]


def next_after(before: QueueView, now: QueueView, key: ItemKey) -> ItemKey | None:
    """Return the item to show after one was decided: the next in the order that still waits."""
    place = before.place(key)
    if place is not None:
        waiting = set(now.keys)
        for other in before.keys[place + 1 :]:
            if other in waiting:
                return other
    for other in now.keys:
        if other != key:
            return other
    return None


def existing(rows: Iterable[WaitingRow], shown_at: float) -> list[WaitingRow]:
    """Return the rows that were there when a page was shown: nobody decides unseen."""
    return [
        row
        for row in rows
        if row.waits_since <= shown_at and row.run_started_at <= shown_at
    ]
