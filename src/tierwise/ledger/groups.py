"""The groups of runs: the documents that each group was made of."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import delete, func, insert, select

from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.rows import WENT_THROUGH
from tierwise.ledger.tables import GroupMemberRecord, OutcomeRecord, Run
from tierwise.records import GROUP_BY, Document, Member

if TYPE_CHECKING:
    from tierwise.ledger.database import Database

_CHUNK = 500  # ids in one query


class GroupsOfRuns:
    """Groups on record: `ledger.groups`. Every method raises LedgerError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @outlasts_outages
    def record(self, run_id: str, groups: Sequence[Document]) -> None:
        """Put the members of a run's groups on record, in place of earlier ones."""
        rows = [
            {
                "run_id": run_id,
                "group_id": group.id,
                "position": position,
                "document_id": member.id,
                "document_hash": member.hash,
                "sensitivity": member.sensitivity,
            }
            for group in groups
            for position, member in enumerate(group.members)
        ]
        r = GroupMemberRecord
        with self._database.writing() as connection:
            for ids in _chunks([group.id for group in groups]):
                connection.execute(
                    delete(r).where(r.run_id == run_id, r.group_id.in_(ids))
                )
            if rows:
                connection.execute(insert(r), rows)

    @outlasts_outages
    def members(self, run_id: str, group_id: str) -> tuple[Member, ...]:
        """Return the members of a group in their order; none for any other document."""
        r = GroupMemberRecord
        query = (
            select(r)
            .where(r.run_id == run_id, r.group_id == group_id)
            .order_by(r.position)
        )
        with self._database.reading() as connection:
            return tuple(
                Member(
                    id=row.document_id,
                    hash=row.document_hash,
                    sensitivity=row.sensitivity,
                )
                for row in connection.execute(query)
            )

    @outlasts_outages
    def groups_with(self, run_id: str, document_id: str) -> tuple[str, ...]:
        """Return the ids of the groups that a document is a member of."""
        r = GroupMemberRecord
        query = (
            select(r.group_id)
            .where(r.run_id == run_id, r.document_id == document_id)
            .distinct()
            .order_by(r.group_id)
        )
        with self._database.reading() as connection:
            return tuple(connection.scalars(query))

    @outlasts_outages
    def members_by_hash(
        self, run_id: str, document_hashes: Collection[str]
    ) -> Mapping[str, tuple[Member, ...]]:
        """Return the members of a run's groups that have these hashes, by the group's hash."""
        o = OutcomeRecord
        groups = (
            select(o.document_id, o.document_hash)
            .where(o.run_id == run_id, o.step == GROUP_BY)
            .where(o.document_hash.in_(document_hashes))
        )
        with self._database.reading() as connection:
            found = list(connection.execute(groups))
        members = {
            row.document_hash: self.members(run_id, row.document_id) for row in found
        }
        return {hash_: each for hash_, each in members.items() if each}

    @outlasts_outages
    def of_run(self, run_id: str) -> Mapping[str, tuple[str, ...]]:
        """Return the ids of each group's members, by the group's id."""
        r = GroupMemberRecord
        query = (
            select(r.group_id, r.document_id)
            .where(r.run_id == run_id)
            .order_by(r.group_id, r.position)
        )
        members: dict[str, list[str]] = {}
        with self._database.reading() as connection:
            for row in connection.execute(query):
                members.setdefault(row.group_id, []).append(row.document_id)
        return {group: tuple(ids) for group, ids in members.items()}

    @outlasts_outages
    def has_any(self, flow: str) -> bool:
        """Return True if a run of a flow that went through its documents made groups."""
        query = (
            select(GroupMemberRecord.run_id)
            .join(Run, Run.id == GroupMemberRecord.run_id)
            .where(Run.flow == flow, Run.state.in_(WENT_THROUGH))
            .limit(1)
        )
        with self._database.reading() as connection:
            return connection.scalar(query) is not None

    @outlasts_outages
    def mean_members(self, flow: str) -> float | None:
        """Return the mean number of members in the flow's latest run with groups; None without."""
        r = GroupMemberRecord
        latest = (
            select(Run.id)
            .where(Run.flow == flow, Run.id.in_(select(r.run_id)))
            .order_by(Run.started_at.desc())
            .limit(1)
        )
        query = select(func.count(), func.count(r.group_id.distinct())).where(
            r.run_id.in_(latest)
        )
        with self._database.reading() as connection:
            members, groups = connection.execute(query).one()
        return members / groups if groups else None


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
