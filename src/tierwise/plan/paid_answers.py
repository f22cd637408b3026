"""What the ledger already answers: the cascade itself, over paid calls alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tierwise.cascade import Cascade
from tierwise.ledger import Ledger, Paid
from tierwise.records import Call, Reply


class Unpaid(Exception):
    """A call that nobody paid yet was about to be made."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model


class _Nobody:
    """A provider that is never asked."""

    async def complete(self, call: Call) -> Reply:
        raise Unpaid(call.model)


class _PaidOnly(Ledger):
    """A ledger that gives paid answers and records nothing."""

    def __init__(self, ledger: Ledger) -> None:
        self._database = ledger._database

    async def claim(self, call_hash: str, **_: Any) -> Paid | None:
        reply = self.reply(call_hash)
        return Paid(reply, "", None) if reply else None

    @contextmanager
    def kept(self, _: str) -> Iterator[None]:
        yield

    async def release(self, *_: Any) -> None:
        pass

    async def settle(self, *_: Any) -> None:
        pass

    async def record_outcome(self, *_: Any) -> None:
        pass


def paid_cascade(ledger: Ledger) -> Cascade:
    """A cascade that answers from the ledger, records nothing, and raises Unpaid instead of calling anybody."""
    return Cascade(_Nobody(), _PaidOnly(ledger))
