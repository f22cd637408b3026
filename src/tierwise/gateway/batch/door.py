"""The door to provider batches: the calls of a model together, in its provider's format."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace
from typing import Protocol

from tierwise import errors
from tierwise.errors import BadReply, CallError
from tierwise.gateway.batch.batch_faults import batch_error, lines_refused
from tierwise.gateway.batch.batch_http import BatchHttp
from tierwise.gateway.batch.formats import BatchFormat, RawResult, find_format
from tierwise.gateway.batch.values import BatchItem, ItemResult, ProviderBatch
from tierwise.gateway.connection_pool import ConnectionPool
from tierwise.gateway.http_exchange import HttpExchange
from tierwise.gateway.prepared import PreparedRequest
from tierwise.gateway.repeated_secret import check_for_secrets
from tierwise.gateway.resolved_model import ResolvedModel
from tierwise.policy.catalog import Model
from tierwise.records import Call, Message, Reply

log = logging.getLogger(__name__)

# A batch that has not ended this long after its window, by the provider's clock, never will.
_GRACE_S = 3600.0
_AT_ONCE = 20  # requests written or results read before other work of the process
_LONGEST_KEY = 60  # of our own id, which goes into the name of a file
# These belong to the features that a request uses: a batch has those of all its requests.
_JOINED_HEADERS = ("anthropic-beta",)


class Lane(Protocol):
    """Writes the requests of a batch, and reads its answers."""

    async def prepare(self, call: Call, resolved: ResolvedModel) -> PreparedRequest:
        """Return the request of a call, without sending it."""

    async def read(
        self,
        call: Call,
        resolved: ResolvedModel,
        exchange: HttpExchange,
        latency_s: float,
    ) -> Reply:
        """Return the reply in an answer. Raises CallError."""


@dataclass(frozen=True)
class Access:
    """How a model is reached: resolved as for its online calls, and its lane."""

    resolved: ResolvedModel
    lane: Lane


class BatchDoor:
    """Sends calls in provider batches, and reads their results.

    Addresses, keys and request bodies are those of the model's online calls, and each answer is
    read as if it had come online. The *class* of an error decides what is done about it: see
    `BATCH_DECISIONS` in `cascade/faults.py`. Belongs to one event loop.
    """

    def __init__(
        self,
        connections: ConnectionPool,
        find_access: Callable[[str], Awaitable[Access]],
        rename_limit: Callable[[ResolvedModel, CallError], bool],
    ) -> None:
        """`rename_limit` says whether later requests are mended after an error."""
        self._connections = connections
        self._find_access = find_access
        self._rename_limit = rename_limit
        self._addresses: dict[str, tuple[ResolvedModel, PreparedRequest]] = {}

    async def submit(
        self, model: str, items: Sequence[BatchItem], key: str
    ) -> ProviderBatch:
        """Send some calls of a model as one batch. `key` is our own id of it.

        Raises CallError. Unless it is free of charge (see `faults.is_free`), the batch may have
        been made: look for it with `find` before it is sent again. Raises ModelUnavailable.
        """
        _check_key(key)
        access = await self._find_access(model)
        unique = {item.custom_id: item for item in items}
        requests = await self._requests(access, list(unique.values()))
        style = self._format(access.resolved.model)
        http = self._http(access.resolved, style, list(requests.values()))
        # Taken out one by one: a batch may have hundreds of megabytes.
        lines = [
            style.line(custom_id, requests.pop(custom_id))
            for custom_id in list(requests)
        ]
        _check_limits(access.resolved.model, lines)
        messages: list[Message] = []
        for item in unique.values():
            messages.extend(item.call.messages)
        batch = await style.submit(replace(http, quotable=messages), lines, key)
        return replace(batch, total=batch.total or len(lines), key=batch.key or key)

    async def find(
        self, model: str, key: str, since: float, ids: Collection[str] = ()
    ) -> ProviderBatch | None:
        """Return the batch that was submitted with `key`, if the provider has it.

        `since` is the time of its intent, by our clock. `ids` are those of its items, by which a
        provider's batch is recognised that has no place for our key (Anthropic). Raises CallError.
        """
        access = await self._find_access(model)
        http, style = await self._reach(access)
        batch = await style.find(http, key, since, ids)
        return None if batch is None else _watched(batch, access.resolved.model)

    async def status(self, model: str, provider_id: str) -> ProviderBatch:
        """Return a batch as it is now. Raises CallError."""
        access = await self._find_access(model)
        http, style = await self._reach(access)
        batch = await style.status(http, provider_id)
        return _watched(batch, access.resolved.model)

    async def results(
        self,
        model: str,
        batch: ProviderBatch,
        calls: Mapping[str, Call] | None = None,
    ) -> AsyncIterator[ItemResult]:
        """Yield the results of a batch that has ended, as they are read, in any order.

        Each id comes once, also one that we do not know. `calls` are those of the batch by id, for
        whose schemas an answer is read; without them, an answer in a tool call may be taken for
        none. Raises CallError, after any number of results.
        """
        access = await self._find_access(model)
        http, style = await self._reach(access)
        reader = _ResultReader(access, batch, calls or {}, self._rename_limit)
        number = 0
        async for raw in style.results(http, batch):
            number += 1
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # other calls of this event loop
            result = await reader.read(raw)
            if result is not None:
                yield result
        reader.check_whole()

    async def cancel(self, model: str, provider_id: str) -> ProviderBatch:
        """Ask for the end of a batch; what it has answered is charged. Raises CallError."""
        access = await self._find_access(model)
        http, style = await self._reach(access)
        return await style.cancel(http, provider_id)

    async def delete(self, model: str, batch: ProviderBatch) -> None:
        """Delete what the provider stores of a batch whose results were read.

        Raises CallError.
        """
        access = await self._find_access(model)
        http, style = await self._reach(access)
        await style.delete(http, batch)

    async def sizes(self, model: str, items: Sequence[BatchItem]) -> list[int]:
        """Return the bytes of each item as it would be sent. Raises as `submit` does."""
        access = await self._find_access(model)
        requests = await self._requests(access, items)
        style = self._format(access.resolved.model)
        return [
            len(style.line(item.custom_id, requests[item.custom_id])) for item in items
        ]

    async def _requests(
        self, access: Access, items: Sequence[BatchItem]
    ) -> dict[str, PreparedRequest]:
        """Return the request of each item by its id. Raises BatchLinesInvalid."""
        requests: dict[str, PreparedRequest] = {}
        refused: list[int] = []
        for place, item in enumerate(items, start=1):
            if place % _AT_ONCE == 0:
                await asyncio.sleep(0)  # other calls of this event loop
            try:
                requests[item.custom_id] = await access.lane.prepare(
                    item.call, access.resolved
                )
            except CallError:
                refused.append(place)
        if refused:
            name = access.resolved.model.name
            raise lines_refused(name, refused)
        return requests

    async def _reach(self, access: Access) -> tuple[BatchHttp, BatchFormat]:
        """Return the requests to a model's batch API, and its format."""
        resolved = access.resolved
        style = self._format(resolved.model)
        known = self._addresses.get(resolved.model.name)
        if known is None or known[0] is not resolved:
            call = Call(
                model=resolved.model.name,
                identity="",
                messages=(Message("user", "-"),),
                max_tokens=1,
            )
            known = (resolved, await access.lane.prepare(call, resolved))
            self._addresses[resolved.model.name] = known
        return self._http(resolved, style, [known[1]]), style

    def _http(
        self,
        resolved: ResolvedModel,
        style: BatchFormat,
        requests: Sequence[PreparedRequest],
    ) -> BatchHttp:
        url = requests[0].url
        return BatchHttp(
            self._connections,
            resolved,
            style.base(url),
            url,
            _joined_headers(requests),
        )

    def _format(self, model: Model) -> BatchFormat:
        if model.batch is None:
            error = batch_error(
                errors.BatchRefused, model.name, detail="its entry has no `batch`"
            )
            error.sent = False
            raise error
        return find_format(model.batch.api)


