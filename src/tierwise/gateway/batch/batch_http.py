"""The requests to a batch API: one address, the headers of the model's calls, and our errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from tierwise.errors import BadReply, CallError, CallTimeout
from tierwise.gateway.batch.batch_faults import Stage, batch_fault
from tierwise.gateway.connection_pool import ConnectionPool, Line
from tierwise.gateway.http_exchange import ErrorStatus, HttpExchange
from tierwise.gateway.provider_errors import translated_errors
from tierwise.gateway.resolved_model import ResolvedModel
from tierwise.records import Call, Message

# An upload may be as large as a batch; a second for each 100 kB, and at least these.
_SHORTEST_UPLOAD_S = 300.0
_BYTES_A_SECOND = 100_000
# Stages whose answers may have nothing in them.
_MAY_BE_EMPTY: frozenset[Stage] = frozenset({"list", "cancel", "delete"})


@dataclass(frozen=True)
class BatchHttp:
    """Sends requests to the batch API of one model.

    `base` is the address before the API's paths, on the server that the model's calls go to.
    """

    connections: ConnectionPool
    resolved: ResolvedModel
    base: str
    call_url: str = field(repr=False)  # of an online call
    headers: Mapping[str, str] = field(repr=False)
    quotable: Sequence[Message] = field(default=(), repr=False)

    async def get(self, stage: Stage, path: str) -> Answer:
        """Return the JSON object at a path. Raises CallError."""
        exchange = self._exchange()
        url = self._url(path)
        sending = self.connections.get(exchange, url, self._plain_headers())
        return await self._answer(stage, exchange, sending, self._timeout_s)

    async def post(
        self,
        stage: Stage,
        path: str,
        body: Sequence[bytes] = (),
        headers: Mapping[str, str] | None = None,
        *,
        allows_empty: bool = False,
    ) -> Answer:
        """Send a body in parts, and return the JSON object of the answer. Raises CallError."""
        exchange = self._exchange()
        url = self._url(path)
        size = sum(map(len, body))
        sent = {**self.headers, "content-length": str(size), **(headers or {})}
        sending = self.connections.upload(exchange, url, sent, body)
        longest = max(
            self._timeout_s, _SHORTEST_UPLOAD_S if size else 0, size / _BYTES_A_SECOND
        )
        return await self._answer(
            stage, exchange, sending, longest, allows_empty=allows_empty
        )

    async def delete(self, stage: Stage, path: str) -> Answer:
        """Delete what is at a path. Raises CallError."""
        exchange = self._exchange()
        url = self._url(path)
        sending = self.connections.delete(exchange, url, self._plain_headers())
        return await self._answer(stage, exchange, sending, self._timeout_s)

    async def lines(self, path: str) -> AsyncIterator[Line]:
        """Yield the lines at a path. Raises CallError."""
        exchange = self._exchange()
        url = self._url(path)
        headers = self._plain_headers()
        try:
            with self._translated(exchange):
                async for line in self.connections.lines(
                    exchange, url, headers, self._timeout_s
                ):
                    yield line
                if exchange.status is None or exchange.status >= 300:
                    raise ErrorStatus
        except CallError as error:
            raise batch_fault(error, exchange, "results") from None

    @property
    def model(self) -> str:
        """Return the model's name in the catalog."""
        return self.resolved.model.name

    @property
    def _timeout_s(self) -> float:
        return self.resolved.model.timeout_s

    def _exchange(self) -> HttpExchange:
        return HttpExchange(self.resolved.direct)

    def _plain_headers(self) -> dict[str, str]:
        """Return the headers of a request without a body."""
        return {
            name: value
            for name, value in self.headers.items()
            if name != "content-type"
        }

    def _url(self, path: str) -> str:
        """Return the address of a path. No other server gets a key or a document."""
        url = path if path.startswith(("http://", "https://")) else self.base + path
        if urlsplit(url)[:2] != urlsplit(self.base)[:2]:
            message = "the server's address of its results is on another server"
            raise BadReply(message, model=self.model)
        return url

    async def _answer(
        self,
        stage: Stage,
        exchange: HttpExchange,
        sending: Awaitable[None],
        timeout_s: float,
        *,
        allows_empty: bool = False,
    ) -> Answer:
        try:
            with self._translated(exchange):
                try:
                    async with asyncio.timeout(timeout_s):
                        await sending
                except TimeoutError:
                    message = f"no answer of the batch API within {timeout_s:g} s"
                    raise CallTimeout(
                        message, model=self.model, sent=exchange.sent
                    ) from None
                if exchange.status is None or exchange.status >= 300:
                    raise ErrorStatus
                is_empty = not exchange.body and not allows_empty
                if stage not in _MAY_BE_EMPTY and is_empty:
                    message = "the batch API's answer is no JSON object"
                    raise BadReply(message, model=self.model)
        except CallError as error:
            raise batch_fault(error, exchange, stage) from None
        return Answer(
            exchange.body,
            exchange.headers,
            _server_time(exchange.headers),
            exchange.content,
        )

    def _translated(self, exchange: HttpExchange) -> Any:
        """Translate errors as those of a call, of which no word of the batch is quoted."""
        model = self.resolved.model
        call = Call(
            model=model.name, identity="", messages=tuple(self.quotable), max_tokens=0
        )
        return translated_errors(model, call, exchange, self.resolved.private)


@dataclass(frozen=True)
class Answer:
    """A batch API's answer."""

    body: Mapping[str, Any] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    server_time: float
    content: bytes = field(default=b"", repr=False)

    def listed(self, name: str) -> list[Mapping[str, Any]]:
        """Return the objects of a list: that of this name, or the answer as a whole."""
        value = self.body.get(name)
        if not isinstance(value, list):
            try:
                value = orjson.loads(self.content)
            except orjson.JSONDecodeError:
                return []
        if not isinstance(value, list):
            return []
        return [each for each in value if isinstance(each, Mapping)]

    def part(self, entry: Mapping[str, Any]) -> Answer:
        """Return one entry of a list as an answer of its own."""
        return Answer(entry, self.headers, self.server_time)


def _server_time(headers: Mapping[str, str]) -> float:
    """Return the server's clock, seconds since the epoch; ours where it does not say."""
    for name, value in headers.items():
        if name.lower() != "date":
            continue
        try:
            return parsedate_to_datetime(value).timestamp()
        except (ValueError, TypeError, OverflowError):
            break
    return time.time()


def multipart(
    fields: Mapping[str, str], filename: str, lines: Iterable[bytes]
) -> tuple[str, list[bytes]]:
    """Return the content type and the parts of a form with one file, a line a part."""
    boundary = (
        "tierwise-batch-6c1f0f0e7a5b4d21"  # in no JSON line, which begins with `{`
    )
    head = ""
    for name, value in fields.items():
        head += (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            f'name="{name}"\r\n\r\n{value}\r\n'
        )
    head += (
        f"--{boundary}\r\nContent-Disposition: form-data; "
        f'name="file"; filename="{filename}"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    tail = f"\r\n--{boundary}--\r\n"
    parts = [head.encode(), *lines, tail.encode()]
    return f"multipart/form-data; boundary={boundary}", parts
