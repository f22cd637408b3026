"""A top-up: when the budget is exhausted during a run, a person is asked to raise it.

An empty budget defers the document (`cascade/cascade.py`), asks for a top-up here, or fails the run
(`engine.py`), as `when_empty` in the rules says.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

from tierwise.errors import BudgetExceeded
from tierwise.ledger import BudgetLedger

# Returns the USD to add to the exhausted budget; None means no.
AskForTopUp = Callable[[BudgetExceeded], Decimal | None]


class TopUp:
    """Asks for top-ups: one question at a time for all documents, and none after a refusal."""

    def __init__(self, ask: AskForTopUp, ledger: BudgetLedger) -> None:
        self._ask = ask
        self._ledger = ledger
        self._lock = asyncio.Lock()
        self._asks_no_more = False
        self._open_question: asyncio.Future[Decimal | None] | None = None

    async def request(self, error: BudgetExceeded) -> bool:
        """Return True if the budget has more left than when this error was raised."""
        async with self._lock:
            if self._asks_no_more or error.budget is None or error.left is None:
                return False
            # Another document's request may have raised the budget while this one waited.
            state = self._ledger.budget_states.get(error.budget)
            if state and state.left > error.left:
                return True
            usd = await self._ask_in_thread(error)
            if not usd:
                self._asks_no_more = True
                return False
            await self._ledger.top_up(
                error.budget, usd, "top-up when the budget was exhausted"
            )
            return True

    def close(self) -> None:
        """Withdraw the question. May be called from any thread."""
        self._asks_no_more = True
        if self._open_question:
            _resolve(self._open_question, None)

    def _ask_in_thread(self, error: BudgetExceeded) -> asyncio.Future[Decimal | None]:
        """Ask in a daemon thread: the answer may take a day, and the process may end meanwhile."""
        loop = asyncio.get_running_loop()
        question: asyncio.Future[Decimal | None] = loop.create_future()
        self._open_question = question

        def ask() -> None:
            usd = None
            try:
                usd = self._ask(error)
            finally:
                # also when asking failed, so that the document does not wait forever
                _resolve(question, usd)

        threading.Thread(target=ask, name="tierwise-top-up", daemon=True).start()
        return question


def _resolve(question: asyncio.Future[Decimal | None], usd: Decimal | None) -> None:
    """Answer a question on its own event loop; the first answer counts."""

    def resolve() -> None:
        if not question.done():
            question.set_result(usd)

    with suppress(RuntimeError):  # the loop is closed: the answer is no longer awaited
        question.get_loop().call_soon_threadsafe(resolve)
