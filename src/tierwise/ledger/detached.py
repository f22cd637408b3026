"""Detached runs: they ended while their calls are in provider batches, and are begun again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, or_, select, update

from tierwise.errors import Misuse, UnknownName
from tierwise.ledger.leases import is_over
from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.rows import Row
from tierwise.ledger.tables import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierwise.ledger.database import Database


class DetachedRuns:
    """Runs that can go on under their own id. Every method raises LedgerError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @outlasts_outages
    def ids(self, flow: str | None = None) -> list[str]:
        """Return the ids of the detached runs, of one flow or of all, the oldest first."""
        query = select(Run.id).where(Run.state == "detached")
        if flow is not None:
            query = query.where(Run.flow == flow)
        query = query.order_by(Run.started_at, Run.id)
        with self._database.reading() as connection:
            return list(connection.scalars(query))

    @outlasts_outages
    def same(self, flow: str, parameters: Mapping[str, Any]) -> str | None:
        """Return the newest detached run of a flow with these parameters, if there is one."""
        query = (
            select(Run.id, Run.parameters)
            .where(Run.state == "detached", Run.flow == flow)
            .order_by(Run.started_at.desc(), Run.id)
        )
        with self._database.reading() as connection:
            for row in connection.execute(query):
                if row.parameters == parameters:
                    return str(row.id)
        return None

    def reopen(
        self,
        run_id: str,
        *,
        flow_run_id: str | None,
        flow_run_name: str | None,
        lease: Row,
    ) -> None:
        """Begin a detached run again, or one whose process died just now, for this process alone.

        `lease` is the owner and the end of its lease. Raises Misuse for a run that has ended, whose
        records are sealed, and for one that is under way elsewhere.
        """
        now = self._database.lease_time()
        with self._database.writing() as connection:
            columns = (Run.state, Run.owner, Run.lease_until)
            query = select(*columns).where(Run.id == run_id)
            row = connection.execute(query).one_or_none()
            if row is None:
                raise UnknownName("run", run_id, ())
            is_dead = row.state == "running" and is_over(
                row.owner, row.lease_until, now
            )
            if row.state != "detached" and not is_dead:
                what = "is under way in another process"
                if row.state != "running":
                    what = f"has ended ({row.state}), and its records are sealed"
                raise Misuse(f"run {run_id} {what}")
            # Of two processes that saw the same state, the second changes no row.
            unchanged = and_(
                Run.id == run_id,
                Run.state == row.state,
                or_(Run.owner == row.owner, Run.owner.is_(None)),
            )
            values = {
                "state": "running",
                "finished_at": None,
                "flow_run_id": flow_run_id,
                "flow_run_name": flow_run_name,
                **lease,
            }
            changed = connection.execute(update(Run).where(unchanged).values(**values))
            if changed.rowcount != 1:
                raise Misuse(f"run {run_id} is under way in another process")
