"""The ledger: what was run, tried, paid, checked and decided. The only door to SQLAlchemy."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from tierwise.errors import BudgetExceeded, LedgerError
from tierwise.ledger.budgets import (
    BudgetChange,
    Budgets,
    LimitIncrease,
    ReservationResult,
    Settlement,
)
from tierwise.ledger.database import Database, open_database
from tierwise.ledger.leases import RunLeases
from tierwise.ledger.operations import Answer, Claim, Held, Kind, Operation, granted
from tierwise.ledger.people.retention import Retention
from tierwise.ledger.people.reviews import Decision, Reviews
from tierwise.ledger.people.samples import Samples
from tierwise.ledger.people.seals import Seals
from tierwise.ledger.processes import new_process_identity
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
from tierwise.ledger.views.history import History
from tierwise.ledger.views.runs import Runs
from tierwise.ledger.views.summary import Summaries
from tierwise.ledger.writer import Writer
from tierwise.policy.budget import BudgetState, Limit, ReservationRequest, RunBudget
from tierwise.records import Attempt, Document, Outcome, Reply, Verdict

if TYPE_CHECKING:
    from sqlalchemy import URL

__all__ = [
    "BudgetChange",
    "Decision",
    "DeferredRow",
    "Ledger",
    "OutcomeRow",
    "Paid",
    "RunInfo",
    "RunRow",
    "RunState",
    "SummaryRow",
]

RunState = Literal["completed", "failed", "cancelled"]
LEASE_S = 300.0
_FIRST_POLL_S = 0.05
_LAST_POLL_S = 1.0
_MONEY_POLL_S = 0.2  # one caller a process asks
_MONEY = "money"  # news that some came back


@dataclass(frozen=True, slots=True)
class _Holding:
    """A claim that this process holds, and the reservation that came with it."""

    token: str
    lease_s: float
    reservation: ReservationRequest | None

    def ends(self, cost: Decimal | None) -> Settlement | None:
        """The reservation's end; `cost` is in USD, None when unknown."""
        return (
            Settlement(self.reservation.id, tuple(self.reservation.limits), cost)
            if self.reservation
            else None
        )


