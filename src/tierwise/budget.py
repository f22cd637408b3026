"""A hard limit on spending: the worst case is reserved before a call, the actual cost settled after it."""

from __future__ import annotations

from decimal import Decimal

from tierwise.errors import BudgetExceeded, Misuse

ZERO = Decimal(0)


class Budget:
    """Spending of one run, in USD. Lives on the engine's event loop, so it needs no lock.

    At any moment `spent + reserved <= limit`. A cost that stays unknown is settled at what was reserved for it.
    Raises Misuse for a limit that is no amount of money.
    """

    def __init__(self, limit: Decimal | None) -> None:
        if limit is not None and not (limit.is_finite() and limit >= 0):
            raise Misuse(f"a budget is 0 USD or more, or none at all; not {limit}")
        self.limit, self.spent, self.reserved = limit, ZERO, ZERO

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

    def reserve(self, worst: Decimal | None, *, unpriced_allowed: bool = False) -> Decimal:
        """Set the worst case of a call aside and give it back as the reservation.

        Raises BudgetExceeded when it does not fit, or is unknown and not allowed to be.
        """
        if self.left is not None:
            if worst is None and not unpriced_allowed:
                raise BudgetExceeded("the price is unknown, so the call could cost anything")
            if worst is not None and worst > self.left:
                raise BudgetExceeded(f"the call may cost {worst:.6f} USD, the budget has {self.left:.6f} left")
        self.reserved += worst or ZERO
        return worst or ZERO

    def settle(self, reservation: Decimal, actual: Decimal | None) -> None:
        """Replace a reservation by what the call cost."""
        self.reserved -= reservation
        self.spent += reservation if actual is None else actual
