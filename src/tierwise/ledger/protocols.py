"""The few methods of the ledger that the cascade needs, as protocols for typing.

A stand-in that implements them can take the ledger's place: a plan runs the cascade over one that
answers from paid calls and records nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Protocol

from tierwise.ledger.people.samples import Samples
from tierwise.ledger.rows import Paid
from tierwise.policy.budget import BudgetState, ReservationRequest
from tierwise.records import Attempt, Document, Outcome, Reply, Verdict


class CallLedger(Protocol):
    """Claims on calls, and the record of attempts, verdicts and outcomes."""

    @property
    def samples(self) -> Samples:
        """Return the sampled answers on record."""
        ...

    async def claim(
        self,
        call_hash: str,
        *,
        fresh_since: float | None = None,
        reservation: ReservationRequest | None = None,
        run_id: str | None = None,
        attempt: Attempt | None = None,
        for_batch: bool = False,
    ) -> Paid | None:
        """Return the paid reply of a call, or None once the caller holds the claim on it.

        `attempt` is what the claim is for, in the run `run_id`; `for_batch` gathers it for a batch.
        Raises CallInBatch for a call that is in a batch already.
        """
        ...

    async def recorded_attempt(self, attempt_id: str) -> Attempt | None:
        """Return an attempt that is on record, without its text."""
        ...

    async def failed_attempts(self, run_id: str, like: Attempt) -> Sequence[Attempt]:
        """Return a run's failed attempts of a document's call, in the order of recording."""
        ...

    async def available(self) -> None:
        """Return once the ledger is not away, as far as is known."""
        ...

    def kept(self, call_hash: str) -> AbstractContextManager[None]:
        """Renew a claim until the end of the block."""
        ...

    async def release(self, call_hash: str) -> None:
        """Give up a claim whose call was not sent."""
        ...

    async def settle(
        self, run_id: str, attempt: Attempt, reply: Reply | None, *, note: str = ""
    ) -> None:
        """Record an attempt, and end the claim and the reservation of its call."""
        ...

    async def record_verdicts(
        self, run_id: str, attempt_id: str, verdicts: Sequence[Verdict]
    ) -> None:
        """Record the verdicts of an attempt."""
        ...

    async def record_outcome(
        self,
        run_id: str,
        document: Document,
        outcome: Outcome,
        question: str | None = None,
    ) -> None:
        """Record a document's outcome in a step."""
        ...


class BudgetLedger(Protocol):
    """Budgets that a person may raise during a run."""

    @property
    def budget_states(self) -> Mapping[str, BudgetState]:
        """Return the budgets by name, as this process last saw them."""
        ...

    async def top_up(self, budget: str, usd: Decimal, note: str) -> None:
        """Add to a budget's limit, for all runs that draw on it."""
        ...
