"""The ledger: recorded runs, attempts, outcomes and budgets, with a facet for each use."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tierwise.errors import BudgetExceeded, CallInBatch, LedgerAway, LedgerError
from tierwise.ledger import unwritten
from tierwise.ledger.batches import Batches
from tierwise.ledger.budgets import (
    BudgetChange,
    Budgets,
    LimitIncrease,
    ReservationResult,
)
from tierwise.ledger.claims import HeldClaim
from tierwise.ledger.database import Database, open_database
from tierwise.ledger.detached import DetachedRuns
from tierwise.ledger.groups import GroupsOfRuns
from tierwise.ledger.leases import RunLeases
from tierwise.ledger.operations import (
    Claim,
    ClaimedElsewhere,
    Kind,
    Operation,
    OperationResult,
    is_granted,
    lost_row,
)
from tierwise.ledger.people.acknowledgements import Acknowledgements
from tierwise.ledger.people.canaries import ServedModels
from tierwise.ledger.people.comparisons import Comparisons
from tierwise.ledger.people.repricing import Repricing
from tierwise.ledger.people.retention import Retention
from tierwise.ledger.people.reviews import Decision, Reviews
from tierwise.ledger.people.samples import Samples
from tierwise.ledger.people.seals import Seals
from tierwise.ledger.processes import (
    batch_of_owner,
    gathering,
    new_process_identity,
)
from tierwise.ledger.row_removal import RowRemoval
from tierwise.ledger.rows import (
    DeferredRow,
    OutcomeRow,
    Paid,
    Row,
    RunInfo,
    RunRow,
    RunState,
    SummaryRow,
    attempt_row,
    in_flight_row,
    outcome_row,
    paid_row,
    run_row,
    verdict_rows,
)
from tierwise.ledger.run_folders import FoldersOfRuns
from tierwise.ledger.views.history import History
from tierwise.ledger.views.overview import Overview
from tierwise.ledger.views.runs import Runs
from tierwise.ledger.views.summary import Summaries
from tierwise.ledger.writer import Writer
from tierwise.policy.budget import BudgetState, Limit, ReservationRequest, RunBudget
from tierwise.records import Attempt, Document, Outcome, Reply, Verdict
from tierwise.text.amounts import plural

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

log = logging.getLogger(__name__)
LEASE_S = 300.0  # of a claim; `kept` renews it three times in that time
_CLOSES_IN_S = 3.0  # where the database is away
_FIRST_POLL_S = 0.05
_LAST_POLL_S = 1.0
_MONEY_POLL_S = 0.2  # one caller of a process polls
_MONEY = "money"  # the signal that reserved money came back


class Ledger:
    """The append-only record of a project, in SQLite or PostgreSQL.

    Async methods return after the commit and belong to one event loop; the others may be called
    from any thread. All raise LedgerError when the database fails or the ledger is closed.
    """

    def __init__(self, database: Database, root: Path) -> None:
        self._database = database
        self._owner = new_process_identity()
        self._unwritten_folder = root / unwritten.FOLDER
        self._unwritten = unwritten.Unwritten(self._unwritten_folder, self._owner)
        self._writer = Writer(database, self._unwritten)
        # Reading, for commands and reports.
        self.runs = Runs(database)
        self.summaries = Summaries(database)
        self.overview = Overview(database)
        self.history = History(database)
        self.folders = FoldersOfRuns(database)
        self.groups = GroupsOfRuns(database)
        self.detached = DetachedRuns(database)
        # Reading and writing for people.
        self.reviews = Reviews(database)
        self.samples = Samples(database, self._writer)
        self.comparisons = Comparisons(database)
        self.acknowledgements = Acknowledgements(database)
        self.served = ServedModels(database)
        self.retention = Retention(database)
        self.seals = Seals(database)
        self.row_removal = RowRemoval(database, self.seals)
        self.repricing = Repricing(database)
        self._leases = RunLeases(self._writer, self._owner)
        self._counter = itertools.count()
        self.budgets = Budgets(database, self._top_up)
        self.budget_states: dict[str, BudgetState] = {}  # as this process last saw them
        self._held: dict[str, HeldClaim] = {}  # by call hash
        # By call hash: set when the call is paid or given up in this process.
        self._signals: dict[str, asyncio.Event] = {}
        self.batches = Batches(
            database,
            self._writer,
            self._owner,
            self._held,
            on_settled=self._on_settled,
        )
        # By budgets: held by the call that is first in line for their money.
        self._lines: dict[tuple[str, ...], asyncio.Lock] = {}

    @classmethod
    def open(
        cls, url: str | None = None, *, root: Path, patience_s: float = 0.0
    ) -> Ledger:
        """Open the ledger at `url`, by default `.tierwise/ledger.db` below `root`, and migrate it.

        Takes `sqlite:///path` (below `root` unless absolute; `?timeout=` seconds to wait for a
        lock) and `postgresql+psycopg://`. Wait `patience_s` for a database that is away, here and
        later (`be_patient` changes that). One that this user may not write can be read. Raises
        LedgerError with the remedy.
        """
        return cls(open_database(url, root, patience_s=patience_s), root)

    def be_patient(self, seconds: float) -> None:
        """Wait that long for a database that is away, from now on."""
        self._database.be_patient(seconds)

    def hurry(self, seconds: float) -> None:
        """Wait no longer than some seconds from now for a database that is away."""
        self._database.hurry(seconds)

    async def available(self) -> None:
        """Return once the database is not away, as far as is known."""
        await self._writer.available()

    @property
    def url(self) -> URL:
        """The database's address, password included."""
        return self._database.engine.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what waits, release all claims, and close. A second call does nothing."""
        self._leases.close()
        while self._held:
            call_hash, held = self._held.popitem()
            # The call may have been sent at an unknown cost: the reservation counts in full.
            cost = Decimal(0) if held.is_unsent else None
            self._give_up(call_hash, held, cost=cost)
        self._database.hurry(_CLOSES_IN_S)
        self._writer.close()
        self._unwritten.close()
        self._database.close()

    def run_budget(self, limits: Iterable[Limit]) -> RunBudget:
        """Return the budget of a run under these limits, with their present states."""
        run_budget = RunBudget(limits, self.budget_states)
        if run_budget.limits:
            names = [state.name for state in run_budget.states()]
            self.budget_states.update(
                (state.name, state) for state in self.budgets.states(names)
            )
        return run_budget

    def start_run(self, run: RunInfo) -> None:
        """Record that a run started; end the runs of processes that died.

        First record what earlier processes could not.
        """
        self._write_left_behind()
        self._writer.submit(
            Operation(rows={"start": [run_row(run) | self._leases.begin(run.id)]})
        ).result()
        self.seals.end_crashed()

    def reopen_run(
        self, run_id: str, *, flow_run_id: str | None, flow_run_name: str | None
    ) -> None:
        """Begin a detached run again, under its own id.

        Raises Misuse for a run that has ended or is under way elsewhere.
        """
        self._write_left_behind()
        lease = self._leases.begin(run_id)
        try:
            self.detached.reopen(
                run_id,
                flow_run_id=flow_run_id,
                flow_run_name=flow_run_name,
                lease=lease,
            )
        except BaseException:
            self._leases.end(run_id)
            raise
        self.seals.end_crashed()

    def finish_run(self, run_id: str, state: RunState) -> None:
        """Record the end of a run, and seal its records; a detached run is sealed at its end."""
        row = {"run": run_id, "end": state, "at": time.time()}
        self._writer.submit(Operation(rows={"finish": [row]})).result()
        # The seal comes last, because it covers the run's state and end too.
        self._leases.end(run_id)
        if state != "detached":
            self.seals.seal_run(run_id)

    def _write_left_behind(self) -> None:
        """Write what earlier processes, and this one, could not while the database was away."""
        self._unwritten.begin_another()
        for file in unwritten.left_behind(self._unwritten_folder, self._owner):
            run_ids = file.run_ids()
            sealed = self.seals.sealed_runs(run_ids)
            waiting = [
                self._writer.submit(operation)
                for operation in file.operations
                if not sealed.intersection(unwritten.run_ids_of(operation))
            ]
            failures = []
            for future in waiting:
                try:
                    future.result()
                except LedgerAway:
                    raise  # the file stays for the next run
                except LedgerError as error:
                    failures.append(error)
            # A run that was taken for dead has a seal of that time; this one counts.
            for run_id in self.runs.ended(run_ids):
                self.seals.seal_run(run_id)
            if failures:
                aside = file.set_aside()
                log.warning(
                    "%s of %s cannot be written; they are in %s: %s",
                    plural(len(failures), "record"),
                    file.path.name,
                    aside,
                    failures[0],
                )
                continue
            file.remove()
            log.warning(
                "%s on record that an earlier process could not write",
                plural(file.calls, "call"),
            )

    async def claim(
        self,
        call_hash: str,
        *,
        owner: str | None = None,
        fresh_since: float | None = None,
        lease_s: float = LEASE_S,
        reservation: ReservationRequest | None = None,
        run_id: str | None = None,
        attempt: Attempt | None = None,
        for_batch: bool = False,
    ) -> Paid | None:
        """Return the paid reply of this very call, or None once the caller holds the claim on it.

        Whoever holds the claim makes the call, and then settles or releases it. Wait while another
        live owner holds it, in this process or elsewhere. The claim of a process that died on this
        machine is free at once; elsewhere it is free after `lease_s` seconds. `fresh_since`
        (seconds since the epoch) refuses replies that were paid earlier. `owner` is a name for the
        records; with a custom one, only the lease tells whether the owner is alive.

        With a reservation, the claim and the money are granted in one commit. Wait for the money
        that calls under way may give back; raise BudgetExceeded if there is too little even then.

        `attempt` is what the claim is for, in the run `run_id`. If its end is never recorded, that
        run has a call of unknown cost. With `for_batch` the call waits for its batch: until
        `batches.intend`, the end of this process costs nothing. Raises CallInBatch for a call that
        is in a batch already.
        """
        in_flight = None
        if run_id is not None and attempt is not None and not for_batch:
            in_flight = in_flight_row(run_id, attempt)
        delay = _FIRST_POLL_S
        is_first_in_line = False
        async with AsyncExitStack() as line:
            while True:
                # A new token for each try: a late release of an earlier claim must not free
                # this one.
                token = f"{owner or self._owner} {next(self._counter)}"
                if for_batch:
                    token = gathering(token)
                held = HeldClaim(token, lease_s, reservation, in_flight)
                result = await self._try_to_claim(call_hash, held, fresh_since)
                if is_granted(result):
                    self._held[call_hash] = held
                    return None
                if isinstance(result, Paid):
                    # Another process may have paid; other callers in this one still wait.
                    self._notify(call_hash)
                    return result
                if isinstance(result, ClaimedElsewhere):
                    batch_id = batch_of_owner(result.owner)
                    if batch_id is not None:
                        raise CallInBatch(batch_id)
                    # Another process sends no signal, so look again now and then, and at the
                    # end of the lease at the latest.
                    await self._wait_for_signal(
                        call_hash, min(delay, result.seconds + 0.01)
                    )
                elif (
                    isinstance(result, ReservationResult) and result.refused is not None
                ):
                    raise _budget_exceeded(result)
                elif reservation and not is_first_in_line:
                    # First come, first served: one call polls for the money, the others queue up
                    # behind it. Try again at once when it is this call's turn.
                    budgets = tuple(reservation.limits)
                    await line.enter_async_context(
                        self._lines.setdefault(budgets, asyncio.Lock())
                    )
                    is_first_in_line = True
                    continue
                else:
                    await self._wait_for_signal(_MONEY, min(delay, _MONEY_POLL_S))
                delay = min(delay * 2, _LAST_POLL_S)

    async def _try_to_claim(
        self, call_hash: str, held: HeldClaim, fresh_since: float | None
    ) -> OperationResult:
        """Ask once for the claim."""
        claim = Claim(
            call_hash=call_hash,
            owner=held.token,
            lease_s=held.lease_s,
            fresh_since=fresh_since,
            reservation=held.reservation,
            in_flight=held.in_flight,
        )
        try:
            result = await self._writer.write(Operation(claim=claim))
        except asyncio.CancelledError:
            # The claim may be committed all the same. Nothing was sent, so nothing was spent.
            self._give_up(call_hash, held, cost=Decimal(0))
            raise
        self._remember_budgets(result)
        return result

    @contextmanager
    def kept(self, call_hash: str) -> Iterator[None]:
        """Renew a claim of this process until the end of the block."""
        held = self._held.get(call_hash)
        if held is None:
            yield
            return
        every = held.lease_s / 3
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def renew() -> None:
            nonlocal timer
            # The first time this only starts the timer, as the claim is new.
            if timer:
                row = {
                    "call": call_hash,
                    "holder": held.token,
                    "until": time.time() + held.lease_s,
                }
                # the ledger is closed: no caller waits for the call
                with suppress(LedgerError):
                    self._writer.submit(Operation(rows={"renew": [row]}))
            timer = loop.call_later(every, renew)

        renew()
        try:
            yield
        finally:
            if timer:
                timer.cancel()

    async def release(self, call_hash: str) -> None:
        """Give up a claim that this process holds, and the money with it: nothing was sent.

        Do nothing if it holds none.
        """
        if held := self._held.get(call_hash):
            rows = _free(call_hash, held.token)
            settlement = held.settlement(Decimal(0))
            self._remember_budgets(
                await self._writer.write(Operation(rows=rows, settlement=settlement))
            )
            self._settled(call_hash, held)

    async def settle(
        self, run_id: str, attempt: Attempt, reply: Reply | None, *, note: str = ""
    ) -> None:
        """Record an attempt; its reply marks the call paid, its absence gives the claim up.

        The reservation is settled in the same commit, with the note. A reused attempt leaves the
        call as it is.
        """
        rows: dict[Kind, Sequence[Row]] = {"attempt": [attempt_row(run_id, attempt)]}
        if attempt.verdicts:
            rows["verdict"] = verdict_rows(attempt.id, attempt.verdicts)
        held = None if attempt.reused else self._held.get(attempt.call_hash)
        if reply and not attempt.reused:
            rows["paid"] = [paid_row(attempt, reply, time.time())]
        elif held:
            # A paid row has no owner, so only this case has to free the claim.
            rows |= _free(attempt.call_hash, held.token)
        settlement = held.settlement(attempt.cost, note) if held else None
        self._remember_budgets(
            await self._writer.write(Operation(rows=rows, settlement=settlement))
        )
        self._settled(attempt.call_hash, held)

    async def recorded_attempt(self, attempt_id: str) -> Attempt | None:
        """Return an attempt that is on record, without its text and verdicts."""
        return await asyncio.to_thread(self.batches.recorded_attempt, attempt_id)

    async def failed_attempts(self, run_id: str, like: Attempt) -> Sequence[Attempt]:
        """Return a run's failed attempts of a document's call, in the order of recording.

        `like` is another attempt of the same call for the same document.
        """
        return await asyncio.to_thread(self.batches.failed_attempts, run_id, like)

    async def record_verdicts(
        self,
        run_id: str,  # noqa: ARG002
        attempt_id: str,
        verdicts: Sequence[Verdict],
    ) -> None:
        """Record the verdicts of an attempt; a repeated check replaces its verdict."""
        if verdicts:
            await self._writer.write(
                Operation(rows={"verdict": verdict_rows(attempt_id, verdicts)})
            )

    async def record_outcome(
        self,
        run_id: str,
        document: Document,
        outcome: Outcome,
        question: str | None = None,
    ) -> None:
        """Record a document's outcome in a step with all verdicts, in place of an earlier one.

        `question` identifies the question (see `Step.question`), so that a person's answer to it
        can be reused.
        """
        row = outcome_row(run_id, document, outcome, time.time(), question)
        rows: dict[Kind, Sequence[Row]] = {"outcome": [row]}
        verdicts: list[Row] = []
        for attempt in outcome.attempts:
            verdicts += verdict_rows(attempt.id, attempt.verdicts)
        if verdicts:
            rows["verdict"] = verdicts
        await self._writer.write(Operation(rows=rows))

    def _give_up(
        self, call_hash: str, held: HeldClaim, *, cost: Decimal | None
    ) -> None:
        rows = _free(call_hash, held.token)
        if cost is None and held.in_flight is not None:
            rows["lost"] = [lost_row(held.in_flight, time.time())]
        operation = Operation(rows=rows, settlement=held.settlement(cost))
        self._writer.submit(operation)

    async def top_up(self, budget: str, usd: Decimal, note: str) -> None:
        """Add to a budget's limit, for all runs that draw on it, and record that."""
        self._remember_budgets(
            await self._writer.write(
                Operation(increase=LimitIncrease(budget, usd, note))
            )
        )

    def _top_up(self, increase: LimitIncrease) -> None:
        self._remember_budgets(
            self._writer.submit(Operation(increase=increase)).result()
        )

    def _remember_budgets(self, result: OperationResult) -> None:
        """Keep the latest state of each budget, so that routing needs no query."""
        if isinstance(result, ReservationResult):
            self.budget_states.update((state.name, state) for state in result.states)

    def _settled(self, call_hash: str, held: HeldClaim | None) -> None:
        # `is`: after an expired lease, a newer claim of this process may have taken the place.
        if held and self._held.get(call_hash) is held:
            del self._held[call_hash]
        self._notify(call_hash)
        if held and held.reservation:
            self._notify(_MONEY)

    def _on_settled(self, call_hash: str, result: OperationResult) -> None:
        """Note the end of an item of a batch: callers of its call look again."""
        self._remember_budgets(result)
        self._notify(call_hash)
        self._notify(_MONEY)

    async def _wait_for_signal(self, call_hash: str, seconds: float) -> None:
        """Wait until the call is paid or given up in this process, or the time is over."""
        event = self._signals.setdefault(call_hash, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()

    def _notify(self, call_hash: str) -> None:
        # Removed, as an event stays set: the next caller to wait makes a new one.
        if event := self._signals.pop(call_hash, None):
            event.set()


def _budget_exceeded(result: ReservationResult) -> BudgetExceeded:
    reason = result.refused or ""
    exhausted = result.exhausted
    if exhausted is None:
        return BudgetExceeded(reason)
    return BudgetExceeded(reason, budget=exhausted.name, left=exhausted.left)


def _free(call_hash: str, token: str) -> dict[Kind, Sequence[Row]]:
    return {"free": [{"call": call_hash, "holder": token}]}
