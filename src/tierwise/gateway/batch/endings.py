"""What the formats have in common about a batch that is over: its files, and why it has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierwise import errors
from tierwise.errors import BatchError
from tierwise.gateway.batch.batch_faults import batch_error
from tierwise.gateway.batch.values import BatchState, ProviderBatch

if TYPE_CHECKING:
    from tierwise.gateway.batch.batch_http import BatchHttp
    from tierwise.gateway.batch.formats import BatchFormat


async def files_of(
    api: BatchFormat, http: BatchHttp, batch: ProviderBatch
) -> tuple[str, ...]:
    """Return the files of a batch's results, and ask for them where they are not known yet.

    Raises BatchResultsGone for a batch that ended with items and has no file.
    """
    if batch.files:
        return batch.files
    fresh = await api.status(http, batch.id)
    if not fresh.files and batch.state == "ended" and batch.total:
        raise batch_error(errors.BatchResultsGone, http.model, provider_id=batch.id)
    return fresh.files


def fault_of_state(
    state: BatchState, model: str, provider_id: str
) -> BatchError | None:
    """Return the fault of a batch that expired or was cancelled, None for any other."""
    if state == "expired":
        return batch_error(errors.BatchExpired, model, provider_id=provider_id)
    if state == "cancelled":
        return batch_error(errors.BatchCancelled, model, provider_id=provider_id)
    return None
