"""Limits on spending: a run's own, and those of a day or month for runs with certain tags.

The money itself is in the ledger, so that limits apply across processes and machines. The worst
case of a call is reserved in the commit that claims the call, and its cost is settled in the commit
that records its attempt. This module has a process's view of the budgets.
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
    """At most `usd` for a subject: in all, or in each UTC day or month.

    Raises Misuse for an amount that is negative or not finite.
    """

    # Such as "run 20261105-101500-ab12" or "team=claims"; "" is everything
    subject: str
    usd: Decimal
    per: Period | None = None

    def __post_init__(self) -> None:
        if not (self.usd.is_finite() and self.usd >= 0):
            raise Misuse(f"a budget is 0 USD or more, or none at all; not {self.usd}")

    def name(self, now: float) -> str:
        """Return the budget's name in the ledger, such as `day 2026-11-05 team=claims`."""
        parts = []
        if self.per:
            parts = [self.per, time.strftime(_DATES[self.per], time.gmtime(now))]
        if self.subject:
            parts.append(self.subject)
        return " ".join(parts)


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
        """The USD not spent yet.

        Reservations of calls in flight are included, since most of that money comes back.
        """
        return self.limit - self.spent

    @property
    def free(self) -> Decimal:
        """The USD neither spent nor reserved."""
        return self.left - self.reserved


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationRequest:
    """A request to reserve the worst case of one call."""

    id: str  # of the call's attempt
    usd: Decimal | None  # the worst case; None if the price is unknown
    limits: Mapping[str, Decimal]  # budget -> USD


class RunBudget:
    """The budgets of one run. `states` holds each budget as this process last read it."""

    def __init__(
        self,
        limits: Iterable[Limit] = (),
        states: Mapping[str, BudgetState] | None = None,
    ) -> None:
        self.limits = tuple(limits)
        # By this process, with or without limits; an unknown cost counts as its worst case.
        self.spent = ZERO
        # Why the last document without money was deferred.
        self.last_shortfall: str | None = None
        # The engine updates the mapping in place, so it is not copied.
        self._states: Mapping[str, BudgetState] = {}
        if states is not None:
            self._states = states

    @property
    def left(self) -> Decimal | None:
        """The USD that may still be spent under the tightest limit; None without a limit."""
        return min((state.left for state in self.states()), default=None)

    @property
    def used(self) -> float:
        """The greatest share of a limit that is spent or reserved.

        It is 0 without a limit, and 1 with a limit of 0.
        """
        return max((_used(state) for state in self.states()), default=0.0)

    def states(self) -> list[BudgetState]:
        """Return the budgets that this run draws on now; a new one is full."""
        states = []
        for name, usd in self._names().items():
            state = self._states.get(name) or BudgetState(name, usd)
            # The rules may have changed since, so the limit is theirs and not the ledger's.
            states.append(replace(state, limit=usd + state.granted))
        return states

    def reservation(
        self, attempt_id: str, worst: Decimal | None, *, unpriced_allowed: bool = False
    ) -> ReservationRequest | None:
        """Return the reservation of at most `worst` USD (None: unknown); None for a free call."""
        usd = worst
        if not self.limits or usd == 0:
            return None
        if worst is None and unpriced_allowed:
            # It reserves nothing, and leaves an entry: its cost may be filled in later.
            usd = ZERO
        return ReservationRequest(id=attempt_id, usd=usd, limits=self._names())

    def _names(self) -> dict[str, Decimal]:
        """Return the limits by the names of their budgets, which change with the day."""
        now = time.time()
        return {limit.name(now): limit.usd for limit in self.limits}


def current_states(
    limits: Iterable[Limit], recorded: Iterable[BudgetState]
) -> list[BudgetState]:
    """Return the budgets that the rules' limits give now, with what the ledger has of each.

    The limit is that of the rules, also where nothing was spent since they changed.
    """
    by_name = {state.name: state for state in recorded}
    return RunBudget(limits, by_name).states()


def _used(state: BudgetState) -> float:
    return _share(state.spent + state.reserved, state.limit)


def _share(used: Decimal, limit: Decimal) -> float:
    # A limit of 0 is exhausted from the start.
    if not limit:
        return 1.0
    return float(used / limit)


class Budget(RunBudget):
    """Planned spending in USD, which is not in the ledger.

    At any moment `spent + reserved <= limit`. A cost that stays unknown is settled at its
    reservation. Raises Misuse for a limit that is negative or not finite.
    """

    def __init__(self, limit: Decimal | None) -> None:
        if limit is not None and not (limit.is_finite() and limit >= 0):
            raise Misuse(f"a budget is 0 USD or more, or none at all; not {limit}")
        super().__init__()
        self.limit = limit
        self.reserved = ZERO

    @property
    def left(self) -> Decimal | None:
        """The USD neither spent nor reserved; None without a limit."""
        if self.limit is None:
            return None
        return self.limit - self.spent - self.reserved

    @property
    def used(self) -> float:
        """The share of the limit that is spent or reserved.

        It is 0 without a limit, and 1 with a limit of 0.
        """
        if self.limit is None:
            return 0.0
        return _share(self.spent + self.reserved, self.limit)

    def reserve(
        self, worst: Decimal | None, *, unpriced_allowed: bool = False
    ) -> Decimal:
        """Reserve the worst case of a call, and return the reservation.

        Raises BudgetExceeded if it does not fit, or if it is unknown and that is not allowed.
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
        reservation = worst or ZERO
        self.reserved += reservation
        return reservation

    def settle(self, reservation: Decimal, actual: Decimal | None) -> None:
        """Replace a reservation by the call's cost."""
        self.reserved -= reservation
        if actual is None:
            actual = reservation
        self.spent += actual
