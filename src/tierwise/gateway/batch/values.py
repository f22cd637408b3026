"""The values of provider batches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tierwise.errors import BatchError, CallError
from tierwise.records import Call, Reply

BatchState = Literal[
    "validating",
    "in_progress",
    "finalizing",
    "cancelling",
    "ended",
    "failed",
    "expired",
    "cancelled",
]
# No item is answered any more, and results that there are can be read.
FINAL: frozenset[BatchState] = frozenset({"ended", "failed", "expired", "cancelled"})


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One call in a batch. `custom_id` is the call's hash."""

    custom_id: str
    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderBatch:
    """A batch as its provider describes it. Times are seconds since the epoch, by its clock.

    `key` is our own id of the batch, as it was sent along with it; None where the provider keeps
    none. `fault` says why a batch has no results, or not all of them.
    """

    id: str
    state: BatchState
    total: int
    succeeded: int = 0
    failed: int = 0
    created_at: float | None = None
    ended_at: float | None = None
    expires_at: float | None = None
    key: str | None = None
    fault: BatchError | None = field(default=None, compare=False)
    # the provider's clock when it said this: ours may be wrong
    seen_at: float | None = field(default=None, compare=False)
    # where its results are, in the provider's words; read again if there are none
    files: tuple[str, ...] = field(default=(), repr=False)

    @property
    def has_ended(self) -> bool:
        """Return True if no item is answered any more."""
        return self.state in FINAL

    @property
    def age_s(self) -> float | None:
        """Return the seconds since it was made, by the provider's clock alone."""
        if self.created_at is None or self.seen_at is None:
            return None
        return max(0.0, self.seen_at - self.created_at)


@dataclass(frozen=True, slots=True)
class ItemResult:
    """The result of one item: its reply, or the error that an online call would have raised.

    An item that was not answered for a reason of the batch has a BatchError.
    """

    custom_id: str
    reply: Reply | CallError
