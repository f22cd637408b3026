"""How far provider batches are, in words: items done, age and expected end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tierwise.policy.transport import Turnaround, expected_turnaround
from tierwise.text.amounts import duration

if TYPE_CHECKING:
    from tierwise.ledger.batches import BatchRow
    from tierwise.policy.catalog import Catalog

SecondsTaken = Callable[[str], Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchProgress:
    """Some open batches together. Times are seconds since the epoch.

    `expected_end` is that of the last one; None where none is known.
    """

    batches: int
    items: int
    done: int
    since: float
    expected_end: float | None

    @property
    def percent(self) -> float:
        """The share of the items that are done, from 0 to 100."""
        return 100 * self.done / max(1, self.items)

    def sentence(self, now: float) -> str:
        """Return the progress in one line."""
        batches = "1 batch" if self.batches == 1 else f"{self.batches} batches"
        text = f"{batches}: {self.done:,} of {self.items:,} items done"
        text += f", {duration(max(0.0, now - self.since))} old"
        if self.expected_end is not None:
            text += f", expected end {moment(self.expected_end, now)}"
        return text


def batch_progress(
    rows: Sequence[BatchRow], catalog: Catalog, seconds_taken: SecondsTaken
) -> BatchProgress | None:
    """Return the progress of open batches; None without any."""
    if not rows:
        return None
    ends = [expected_end(row, catalog, seconds_taken) for row in rows]
    known = [end for end in ends if end is not None]
    return BatchProgress(
        batches=len(rows),
        items=sum(row.items for row in rows),
        done=sum(row.succeeded + row.failed for row in rows),
        since=min(row.created_at for row in rows),
        expected_end=max(known, default=None),
    )


def expected_end(
    row: BatchRow, catalog: Catalog, seconds_taken: SecondsTaken
) -> float | None:
    """Return when an open batch should end, by its model's past batches or by the catalog."""
    model = catalog.models.get(row.model)
    if not row.is_open or row.ended_at is not None or row.submitted_at is None:
        return None
    if model is None or model.batch is None:
        return None
    turnaround = Turnaround.of(seconds_taken(row.model))
    seconds, _ = expected_turnaround(model.batch, turnaround)
    return row.submitted_at + seconds


def moment(at: float, now: float) -> str:
    """Return a time to come, such as `22:57 (in 40 min)`; `overdue` for one that is past."""
    if at <= now:
        return "overdue"
    clock = time.strftime("%H:%M", time.localtime(at))
    return f"{clock} (in {duration(at - now)})"
