"""LiteLLM's requests, sent over our connections.

LiteLLM repeats a request after a lost connection, sends the documents again to wherever a redirect
points, and loses statuses, headers and missing usage. So all its requests pass through `OneRequest`.
"""

from __future__ import annotations

from contextvars import ContextVar

import aiohttp
import httpx

from tierwise.gateway.connection_pool import Connections
from tierwise.gateway.http_exchange import Exchange, TooLarge

CURRENT: ContextVar[Exchange] = ContextVar("tierwise_exchange")
_ENCODING = (
    "accept-encoding",
    "content-encoding",
    "content-length",
    "transfer-encoding",
)  # aiohttp's business


class OneRequest(httpx.AsyncBaseTransport):
    """Sends the first request of the current exchange, which keeps what came back; refuses any further one."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The whole response. Raises httpx.TransportError."""
        exchange = CURRENT.get()
        if exchange.url is not None:
            raise httpx.ProtocolError("a call is one request", request=request)
        headers = {name: value for name, value in request.headers.items() if name not in _ENCODING}
        try:
            await self._connections.post(exchange, str(request.url), headers, await request.aread())
        except (aiohttp.ClientError, OSError, TooLarge) as error:
            raise httpx.NetworkError("no whole response", request=request) from error
        assert exchange.status is not None  # noqa: S101 - it was answered
        plain = [
            (name, value)
            for name, value in exchange.headers.items()
            if name.lower() not in _ENCODING
        ]
        return httpx.Response(
            exchange.status, headers=plain, content=exchange.content, request=request
        )

    async def aclose(self) -> None:
        """Nothing: LiteLLM closes clients at will, and the connections are shared."""