class _ResultReader:
    """Reads the results of one batch."""

    def __init__(
        self,
        access: Access,
        batch: ProviderBatch,
        calls: Mapping[str, Call],
        rename_limit: Callable[[ResolvedModel, CallError], bool],
    ) -> None:
        self._access = access
        self._batch = batch
        self._calls = calls
        self._rename_limit = rename_limit
        self._seen: set[str] = set()
        self._unusable = 0
        self._repeated = 0
        self._model = access.resolved.model

    async def read(self, raw: RawResult) -> ItemResult | None:
        """Return an item's result; None for one without an id, or one that came before."""
        custom_id = raw.custom_id
        secrets = self._access.resolved.secrets
        if custom_id is None or any(secret in custom_id for secret in secrets):
            self._unusable += 1
            return None
        if custom_id in self._seen:
            self._repeated += 1
            return None
        self._seen.add(custom_id)
        return ItemResult(custom_id, await self._reply(custom_id, raw))

    async def _reply(self, custom_id: str, raw: RawResult) -> Reply | CallError:
        name = self._model.name
        if raw.fault is not None:
            return batch_error(raw.fault, name, provider_id=self._batch.id)
        if raw.content is None:
            return BadReply(
                "the batch's result for this item cannot be read", model=name
            )
        exchange = HttpExchange(
            self._access.resolved.direct,
            sent=True,
            status=raw.status,
            content=raw.content,
        )
        call = self._calls.get(custom_id) or _unknown_call(self._model)
        try:
            reply = await self._access.lane.read(
                call, self._access.resolved, exchange, _turnaround_s(self._batch)
            )
            check_for_secrets(reply, self._access.resolved)
        except CallError as error:
            if self._rename_limit(self._access.resolved, error):
                return batch_error(
                    errors.BatchRenamed, name, provider_id=self._batch.id
                )
            return error
        return reply

    def check_whole(self) -> None:
        """Raise BatchIncomplete if the results ended early."""
        if self._unusable:
            log.warning(
                "%s: batch %s has %d results that cannot be read, or without an item's id",
                self._model.name,
                self._batch.id,
                self._unusable,
            )
        if self._repeated:
            log.warning(
                "%s: batch %s has more than one result for %d items; the first is used",
                self._model.name,
                self._batch.id,
                self._repeated,
            )
        counted = self._batch.succeeded + self._batch.failed
        if len(self._seen) + self._unusable < counted:
            detail = f"{len(self._seen)} of {counted}"
            raise batch_error(
                errors.BatchIncomplete,
                self._model.name,
                provider_id=self._batch.id,
                detail=detail,
            )


