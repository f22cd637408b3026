"""Calls whose end was never recorded, as attempts of unknown cost. Read-only.

A process that is killed leaves its claims behind, each with the attempt that it was for. Another
process that takes over such a claim moves the attempt to `lost_calls`.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import exists, select

from tierwise.ledger.processes import is_dead
from tierwise.ledger.rows import lost_attempt
from tierwise.ledger.tables import AttemptRecord, CallRecord, LostCallRecord
from tierwise.records import Attempt

if TYPE_CHECKING:
    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class LostCall:
    """A call that was or may have been sent in a run, and whose end is not known."""

    run_id: str
    attempt: Attempt

    @property
    def role(self) -> str:
        """What its model was asked for: `used`, `shadow` or `judge`."""
        kind = self.attempt.kind
        return kind if kind in ("shadow", "judge") else "used"


def lost_calls(
    connection: Connection, run_ids: Collection[str] | None = None
) -> list[LostCall]:
    """Return the lost calls of these runs, or of all, in the order of their claims."""
    # A process that was only suspended may have recorded the end after all.
    was_recorded = exists().where(AttemptRecord.id == LostCallRecord.id)
    taken_over = select(LostCallRecord.attempt, LostCallRecord.repriced).where(
        ~was_recorded
    )
    if run_ids is not None:
        taken_over = taken_over.where(LostCallRecord.run_id.in_(run_ids))
    found = [
        _lost_call(row.attempt, row.repriced) for row in connection.execute(taken_over)
    ]
    claimed = select(
        CallRecord.in_flight, CallRecord.owner, CallRecord.lease_until
    ).where(CallRecord.owner.is_not(None), CallRecord.in_flight.is_not(None))
    now = time.time()
    for row in connection.execute(claimed):
        in_flight = row.in_flight
        if run_ids is not None and in_flight["run_id"] not in run_ids:
            continue
        if row.lease_until <= now or is_dead(row.owner):
            found.append(_lost_call(in_flight, None))
    return sorted(found, key=lambda lost: lost.attempt.started_at)


def _lost_call(in_flight: dict[str, Any], repriced: Decimal | None) -> LostCall:
    return LostCall(in_flight["run_id"], lost_attempt(in_flight, repriced))
