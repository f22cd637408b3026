"""Paid answers: the cascade itself, over the replies in the ledger, without a call or a record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tierwise.cascade import Cascade
from tierwise.errors import TierwiseError
from tierwise.ledger import Ledger, Paid
from tierwise.records import Attempt, Call, Reply


class UnpaidCall(TierwiseError):
    """A call that was not paid yet was about to be made."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.model = model


class _NoProvider:
    """A provider that refuses every call."""

    async def complete(self, call: Call) -> Reply:
        raise UnpaidCall(call.model)


class _ReadOnlyLedger:
    """A stand-in for the ledger whose claims return paid replies, and which records nothing."""

    def __init__(self, ledger: Ledger) -> None:
        self.samples = ledger.samples
        self._runs = ledger.runs

    async def claim(self, call_hash: str, **_: Any) -> Paid | None:
        reply = self._runs.reply(call_hash)
        if reply is None:
            return None
        return Paid(reply, "", None)

    async def recorded_attempt(self, _: str) -> None:
        return None

    async def failed_attempts(self, *_: Any) -> tuple[Attempt, ...]:
        return ()

    async def available(self) -> None:
        pass

    @contextmanager
    def kept(self, call_hash: str) -> Iterator[None]:  # noqa: ARG002
        yield

    async def release(self, *_: Any) -> None:
        pass

    async def settle(self, *_: Any, **__: Any) -> None:
        pass

    async def record_verdicts(self, *_: Any) -> None:
        pass

    async def record_outcome(self, *_: Any) -> None:
        pass


def paid_cascade(ledger: Ledger) -> Cascade:
    """Return a cascade that answers from the ledger and raises UnpaidCall instead of calling."""
    return Cascade(_NoProvider(), _ReadOnlyLedger(ledger))