def missing_item(batch: ProviderBatch, model: str) -> CallError:
    """Return the error of an item for which the results of an ended batch have nothing."""
    if batch.fault is not None:
        return batch.fault
    return batch_error(errors.BatchItemMissing, model, provider_id=batch.id)


def _watched(batch: ProviderBatch, model: Model) -> ProviderBatch:
    """Return a batch with a fault where it should have ended long ago.

    Only times of the provider's clock are compared.
    """
    if batch.has_ended or batch.seen_at is None or model.batch is None:
        return batch
    limit = batch.expires_at
    if limit is None and batch.created_at is not None:
        limit = batch.created_at + model.batch.window_hours * 3600
    if limit is None or batch.seen_at < limit + _GRACE_S:
        return batch
    fault = batch_error(errors.BatchStalled, model.name, provider_id=batch.id)
    return replace(batch, fault=fault)


def _check_key(key: str) -> None:
    is_plain = key.replace("-", "").replace("_", "").isalnum() and key.isascii()
    if not is_plain or len(key) > _LONGEST_KEY:
        raise ValueError("the key of a batch is letters, digits, `-` and `_`")


def _check_limits(model: Model, lines: Sequence[bytes]) -> None:
    """Raise BatchTooLarge before anything is sent."""
    settings = model.batch
    if settings is None:
        return
    size = sum(map(len, lines))
    if len(lines) > settings.max_items or size > settings.max_bytes:
        detail = f"{len(lines)} items, {size} bytes"
        error = batch_error(errors.BatchTooLarge, model.name, detail=detail)
        error.sent = False
        raise error


def _joined_headers(requests: Sequence[PreparedRequest]) -> dict[str, str]:
    """Return the headers of the first request, with the features that any of them uses."""
    headers = dict(requests[0].headers)
    for name in _JOINED_HEADERS:
        values: dict[str, None] = {}
        for request in requests:
            for value in request.headers.get(name, "").split(","):
                if value.strip():
                    values[value.strip()] = None
        if values:
            headers[name] = ",".join(values)
    return headers


def _unknown_call(model: Model) -> Call:
    """Return a call in place of one that another process has sent, to read its answer with.

    LiteLLM refuses a request without a message. It reads an answer that is a call of the schema's
    tool as JSON only where a schema was asked for.
    """
    return Call(
        model=model.name,
        identity="",
        messages=(Message("user", "-"),),
        max_tokens=model.max_output_tokens,
        response_schema={"type": "object", "properties": {}},
    )


def _turnaround_s(batch: ProviderBatch) -> float:
    if batch.ended_at is None or batch.created_at is None:
        return 0.0
    return max(0.0, batch.ended_at - batch.created_at)
