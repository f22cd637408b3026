"""What happens when a run's purse is empty and a person may be asked for more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

from tierwise.errors import BudgetExceeded
from tierwise.ledger import Ledger

Ask = Callable[[BudgetExceeded], Decimal | None]  # USD to add to the budget that is short; None: no


class TopUp:
    """Asks for money: one question at a time, however many documents wait, and none after a no."""

    def __init__(self, ask: Ask, ledger: Ledger) -> None:
        self._ask = ask
        self._ledger = ledger
        self._lock = asyncio.Lock()
        self._denied = False
        self._pending: asyncio.Future[Decimal | None] | None = None

    async def more(self, error: BudgetExceeded) -> bool:
        """Whether there is more money now than when this error was raised."""
        async with self._lock:
            if self._denied or error.budget is None or error.left is None:
                return False
            known = self._ledger.budget_states.get(error.budget)
            if known and known.left > error.left:
                return True
            usd = await self._answer(error)
            if not usd:
                self._denied = True
                return False
            await self._ledger.grant(error.budget, usd, "granted when the purse was empty")
            return True

    def close(self) -> None:
        """Take the question back: nobody needs its answer any more. May be called from any thread."""
        self._denied = True
        if pending := self._pending:
            _resolve(pending, None)

    def _answer(self, error: BudgetExceeded) -> asyncio.Future[Decimal | None]:
        """What the person says; the question blocks a thread of its own, which no end of the process waits for."""
        self._pending = pending = asyncio.get_running_loop().create_future()

        def ask() -> None:
            usd = None
            try:
                usd = self._ask(error)
            finally:
                _resolve(pending, usd)

        threading.Thread(target=ask, name="tierwise-appeal", daemon=True).start()
        return pending


def _resolve(pending: asyncio.Future[Decimal | None], usd: Decimal | None) -> None:
    def resolve() -> None:
        if not pending.done():
            pending.set_result(usd)

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        pending.get_loop().call_soon_threadsafe(resolve)
