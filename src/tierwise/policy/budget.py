"""Limits on spending: a run's own, and those of a day or month for runs with certain tags.

The money itself is in the ledger, so that limits hold across processes and machines: the worst case of a call is
reserved in the commit that claims the call, and what it cost is settled in the commit that records its attempt.
Here is what a process knows of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

from tierwise.errors import BudgetExceeded, Misuse

ZERO = Decimal(0)
Period = Literal["day", "month"]
_DATES = {"day": "%Y-%m-%d", "month": "%Y-%m"}


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `usd` for a subject: in all, or in each UTC day or month. Raises Misuse for what is no such amount."""

    # such as "run 20261105-101500-ab12" or "team=claims"; "" is everything
    subject: str
    usd: Decimal
    per: Period | None = None

    def __post_init__(self) -> None:
        if not (self.usd.is_finite() and self.usd >= 0):
            raise Misuse(f"a budget is 0 USD or more, or none at all; not {self.usd}")

    def name(self, now: float) -> str:
        """Return the budget's name in the ledger, such as `day 2026-11-05 team=claims`."""
        date = (
            [self.per, time.strftime(_DATES[self.per], time.gmtime(now))]
            if self.per
            else []
        )
        return " ".join([*date, *filter(None, [self.subject])])


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget as the ledger has it, in USD. `spent + reserved <= limit`, top-ups included."""

    name: str
    limit: Decimal
    spent: Decimal = ZERO
    reserved: Decimal = ZERO
    granted: Decimal = ZERO  # the part of the limit that people added

    @property
    def left(self) -> Decimal:
        """The USD not spent yet, reservations of calls in flight included: most of these come back."""
        return self.limit - self.spent

    @property
    def free(self) -> Decimal:
        """The USD neither spent nor reserved."""
        return self.left - self.reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationRequest:
    """A reservation as it is asked for. `usd` is the call's worst case, None when its price is unknown."""

    id: str  # of the attempt that it is for
    usd: Decimal | None
    limits: Mapping[str, Decimal]  # budget -> USD


class RunBudget:
    """The budgets of one run. `states` holds each budget as this process last read it."""

    def __init__(
        self,
        limits: Iterable[Limit] = (),
        states: Mapping[str, BudgetState] | None = None,
    ) -> None:
        self.limits = tuple(limits)
        # by this process, with or without limits; an unknown cost counts at its worst case
        self.spent = ZERO
        self.refused: str | None = None  # why a document was last left without money
        self._states = {} if states is None else states

    @property
    def left(self) -> Decimal | None:
        """USD that may still be spent under the tightest limit; None without a limit."""
        return min((state.left for state in self.states()), default=None)

    @property
    def used(self) -> float:
        """The greatest share of a limit that is spent or reserved; 0 without a limit, 1 with a limit of 0."""
        return max((_used(state) for state in self.states()), default=0.0)

    def states(self) -> list[BudgetState]:
        """Return the budgets that this run draws on now; a new one is full."""
        known = (
            (self._states.get(name) or BudgetState(name, usd), usd)
            for name, usd in self._names().items()
        )
        return [replace(state, limit=usd + state.granted) for state, usd in known]

    def reservation(
        self, attempt_id: str, worst: Decimal | None, *, unpriced_allowed: bool = False
    ) -> ReservationRequest | None:
        """Return the reservation for a call of at most `worst` USD (None: unknown); None if free."""
        usd = ZERO if worst is None and unpriced_allowed else worst
        if not self.limits or usd == 0:
            return None
        return ReservationRequest(id=attempt_id, usd=usd, limits=self._names())

    def _names(self) -> dict[str, Decimal]:
        now = time.time()
        return {limit.name(now): limit.usd for limit in self.limits}


def _used(state: BudgetState) -> float:
    return float((state.spent + state.reserved) / state.limit) if state.limit else 1.0


class Budget(RunBudget):
    """Spending that is only planned, in USD: nothing of it is in the ledger.

    At any moment `spent + reserved <= limit`. A cost that stays unknown is settled at what was reserved for it.
    Raises Misuse for a limit that is no amount of money.
    """

    def __init__(self, limit: Decimal | None) -> None:
        if limit is not None and not (limit.is_finite() and limit >= 0):
            raise Misuse(f"a budget is 0 USD or more, or none at all; not {limit}")
        super().__init__()
        self.limit = limit
        self.reserved = ZERO

    @property
    def left(self) -> Decimal | None:
        """USD neither spent nor reserved; None without a limit."""
        return None if self.limit is None else self.limit - self.spent - self.reserved

    @property
    def used(self) -> float:
        """Share of the limit that is spent or reserved; 0 without a limit, 1 with a limit of 0."""
        if self.limit is None:
            return 0.0
        return float((self.spent + self.reserved) / self.limit) if self.limit else 1.0

    def reserve(
        self, worst: Decimal | None, *, unpriced_allowed: bool = False
    ) -> Decimal:
        """Set the worst case of a call aside and give it back as the reservation.

        Raises BudgetExceeded when it does not fit, or is unknown and not allowed to be.
        """
        if self.left is not None:
            if worst is None and not unpriced_allowed:
                raise BudgetExceeded(
                    "the price is unknown, so the call could cost anything"
                )
            if worst is not None and worst > self.left:
                raise BudgetExceeded(
                    f"the call may cost {worst:.6f} USD, the budget has {self.left:.6f} left"
                )
        self.reserved += worst or ZERO
        return worst or ZERO

    def settle(self, reservation: Decimal, actual: Decimal | None) -> None:
        """Replace a reservation by what the call cost."""
        self.reserved -= reservation
        self.spent += reservation if actual is None else actual
