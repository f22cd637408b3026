"""The one pool of HTTP connections that all lanes use, on aiohttp."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi

from tierwise.gateway.http_exchange import HttpExchange, TooLarge

if TYPE_CHECKING:
    from aiohttp.client import _RequestContextManager

LARGEST_BODY = 32 * 2**20  # bytes
# What is kept of a line that is longer than `LARGEST_BODY`.
_HEAD_OF_A_LINE = 4096  # bytes
_BYTES_AT_ONCE = 65536  # of an upload
# Idle connections are closed before the servers do it (vLLM and llama.cpp after 5 s). A request
# on a connection that the server is closing would fail, and could not be repeated.
_IDLE_S = 4


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a response; only its head, where it is longer than any answer."""

    content: bytes = field(repr=False)
    is_whole: bool = True


class ConnectionPool:
    """Sends each request once, without following redirects or keeping cookies.

    Belongs to one event loop. Sets no limit on connections and no timeout: the callers do.
    """

    def __init__(self) -> None:
        self._open_session: aiohttp.ClientSession | None = None
        self._proxies: dict[str, str | None] = {}

    async def post(
        self, exchange: HttpExchange, url: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Send a POST request, and keep the whole response in `exchange`.

        Raises aiohttp.ClientError and OSError when the connection fails, and TooLarge; the exchange
        keeps the failure too.
        """
        await self._send("POST", exchange, url, headers, body)

    async def send(
        self,
        method: str,
        exchange: HttpExchange,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        largest: int,
    ) -> None:
        """Send a request whose response is at most `largest` bytes; otherwise as `post`."""
        await self._send(method, exchange, url, headers, body, largest)

    async def get(
        self, exchange: HttpExchange, url: str, headers: Mapping[str, str]
    ) -> None:
        """Send a GET request; otherwise as `post`."""
        await self._send("GET", exchange, url, headers, None)

    async def delete(
        self, exchange: HttpExchange, url: str, headers: Mapping[str, str]
    ) -> None:
        """Send a DELETE request; otherwise as `post`."""
        await self._send("DELETE", exchange, url, headers, None)

    async def upload(
        self,
        exchange: HttpExchange,
        url: str,
        headers: Mapping[str, str],
        parts: Iterable[bytes],
    ) -> None:
        """Send a POST request whose body is in parts; otherwise as `post`.

        `headers` must have its `content-length`, as not every server takes a body without one.
        """
        await self._send("POST", exchange, url, headers, _sent_in_parts(parts))

    async def lines(
        self,
        exchange: HttpExchange,
        url: str,
        headers: Mapping[str, str],
        idle_s: float,
    ) -> AsyncIterator[Line]:
        """Send a GET request, and yield the lines of the response as they come, but empty ones.

        A response of any size takes the memory of one line. For a status of 300 or more, there are
        no lines, and the exchange has the body. Raises as `post` does, and TimeoutError after
        `idle_s` without a byte.
        """
        request = self._request("GET", exchange, url, headers, None)
        try:
            async with asyncio.timeout(idle_s):
                response = await request
            async with response:
                exchange.status = response.status
                exchange.headers = response.headers
                if response.status >= 300:
                    async with asyncio.timeout(idle_s):
                        exchange.content = await _read_body(response)
                    return
                async for line in _lines_of(response, idle_s):
                    yield line
        except aiohttp.InvalidURL:
            raise  # nothing was sent
        except TimeoutError:
            raise  # an OSError, but none of the connection
        except (aiohttp.ClientError, OSError, TooLarge) as error:
            exchange.failure = error
            raise

    def _request(
        self,
        method: str,
        exchange: HttpExchange,
        url: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None,
    ) -> _RequestContextManager:
        exchange.url = url
        proxy = None if exchange.direct else self._proxy(url)
        exchange.proxy = proxy
        needs_tls = bool(proxy) or url.startswith("https:")
        return self._session().request(
            method,
            url,
            headers=headers,
            data=body,
            allow_redirects=False,
            proxy=proxy,
            ssl=self._tls if needs_tls else True,
            trace_request_ctx=exchange,
        )

    async def _send(
        self,
        method: str,
        exchange: HttpExchange,
        url: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None,
        largest: int = LARGEST_BODY,
    ) -> None:
        request = self._request(method, exchange, url, headers, body)
        try:
            async with request as response:
                exchange.status = response.status
                exchange.headers = response.headers
                exchange.content = await _read_body(response, largest)
        except aiohttp.InvalidURL:
            raise  # nothing was sent
        except (aiohttp.ClientError, OSError, TooLarge) as error:
            exchange.failure = error
            raise

    async def aclose(self) -> None:
        """Close all connections."""
        if self._open_session is not None:
            await self._open_session.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._open_session is None:
            self._open_session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                trust_env=False,  # it would also send the passwords in ~/.netrc
                trace_configs=[_noting_what_is_sent()],
            )
        return self._open_session

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Trusts the system's authorities (or those in SSL_CERT_FILE), and certifi's.

        Some systems have none of their own.
        """
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        return context

    def _proxy(self, url: str) -> str | None:
        """Return the proxy that the environment names for an address.

        The environment is read once a server, as that may take milliseconds.
        """
        parts = urlsplit(url)
        server = parts.netloc.rpartition("@")[2]
        if server not in self._proxies:
            proxies = {} if proxy_bypass(server) else getproxies()
            self._proxies[server] = proxies.get(parts.scheme) or proxies.get("all")
        return self._proxies[server]


def _noting_what_is_sent() -> aiohttp.TraceConfig:
    """Return a trace that marks the exchange of a request before its first byte is sent.

    A request to a proxy for a tunnel is not traced: that is not the call yet.
    """

    async def mark(
        session: aiohttp.ClientSession,  # noqa: ARG001
        context: SimpleNamespace,
        parameters: aiohttp.TraceRequestHeadersSentParams,  # noqa: ARG001
    ) -> None:
        context.trace_request_ctx.sent = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(mark)
    return trace


async def _read_body(
    response: aiohttp.ClientResponse, largest: int = LARGEST_BODY
) -> bytes:
    """Return the decompressed body. Raises TooLarge before it fills the memory."""
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > largest:
            raise TooLarge
    return b"".join(parts)


async def _sent_in_parts(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the parts, small ones together."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= _BYTES_AT_ONCE:
            yield b"".join(waiting)
            waiting = []
            size = 0
    yield b"".join(waiting)


async def _lines_of(
    response: aiohttp.ClientResponse, idle_s: float
) -> AsyncIterator[Line]:
    """Yield the lines of a body, but empty ones; of one that is too long, only its head."""
    pieces: list[bytes] = []
    size = 0
    chunks = response.content.iter_any()
    while True:
        async with asyncio.timeout(idle_s):
            chunk = await anext(chunks, b"")
        if not chunk:
            break
        *ended, rest = chunk.split(b"\n")
        for end in ended:
            line = _line([*pieces, end], size + len(end))
            pieces = []
            size = 0
            if line.content.strip():
                yield line
        size += len(rest)
        if size <= LARGEST_BODY:
            pieces.append(rest)
        elif pieces:
            pieces = [b"".join(pieces)[:_HEAD_OF_A_LINE]]
        else:
            pieces = [rest[:_HEAD_OF_A_LINE]]
    line = _line(pieces, size)
    if line.content.strip():
        yield line


def _line(pieces: list[bytes], size: int) -> Line:
    content = b"".join(pieces)
    if size > LARGEST_BODY:
        return Line(content[:_HEAD_OF_A_LINE], is_whole=False)
    return Line(content)
