"""LiteLLM's HTTP transport: its requests go over our connections, one a call.

LiteLLM repeats a request after a lost connection, sends the documents again to the address in a
redirect, and loses statuses, headers and missing usage. So all its requests pass through here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Protocol

import aiohttp
import httpx
import orjson

from tierwise.gateway.connection_pool import ConnectionPool
from tierwise.gateway.http_exchange import HttpExchange, TooLarge
from tierwise.gateway.prepared import PreparedRequest
from tierwise.gateway.usage import with_plain_counts


class Sender(Protocol):
    """Sends the request of an exchange; usually the connection pool."""

    async def post(
        self, exchange: HttpExchange, url: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Fill the exchange with the answer to a request."""


CURRENT_EXCHANGE: ContextVar[HttpExchange] = ContextVar("tierwise_exchange")
# In place of the connections, for a request that is written or read only.
CURRENT_SENDER: ContextVar[Sender | None] = ContextVar("tierwise_sender", default=None)
# aiohttp sets these itself for requests, and has decoded responses already.
_ENCODING = (
    "accept-encoding",
    "content-encoding",
    "content-length",
    "transfer-encoding",
)
_OF_THE_CONNECTION = frozenset({"host", "connection", *_ENCODING})
# A plain reply, instead of one that LiteLLM would fail on or warn about.
_STAND_IN = orjson.dumps(
    {
        "id": "stand-in",
        "object": "chat.completion",
        "created": 0,
        "model": "stand-in",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "-"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
)


class SingleRequestTransport(httpx.AsyncBaseTransport):
    """Sends the first request of the current exchange, and refuses any further one."""

    def __init__(self, connections: ConnectionPool) -> None:
        self._connections = connections

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return the whole response. Raises httpx.TransportError."""
        exchange = CURRENT_EXCHANGE.get()
        if exchange.url is not None:
            raise httpx.ProtocolError("a call is one request", request=request)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name not in _ENCODING
        }
        body = await request.aread()
        try:
            sender = CURRENT_SENDER.get() or self._connections
            await sender.post(exchange, str(request.url), headers, body)
        except (aiohttp.ClientError, OSError, TooLarge) as error:
            raise httpx.NetworkError("no whole response", request=request) from error
        assert exchange.status is not None  # noqa: S101 - it was answered
        # A list, as a name such as `set-cookie` may occur twice.
        received = [
            (name, value)
            for name, value in exchange.headers.items()
            if name.lower() not in _ENCODING
        ]
        return httpx.Response(
            exchange.status,
            headers=received,
            content=_content_for_litellm(exchange),
            request=request,
        )

    async def aclose(self) -> None:
        """Do nothing: LiteLLM closes clients at will, and the connections are shared."""


def _content_for_litellm(exchange: HttpExchange) -> bytes:
    """Return the content in a form that LiteLLM can read, or it loses the whole answer.

    A reply in OpenAI's format is read by `reply_fields`, so LiteLLM gets a stand-in for it.
    """
    if not exchange.body:
        return exchange.content
    if exchange.has_answered and "choices" in exchange.body:
        return _STAND_IN
    body = with_plain_counts(exchange.body)
    try:
        return orjson.dumps(body)
    except TypeError:  # half a character, or a number beyond 64 bits
        return json.dumps(body).encode()


class RequestRecorded(BaseException):
    """A request was written, and is not sent. No `Exception`, so that LiteLLM leaves it alone."""

    def __init__(self, request: PreparedRequest) -> None:
        self.request = request
        super().__init__()


class RequestRecorder:
    """Takes the first request that LiteLLM would send, and ends its work."""

    async def post(
        self,
        exchange: HttpExchange,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
    ) -> None:
        """Raise RequestRecorded with the request."""
        exchange.url = url
        own = {
            name.lower(): value
            for name, value in headers.items()
            if name.lower() not in _OF_THE_CONNECTION
        }
        raise RequestRecorded(PreparedRequest(url, own, body))


class AnswerReplayer:
    """Gives LiteLLM the answer to a request that was sent elsewhere."""

    def __init__(self, answer: HttpExchange) -> None:
        self._answer = answer

    async def post(
        self,
        exchange: HttpExchange,
        url: str,
        headers: Mapping[str, str],  # noqa: ARG002
        body: bytes,  # noqa: ARG002
    ) -> None:
        """Fill the exchange with the answer."""
        exchange.url = url
        exchange.sent = True
        exchange.status = self._answer.status
        exchange.headers = self._answer.headers
        exchange.content = self._answer.content
