"""The ledger: what was run, tried, paid, checked and decided. The only door to SQLAlchemy."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from tierwise.ledger.audits import Audits
from tierwise.ledger.database import Database, open_database
from tierwise.ledger.operations import Claim, Held, Kind, Operation, new_owner
from tierwise.ledger.queries import Queries
from tierwise.ledger.rows import (
    DeferredRow,
    OutcomeRow,
    Paid,
    Row,
    RunInfo,
    RunRow,
    SummaryRow,
    attempt_row,
    outcome_row,
    paid_row,
    run_row,
    verdict_rows,
)
from tierwise.ledger.writer import Writer
from tierwise.records import Attempt, Document, Outcome, Reply, Verdict

__all__ = ["DeferredRow", "Ledger", "OutcomeRow", "Paid", "RunInfo", "RunRow", "RunState", "SummaryRow"]

RunState = Literal["completed", "failed", "cancelled"]
_FIRST_POLL_S, _LAST_POLL_S = 0.05, 1.0


class Ledger(Queries):
    """The append-only record of a project, in SQLite or PostgreSQL.

    Async methods return after the commit and belong to one event loop; the others may be called
    from any thread. All raise LedgerError when the database fails or the ledger is closed.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._writer = Writer(database)
        self.audits = Audits(database, self._writer)
        self._owner = new_owner()
        self._counter = itertools.count()
        self._held: dict[str, str] = {}  # call hash -> owner of the claim
        self._news: dict[str, asyncio.Event] = {}  # call hash -> set when it is paid or given up here

    @classmethod
    def open(cls, url: str | None = None, *, root: Path) -> Ledger:
        """Open the ledger at `url`, by default `.tierwise/ledger.db` below `root`, and migrate it.

        Takes `sqlite:///path` (below `root` unless absolute; `?timeout=` seconds to wait for a lock)
        and `postgresql+psycopg://`. Raises LedgerError with the remedy.
        """
        return cls(open_database(url, root))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write all that waits, give up the claims still held, and close. A second call does nothing."""
        while self._held:
            self._give_up(*self._held.popitem())
        self._writer.close()
        self._database.close()

    def start_run(self, run: RunInfo) -> None:
        """Record that a run started."""
        self._writer.submit(Operation(rows={"start": [run_row(run)]})).result()

    def finish_run(self, run_id: str, state: RunState) -> None:
        """Record how a run ended."""
        row = {"run": run_id, "end": state, "at": time.time()}
        self._writer.submit(Operation(rows={"finish": [row]})).result()

    async def claim(
        self, call_hash: str, *, owner: str | None = None, fresh_since: float | None = None, lease_s: float = 300
    ) -> Paid | None:
        """The paid reply of this very call, or None: then the caller holds the claim and settles or releases it.

        Waits while another live owner holds it, in this process or elsewhere. The claim of a process that
        died on this machine is free at once; elsewhere it is free after `lease_s` seconds. `fresh_since`
        (seconds since the epoch) refuses replies that were paid earlier. `owner` is a name for the records;
        with one of one's own, only the lease tells whether it lives.
        """
        delay = _FIRST_POLL_S
        while True:
            token = f"{owner or self._owner} {next(self._counter)}"
            claim = Claim(call_hash=call_hash, owner=token, lease_s=lease_s, fresh_since=fresh_since)
            try:
                answer = await self._writer.write(Operation(claim=claim))
            except asyncio.CancelledError:
                self._give_up(call_hash, token)
                raise
            if answer is None:
                self._held[call_hash] = token
                return None
            if not isinstance(answer, Held):
                self._tell(call_hash)
                return answer
            await self._wait_for_news(call_hash, min(delay, answer.seconds + 0.01))
            delay = min(delay * 2, _LAST_POLL_S)

    async def release(self, call_hash: str) -> None:
        """Give up a claim that this process holds; without one, nothing happens."""
        if token := self._held.get(call_hash):
            await self._writer.write(Operation(rows=_free(call_hash, token)))
            self._settled(call_hash, token)

    async def settle(self, run_id: str, attempt: Attempt, reply: Reply | None) -> None:
        """Record an attempt; its reply marks the call paid, its absence gives the claim up.

        A reused attempt leaves the call as it is.
        """
        rows: dict[Kind, Sequence[Row]] = {"attempt": [attempt_row(run_id, attempt)]}
        if attempt.verdicts:
            rows["verdict"] = verdict_rows(attempt.id, attempt.verdicts)
        token = None if attempt.reused else self._held.get(attempt.call_hash)
        if reply and not attempt.reused:
            rows["paid"] = [paid_row(attempt, reply, time.time())]
        elif token:
            rows |= _free(attempt.call_hash, token)
        await self._writer.write(Operation(rows=rows))
        self._settled(attempt.call_hash, token)

    async def record_verdicts(self, run_id: str, attempt_id: str, verdicts: Sequence[Verdict]) -> None:  # noqa: ARG002
        """Record what the checks said of an attempt; the same check again replaces its verdict."""
        if verdicts:
            await self._writer.write(Operation(rows={"verdict": verdict_rows(attempt_id, verdicts)}))

    async def record_outcome(self, run_id: str, document: Document, outcome: Outcome) -> None:
        """Record what a document got from a step, in place of an earlier outcome in the same run."""
        row = outcome_row(run_id, document, outcome, time.time())
        await self._writer.write(Operation(rows={"outcome": [row]}))

    def _give_up(self, call_hash: str, token: str) -> None:
        self._writer.submit(Operation(rows=_free(call_hash, token)))

    def _settled(self, call_hash: str, token: str | None) -> None:
        if self._held.get(call_hash) == token:
            self._held.pop(call_hash, None)
        self._tell(call_hash)

    async def _wait_for_news(self, call_hash: str, seconds: float) -> None:
        """Until the call is paid or given up in this process, or the time is over."""
        event = self._news.setdefault(call_hash, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    def _tell(self, call_hash: str) -> None:
        if event := self._news.pop(call_hash, None):
            event.set()


def _free(call_hash: str, token: str) -> dict[Kind, Sequence[Row]]:
    return {"free": [{"call": call_hash, "holder": token}]}
