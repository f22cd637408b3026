"""What went over the wire in one call: exactly one request, and what came back.

LiteLLM repeats a request after a lost connection, sends the documents again to wherever a redirect
points, and loses statuses, headers and missing usage. So all its requests pass through `OneRequest`.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx
import orjson


@dataclass
class Exchange:
    """One call's request and its response or failure; all None when nothing was sent."""

    request: httpx.Request | None = None
    response: httpx.Response | None = None
    failure: httpx.TransportError | None = None

    @cached_property
    def body(self) -> dict[str, Any]:
        """The response's JSON object; empty when there is none."""
        try:
            body = orjson.loads(self.response.content) if self.response else {}
        except orjson.JSONDecodeError:
            return {}
        return body if isinstance(body, dict) else {}


CURRENT: ContextVar[Exchange] = ContextVar("tierwise_exchange")


class OneRequest(httpx.AsyncBaseTransport):
    """Sends the first request of the current exchange and keeps what came back; refuses any further one."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The whole response, body included. Raises httpx.TransportError."""
        exchange = CURRENT.get()
        if exchange.request is not None:
            raise exchange.failure or httpx.ProtocolError("a call is one request", request=request)
        exchange.request = request
        try:
            response = await self._inner.handle_async_request(request)
            await response.aread()
        except httpx.TransportError as error:
            exchange.failure = error
            raise
        exchange.response = response
        return response

    async def aclose(self) -> None:
        """Nothing: LiteLLM closes clients at will, and this one is shared."""

    async def close(self) -> None:
        """Close the connections."""
        await self._inner.aclose()
