"""What a batch API's format does for the door, and the choice of the format."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from tierwise.errors import BadReply, BatchError
from tierwise.gateway.batch.values import ProviderBatch
from tierwise.gateway.prepared import PreparedRequest
from tierwise.policy.batch_settings import BatchApi

if TYPE_CHECKING:
    from tierwise.gateway.batch.batch_http import BatchHttp

# Ids of batches and files go into addresses: nothing may lead to another path.
_ID = re.compile(r"[A-Za-z0-9_][\w.:=-]*(/[A-Za-z0-9_][\w.:=-]*)*")
_LONGEST_ID = 300
# Clocks differ, and an answer takes its time: batches this much older are looked at, too.
FIND_MARGIN_S = 900.0
MOST_PAGES = 50  # of a list of batches


@dataclass(frozen=True, slots=True)
class RawResult:
    """One item's result, before the lane has read it.

    `fault` is the class of an item that was not answered for a reason of the batch. `status` and
    `content` are the answer as an online call would have got it; None where it cannot be read.
    """

    custom_id: str | None
    status: int = 200
    content: bytes | None = field(default=None, repr=False)
    fault: type[BatchError] | None = None


class BatchFormat(Protocol):
    """One provider's format. Every method that sends raises CallError."""

    def base(self, url: str) -> str:
        """Return the address of the batch API, by that of an online call."""

    def line(self, custom_id: str, request: PreparedRequest) -> bytes:
        """Return an item as the API takes it, with the body of the online call as it is."""

    async def submit(
        self, http: BatchHttp, lines: Sequence[bytes], key: str
    ) -> ProviderBatch:
        """Make a batch."""

    async def find(
        self, http: BatchHttp, key: str, since: float, ids: Collection[str]
    ) -> ProviderBatch | None:
        """Return the batch that was made with our key since then, if there is one."""

    async def status(self, http: BatchHttp, provider_id: str) -> ProviderBatch:
        """Return a batch."""

    def results(
        self, http: BatchHttp, batch: ProviderBatch
    ) -> AsyncIterator[RawResult]:
        """Yield the results of a batch that has ended, in any order."""

    async def cancel(self, http: BatchHttp, provider_id: str) -> ProviderBatch:
        """Ask for the end of a batch; items that are under way are answered."""

    async def delete(self, http: BatchHttp, batch: ProviderBatch) -> None:
        """Delete what the provider stores of a batch, as far as it can."""


def find_format(api: BatchApi) -> BatchFormat:
    """Return the format of this name. Each is imported at its first use."""
    if api == "anthropic":
        from tierwise.gateway.batch.anthropic import AnthropicBatches

        return AnthropicBatches()
    if api == "mistral":
        from tierwise.gateway.batch.mistral import MistralJobs

        return MistralJobs()
    if api == "gemini":
        from tierwise.gateway.batch.gemini import GeminiBatches

        return GeminiBatches()
    if api == "openrouter":
        from tierwise.gateway.batch.openrouter import OpenRouterBatches

        return OpenRouterBatches()
    from tierwise.gateway.batch.openai import OpenAIBatches, TogetherBatches

    return TogetherBatches() if api == "together" else OpenAIBatches()


def checked_id(value: object, model: str) -> str:
    """Return the id of a batch or file. Raises BadReply for what is none."""
    is_plain = (
        isinstance(value, str)
        and len(value) <= _LONGEST_ID
        and _ID.fullmatch(value)
        and ".." not in value
    )
    if not is_plain:
        raise BadReply("the batch API's answer has no plain id", model=model)
    return str(value)


def as_time(value: object) -> float | None:
    """Return seconds since the epoch, from a number or an ISO date; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if 0 < value < 1e11 else None
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            return None
    return None


def by_server_clock(seconds: float, server_time: float) -> float:
    """Return a time of our clock as the server's clock had it, whose time is known now."""
    return seconds + server_time - time.time()
