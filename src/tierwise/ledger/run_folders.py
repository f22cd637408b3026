"""The folders of runs: what they read, what they wrote, and to which source a folder belongs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from tierwise.ledger.outage import outlasts_outages
from tierwise.ledger.rows import RunFolders
from tierwise.ledger.tables import OutputRecord, RunFoldersRecord
from tierwise.ledger.upserts import insert_into

if TYPE_CHECKING:
    from tierwise.ledger.database import Database


class FoldersOfRuns:
    """Folders on record: `ledger.folders`. Every method raises LedgerError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @outlasts_outages
    def record(self, run_id: str, folders: Sequence[RunFolders]) -> None:
        """Put a run's folders on record; they count once the run is completed."""
        rows = [
            {
                "run_id": run_id,
                "folders": each.as_json(),
                "is_further": each.is_further,
            }
            for each in folders
        ]
        if not rows:
            return
        with self._database.writing() as connection:
            # All rows of the run: a repetition, after a lost answer, must not add to them.
            connection.execute(
                delete(RunFoldersRecord).where(RunFoldersRecord.run_id == run_id)
            )
            connection.execute(insert(RunFoldersRecord), rows)

    @outlasts_outages
    def done_folders(self, run_id: str) -> list[str]:
        """Return the done folders of a run, as `documents.places` names them, each once."""
        on_record = (
            select(RunFoldersRecord.folders)
            .where(RunFoldersRecord.run_id == run_id)
            .order_by(RunFoldersRecord.seq)
        )
        with self._database.reading() as connection:
            texts = list(connection.scalars(on_record))
        folders = (RunFolders.from_json(text).done for text in texts)
        return list(dict.fromkeys(folder for folder in folders if folder is not None))

    @outlasts_outages
    def owner(
        self,
        output: str,
        source: str,
        earlier_source: Callable[[RunFolders], str | None],
    ) -> str:
        """Return the source that the plain names in an output folder belong to, from now on.

        It is the first one that was written there: one on record, or the one that
        `earlier_source` finds in the folders of runs of earlier versions, or else `source`.
        """
        on_record = select(OutputRecord.source).where(OutputRecord.folder == output)
        with self._database.reading() as connection:
            owner = connection.scalar(on_record)
            if owner is not None:
                return owner
            texts = connection.scalars(
                select(RunFoldersRecord.folders).order_by(RunFoldersRecord.seq)
            )
            # equal ones once, the oldest first
            candidates = [RunFolders.from_json(text) for text in dict.fromkeys(texts)]
        found = (earlier_source(each) for each in candidates)
        first = next((each for each in found if each is not None), source)
        with self._database.writing() as connection:
            adding = insert_into(connection.dialect.name, OutputRecord)
            # another run may have added it meanwhile
            connection.execute(
                adding.on_conflict_do_nothing(), {"folder": output, "source": first}
            )
            return connection.scalar(on_record) or first
