"""Finds a batch at a provider that has no place for our key, by the number and ids of its items."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from urllib.parse import quote

from tierwise import errors
from tierwise.gateway.batch.batch_http import Answer, BatchHttp
from tierwise.gateway.batch.formats import (
    FIND_MARGIN_S,
    MOST_PAGES,
    RawResult,
    by_server_clock,
)
from tierwise.gateway.batch.values import ProviderBatch

Results = Callable[[BatchHttp, ProviderBatch], AsyncIterator[RawResult]]


async def find_by_items(
    http: BatchHttp,
    path: str,
    after: str,
    read_batch: Callable[[Answer, str], ProviderBatch],
    results: Results,
    since: float,
    ids: Collection[str],
) -> ProviderBatch | None:
    """Return the first batch since then with as many items, unless its results are of others.

    `path` lists the batches, the newest first, and the parameter `after` asks for the page behind
    a batch. Raises CallError.
    """
    candidates: list[ProviderBatch] = []
    page = "?limit=100"
    for _ in range(MOST_PAGES):
        answer = await http.get("list", path + page)
        begun = by_server_clock(since, answer.server_time) - FIND_MARGIN_S
        entries = answer.listed("data")
        batches = [read_batch(answer.part(entry), http.model) for entry in entries]
        recent = [each for each in batches if (each.created_at or begun) >= begun]
        candidates += [each for each in recent if each.total == len(ids)]
        is_over = len(recent) < len(batches)
        if not batches or is_over or not answer.body.get("has_more"):
            break
        page = f"?limit=100&{after}={quote(batches[-1].id, safe='')}"
    for batch in reversed(candidates):
        if await _may_have(http, batch, results, ids):
            return batch
    return None


async def _may_have(
    http: BatchHttp, batch: ProviderBatch, results: Results, ids: Collection[str]
) -> bool:
    """Return False if a batch has ended with results of other items."""
    if not batch.has_ended:
        return True
    with suppress(errors.BatchResultsGone):
        async for result in results(http, batch):
            return result.custom_id in ids
    return False
