"""The claims that a process holds: on calls that it makes, or gathers for a batch."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from tierwise.ledger.budgets import Settlement
from tierwise.ledger.processes import is_gathering
from tierwise.ledger.rows import Row
from tierwise.policy.budget import ReservationRequest


@dataclass(frozen=True, slots=True)
class HeldClaim:
    """A claim that this process holds, and the reservation that came with it."""

    token: str
    lease_s: float
    reservation: ReservationRequest | None
    in_flight: Row | None = None

    @property
    def is_unsent(self) -> bool:
        """True where the call waits for its batch, so that nothing was sent."""
        return is_gathering(self.token)

    @property
    def budgets(self) -> tuple[str, ...]:
        """The names of the budgets that the call's worst case is reserved in."""
        if self.reservation is None:
            return ()
        return tuple(self.reservation.limits)

    def settlement(self, cost: Decimal | None, note: str = "") -> Settlement | None:
        """Return the end of the reservation, if any; `cost` is in USD, None when unknown."""
        if self.reservation is None:
            return None
        return Settlement(self.reservation.id, self.budgets, cost, note)
