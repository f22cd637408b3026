"""The values of the batch lane: a call that is to be batched, and the ways in which it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tierwise.errors import CallError, TierwiseError
from tierwise.gateway.batch import BatchItem, ItemResult, ProviderBatch
from tierwise.ledger.batches import Batches
from tierwise.policy.catalog import Model
from tierwise.records import Attempt, Call, Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchedCall:
    """A call that this process has claimed and gathers for a batch.

    `refusal` gives the guard that forbids the batch, as it is asked once more just before the
    upload. `checked` turns a reply that is no answer to the call into its fault.
    """

    run_id: str
    model: Model
    call: Call
    attempt: Attempt  # without an answer yet
    prompt_tokens: int  # by our own count
    refusal: Callable[[], str | None]
    checked: Callable[[Reply], Reply | CallError]

    @property
    def hash(self) -> str:
        """The call's hash."""
        return self.attempt.call_hash


@dataclass(frozen=True, slots=True)
class Settled:
    """The call's attempt is on record, with a reply or an error."""

    attempt: Attempt
    result: Reply | CallError


@dataclass(frozen=True, slots=True)
class GoesOnline:
    """The call is to be made online, now: nothing was paid for it, or its answer is too late."""


@dataclass(frozen=True, slots=True)
class Again:
    """The caller asks the ledger again: the call is paid, or free."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The call cannot be made, or its answer cannot be had now; no attempt is on record."""

    error: TierwiseError


BatchEnd = Settled | GoesOnline | Again | Broken


class Door(Protocol):
    """The part of the gateway that the batch lane needs."""

    async def submit(
        self, model: str, items: Sequence[BatchItem], key: str
    ) -> ProviderBatch:
        """Send some calls as one batch. Raises CallError, ModelUnavailable."""
        ...

    async def find(
        self, model: str, key: str, since: float, ids: Collection[str] = ()
    ) -> ProviderBatch | None:
        """Return the batch that was sent with our `key`, if the provider has it."""
        ...

    async def status(self, model: str, provider_id: str) -> ProviderBatch:
        """Return a batch as it is now."""
        ...

    def results(
        self,
        model: str,
        batch: ProviderBatch,
        calls: Mapping[str, Call] | None = None,
    ) -> AsyncIterator[ItemResult]:
        """Yield the results of a batch that has ended."""
        ...

    async def cancel(self, model: str, provider_id: str) -> ProviderBatch:
        """Ask for the end of a batch."""
        ...

    async def sizes(self, model: str, items: Sequence[BatchItem]) -> list[int]:
        """Return the bytes of each item."""
        ...


class BatchLedger(Protocol):
    """The part of the ledger that the batch lane needs."""

    @property
    def batches(self) -> Batches:
        """Return the batches on record."""
        ...

    async def release(self, call_hash: str) -> None:
        """Give up a claim whose call was not sent."""
        ...