class Ledger:
    """The append-only record of a project, in SQLite or PostgreSQL.

    Async methods return after the commit and belong to one event loop; the others may be called
    from any thread. All raise LedgerError when the database fails or the ledger is closed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writer = Writer(database)
        # Reading, for commands and reports.
        self.runs = Runs(database)
        self.summaries = Summaries(database)
        self.history = History(database)
        # Reading and writing for people.
        self.reviews = Reviews(database)
        self.samples = Samples(database, self._writer)
        self.retention = Retention(database)
        self.seals = Seals(database)
        self._owner = new_process_identity()
        self._leases = RunLeases(self._writer, self._owner)
        self._counter = itertools.count()
        self.budgets = Budgets(database, self._top_up)
        self.budget_states: dict[str, BudgetState] = {}  # as this process last heard of them
        self._held: dict[str, _Holding] = {}  # by call hash
        self._news: dict[
            str, asyncio.Event
        ] = {}  # call hash -> set when it is paid or given up here
        self._short: dict[
            tuple[str, ...], asyncio.Lock
        ] = {}  # budgets -> who is first in waiting for money

    @classmethod
    def open(cls, url: str | None = None, *, root: Path) -> Ledger:
        """Open the ledger at `url`, by default `.tierwise/ledger.db` below `root`, and migrate it.

        Takes `sqlite:///path` (below `root` unless absolute; `?timeout=` seconds to wait for a lock)
        and `postgresql+psycopg://`. Raises LedgerError with the remedy.
        """
        return cls(open_database(url, root))

    @property
    def url(self) -> URL:
        """The database's address, password included."""
        return self._database.engine.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write all that waits, give up the claims still held, and close. A second call does nothing."""
        self._leases.close()
        while self._held:
            call_hash, holding = self._held.popitem()
            self._give_up(call_hash, holding, cost=None)
        self._writer.close()
        self._database.close()

    def run_budget(self, limits: Iterable[Limit]) -> RunBudget:
        """What a run may spend under these limits; it knows how they stand."""
        run_budget = RunBudget(limits, self.budget_states)
        if run_budget.limits:
            names = [state.name for state in run_budget.states()]
            self.budget_states.update((state.name, state) for state in self.budgets.states(names))
        return run_budget

    def start_run(self, run: RunInfo) -> None:
        """Record that a run started; the runs of processes that are gone get their end."""
        self._writer.submit(
            Operation(rows={"start": [run_row(run) | self._leases.begin(run.id)]})
        ).result()
        self.seals.end_crashed()

    def finish_run(self, run_id: str, state: RunState) -> None:
        """Record how a run ended, and seal what is on record of it."""
        row = {"run": run_id, "end": state, "at": time.time()}
        self._writer.submit(Operation(rows={"finish": [row]})).result()
        self._leases.end(run_id)
        self.seals.seal_run(run_id)

    async def claim(
        self,
        call_hash: str,
        *,
        owner: str | None = None,
        fresh_since: float | None = None,
        lease_s: float = LEASE_S,
        reservation: ReservationRequest | None = None,
    ) -> Paid | None:
        """The paid reply of this very call, or None: then the caller holds the claim and settles or releases it.

        Waits while another live owner holds it, in this process or elsewhere. The claim of a process that
        died on this machine is free at once; elsewhere it is free after `lease_s` seconds. `fresh_since`
        (seconds since the epoch) refuses replies that were paid earlier. `owner` is a name for the records;
        with one of one's own, only the lease tells whether it lives.

        With `wish`, the claim comes together with the money, in one commit: waits for what calls under way may
        give back, and raises BudgetExceeded when there is not enough even then.
        """
        delay = _FIRST_POLL_S
        in_line = False
        async with AsyncExitStack() as line:
            while True:
                token = f"{owner or self._owner} {next(self._counter)}"
                holding = _Holding(token, lease_s, reservation)
                answer = await self._ask(call_hash, holding, fresh_since)
                if granted(answer):
                    self._held[call_hash] = holding
                    return None
                if isinstance(answer, Paid):
                    self._tell(call_hash)
                    return answer
                if isinstance(answer, Held):
                    await self._wait_for_news(call_hash, min(delay, answer.seconds + 0.01))
                elif isinstance(answer, ReservationResult) and answer.refused is not None:
                    raise _exceeded(answer)
                elif (
                    reservation and not in_line
                ):  # first come, first served: one waits for money, the others for their turn
                    in_line = True
                    await line.enter_async_context(
                        self._short.setdefault(tuple(reservation.limits), asyncio.Lock())
                    )
                    continue
                else:
                    await self._wait_for_news(_MONEY, min(delay, _MONEY_POLL_S))
                delay = min(delay * 2, _LAST_POLL_S)

    async def _ask(self, call_hash: str, holding: _Holding, fresh_since: float | None) -> Answer:
        """One try to get the claim."""
        claim = Claim(
            call_hash=call_hash,
            owner=holding.token,
            lease_s=holding.lease_s,
            fresh_since=fresh_since,
            reservation=holding.reservation,
        )
        try:
            answer = await self._writer.write(Operation(claim=claim))
        except asyncio.CancelledError:
            self._give_up(call_hash, holding, cost=Decimal(0))
            raise
        self._heard(answer)
        return answer

    @contextmanager
    def kept(self, call_hash: str) -> Iterator[None]:
        """Renew a claim that this process holds until the end of the block, however long the call takes."""
        holding = self._held.get(call_hash)
        if holding is None:
            yield
            return
        every = holding.lease_s / 3
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def renew() -> None:
            nonlocal timer
            if timer:
                row = {
                    "call": call_hash,
                    "holder": holding.token,
                    "until": time.time() + holding.lease_s,
                }
                with suppress(LedgerError):  # closed: nobody waits for the call any more
                    self._writer.submit(Operation(rows={"renew": [row]}))
            timer = loop.call_later(every, renew)

        renew()
        try:
            yield
        finally:
            if timer:
                timer.cancel()

    async def release(self, call_hash: str) -> None:
        """Give up a claim that this process holds, and the money with it: nothing was sent. Else nothing happens."""
        if holding := self._held.get(call_hash):
            rows = _free(call_hash, holding.token)
            settlement = holding.ends(Decimal(0))
            self._heard(await self._writer.write(Operation(rows=rows, settlement=settlement)))
            self._settled(call_hash, holding)

    async def settle(self, run_id: str, attempt: Attempt, reply: Reply | None) -> None:
        """Record an attempt; its reply marks the call paid, its absence gives the claim up.

        What was reserved for the call is settled in the same commit. A reused attempt leaves the call as it is.
        """
        rows: dict[Kind, Sequence[Row]] = {"attempt": [attempt_row(run_id, attempt)]}
        if attempt.verdicts:
            rows["verdict"] = verdict_rows(attempt.id, attempt.verdicts)
        holding = None if attempt.reused else self._held.get(attempt.call_hash)
        if reply and not attempt.reused:
            rows["paid"] = [paid_row(attempt, reply, time.time())]
        elif holding:
            rows |= _free(attempt.call_hash, holding.token)
        settlement = holding.ends(attempt.cost) if holding else None
        self._heard(await self._writer.write(Operation(rows=rows, settlement=settlement)))
        self._settled(attempt.call_hash, holding)

    async def record_verdicts(
        self,
        run_id: str,  # noqa: ARG002
        attempt_id: str,
        verdicts: Sequence[Verdict],
    ) -> None:
        """Record what the checks said of an attempt; the same check again replaces its verdict."""
        if verdicts:
            await self._writer.write(
                Operation(rows={"verdict": verdict_rows(attempt_id, verdicts)})
            )

    async def record_outcome(
        self, run_id: str, document: Document, outcome: Outcome, question: str | None = None
    ) -> None:
        """Record what a document got from a step, in place of an earlier outcome in the same run, with all verdicts.

        `question` tells what was asked (see `Step.question`), so that a person's answer to it can be reused.
        """
        rows: dict[Kind, Sequence[Row]] = {
            "outcome": [outcome_row(run_id, document, outcome, time.time(), question)]
        }
        if verdicts := [
            row
            for attempt in outcome.attempts
            for row in verdict_rows(attempt.id, attempt.verdicts)
        ]:
            rows["verdict"] = verdicts
        await self._writer.write(Operation(rows=rows))

    def _give_up(self, call_hash: str, holding: _Holding, *, cost: Decimal | None) -> None:
        operation = Operation(rows=_free(call_hash, holding.token), settlement=holding.ends(cost))
        self._writer.submit(operation)

    async def top_up(self, budget: str, usd: Decimal, note: str) -> None:
        """Add to a budget's limit, for all who draw on it, and put that on record."""
        self._heard(await self._writer.write(Operation(grant=LimitIncrease(budget, usd, note))))

    def _top_up(self, grant: LimitIncrease) -> None:
        self._heard(self._writer.submit(Operation(grant=grant)).result())

    def _heard(self, answer: Answer) -> None:
        """Remember how budgets stand."""
        if isinstance(answer, ReservationResult):
            self.budget_states.update((state.name, state) for state in answer.states)

    def _settled(self, call_hash: str, holding: _Holding | None) -> None:
        if holding and self._held.get(call_hash) is holding:
            del self._held[call_hash]
        self._tell(call_hash)
        if holding and holding.reservation:
            self._tell(_MONEY)

    async def _wait_for_news(self, call_hash: str, seconds: float) -> None:
        """Until the call is paid or given up in this process, or the time is over."""
        event = self._news.setdefault(call_hash, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    def _tell(self, call_hash: str) -> None:
        if event := self._news.pop(call_hash, None):
            event.set()


def _exceeded(funds: ReservationResult) -> BudgetExceeded:
    if poor := funds.poor:
        return BudgetExceeded(funds.refused or "", budget=poor.name, left=poor.left)
    return BudgetExceeded(funds.refused or "")


def _free(call_hash: str, token: str) -> dict[Kind, Sequence[Row]]:
    return {"free": [{"call": call_hash, "holder": token}]}
