"""What happens when a run's purse is empty and a person may be asked for more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal

from tierwise.errors import BudgetExceeded
from tierwise.ledger import Ledger

Ask = Callable[[BudgetExceeded], Decimal | None]  # USD to add to the budget that is short; None: no


class Appeal:
    """Asks for money: one question at a time, however many documents wait, and none after a no."""

    def __init__(self, ask: Ask, ledger: Ledger) -> None:
        self._ask, self._ledger = ask, ledger
        self._lock = asyncio.Lock()
        self._denied = False

    async def more(self, error: BudgetExceeded) -> bool:
        """Whether there is more money now than when this error was raised. The question may block its own thread."""
        async with self._lock:
            if self._denied or error.budget is None or error.left is None:
                return False
            known = self._ledger.budget_states.get(error.budget)
            if known and known.left > error.left:
                return True
            usd = await asyncio.to_thread(self._ask, error)
            if not usd:
                self._denied = True
                return False
            await self._ledger.grant(error.budget, usd, "granted when the purse was empty")
            return True
