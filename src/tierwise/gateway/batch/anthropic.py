"""Anthropic's message batches: all requests in one body, and a stream of results."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import orjson

from tierwise import errors
from tierwise.errors import BadReply
from tierwise.gateway.batch.batch_http import Answer, BatchHttp
from tierwise.gateway.batch.endings import fault_of_state
from tierwise.gateway.batch.find_by_items import find_by_items
from tierwise.gateway.batch.formats import RawResult, as_time, checked_id
from tierwise.gateway.batch.lines import as_count, as_mapping, as_text, read_line
from tierwise.gateway.batch.values import BatchState, ProviderBatch
from tierwise.gateway.prepared import PreparedRequest

_MESSAGES = "/messages"
_BATCHES = "/messages/batches"
# The status that an item's error would have had online.
_STATUS_OF_TYPE: Mapping[str, int] = {
    "invalid_request_error": 400,
    "invalid_request": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class AnthropicBatches:
    """Anthropic's format. It keeps no key of ours: a batch is recognised by its items."""

    def base(self, url: str) -> str:
        """Return the address without the path of messages."""
        return url.partition(_MESSAGES)[0]

    def line(self, custom_id: str, request: PreparedRequest) -> bytes:
        """Return one of the requests in the body."""
        head = orjson.dumps({"custom_id": custom_id})
        return head[:-1] + b',"params":' + request.body + b"}"

    async def submit(
        self,
        http: BatchHttp,
        lines: Sequence[bytes],
        key: str,  # noqa: ARG002 - there is no place for it
    ) -> ProviderBatch:
        """Make the batch."""
        body = [b'{"requests":[']
        for line in lines:
            body += [line, b","]
        body[-1] = b"]}"
        answer = await http.post("create", _BATCHES, body)
        return _batch(answer, http.model)

    async def find(
        self,
        http: BatchHttp,
        key: str,  # noqa: ARG002 - there is no place for it
        since: float,
        ids: Collection[str],
    ) -> ProviderBatch | None:
        """Return the first batch since then of as many items, unless its results are of others."""
        return await find_by_items(
            http, _BATCHES, "after_id", _batch, self.results, since, ids
        )

    async def status(self, http: BatchHttp, provider_id: str) -> ProviderBatch:
        """Return a batch."""
        answer = await http.get("status", _path(provider_id, http.model))
        return _batch(answer, http.model)

    async def results(
        self, http: BatchHttp, batch: ProviderBatch
    ) -> AsyncIterator[RawResult]:
        """Yield the results. Their address is built here: a key goes to no other server."""
        path = _path(batch.id, http.model) + "/results"
        async for line in http.lines(path):
            custom_id, value = read_line(line, "custom_id")
            yield _result(custom_id, value)

    async def cancel(self, http: BatchHttp, provider_id: str) -> ProviderBatch:
        """Ask for the end of a batch."""
        path = _path(provider_id, http.model) + "/cancel"
        answer = await http.post("cancel", path)
        return _batch(answer, http.model)

    async def delete(self, http: BatchHttp, batch: ProviderBatch) -> None:
        """Delete a batch with its requests and results."""
        with suppress(errors.BatchResultsGone, errors.ModelGone):
            await http.delete("delete", _path(batch.id, http.model))


def _path(provider_id: str, model: str) -> str:
    return f"{_BATCHES}/{quote(checked_id(provider_id, model), safe='')}"


def _batch(answer: Answer, model: str) -> ProviderBatch:
    """Return the batch in an answer. Raises BadReply for what is none."""
    entry = answer.body
    provider_id = checked_id(entry.get("id"), model)
    word = as_text(entry.get("processing_status"))
    if not word:
        raise BadReply("the batch API's answer has no status", model=model)
    counts = as_mapping(entry.get("request_counts"))
    names = ("processing", "succeeded", "errored", "canceled", "expired")
    numbers = {name: as_count(counts.get(name)) for name in names}
    state, fault = _state(entry, word, numbers, model, provider_id)
    # While a batch is under way, all its items are counted as processing.
    unanswered = numbers["errored"] + numbers["canceled"] + numbers["expired"]
    return ProviderBatch(
        id=provider_id,
        state=state,
        total=sum(numbers.values()),
        succeeded=numbers["succeeded"],
        failed=unanswered,
        created_at=as_time(entry.get("created_at")),
        ended_at=as_time(entry.get("ended_at")),
        expires_at=as_time(entry.get("expires_at")),
        fault=fault,
        seen_at=answer.server_time,
    )


def _state(
    entry: Mapping[str, Any],
    word: str,
    numbers: Mapping[str, int],
    model: str,
    provider_id: str,
) -> tuple[BatchState, errors.BatchError | None]:
    if word == "canceling":
        return "cancelling", None
    if word != "ended":
        return "in_progress", None
    if numbers["canceled"] or entry.get("cancel_initiated_at"):
        return "cancelled", fault_of_state("cancelled", model, provider_id)
    if numbers["expired"]:
        return "expired", fault_of_state("expired", model, provider_id)
    return "ended", None


def _result(custom_id: str | None, value: Mapping[str, Any] | None) -> RawResult:
    """Return the result in a line."""
    if value is None:
        return RawResult(custom_id)
    result = as_mapping(value.get("result"))
    kind = as_text(result.get("type"))
    if kind == "succeeded":
        return RawResult(custom_id, 200, orjson.dumps(result.get("message")))
    if kind == "expired":
        return RawResult(custom_id, fault=errors.BatchExpired)
    if kind == "canceled":
        return RawResult(custom_id, fault=errors.BatchCancelled)
    if kind != "errored":
        return RawResult(custom_id)
    error = as_mapping(result.get("error"))
    inner = as_mapping(error.get("error")) or error
    status = _STATUS_OF_TYPE.get(as_text(inner.get("type")), 500)
    body = orjson.dumps({"type": "error", "error": inner})
    return RawResult(custom_id, status, body)
