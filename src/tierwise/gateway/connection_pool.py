"""The one pool of HTTP connections that both lanes use, on aiohttp."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import cached_property
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi

from tierwise.gateway.http_exchange import Exchange, TooLarge

LARGEST_BODY = 32 * 2**20  # bytes
# Idle connections are let go before the servers do it (vLLM and llama.cpp after 5 s), so that no request meets a
# closing one: it could not be repeated.
_IDLE_S = 4


class Connections:
    """Sends requests: each once, redirects not followed, no cookies kept. Belongs to one event loop.

    Sets no limit on connections and no timeout: the callers do.
    """

    def __init__(self) -> None:
        self._open: aiohttp.ClientSession | None = None
        self._proxies: dict[str, str | None] = {}

    async def post(
        self, exchange: Exchange, url: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        """Send a request and keep what comes back, body included, in `exchange`.

        Raises aiohttp.ClientError and OSError when the connection fails, and TooLarge; `exchange` keeps these too.
        """
        exchange.url = url
        proxy = None if exchange.direct else self._proxy(url)
        tls = self._tls if proxy or url.startswith("https:") else True
        request = self._session().post(
            url, headers=headers, data=body, allow_redirects=False, proxy=proxy, ssl=tls
        )
        try:
            async with request as response:
                exchange.status = response.status
                exchange.headers = response.headers
                exchange.content = await _whole(response)
        except aiohttp.InvalidURL:
            raise  # nothing was sent
        except (aiohttp.ClientError, OSError, TooLarge) as error:
            exchange.failure = error
            raise

    async def aclose(self) -> None:
        """Close all connections."""
        if self._open is not None:
            await self._open.close()

    def _session(self) -> aiohttp.ClientSession:
        if self._open is None:
            self._open = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
                trust_env=False,  # it would also send what stands in ~/.netrc
            )
        return self._open

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Trusts the system's authorities (or those in SSL_CERT_FILE), and certifi's as some systems have none."""
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        return context

    def _proxy(self, url: str) -> str | None:
        """The proxy that the environment names for an address. Asked once a server: it may take milliseconds."""
        parts = urlsplit(url)
        server = parts.netloc.rpartition("@")[2]
        if server not in self._proxies:
            proxies = {} if proxy_bypass(server) else getproxies()
            self._proxies[server] = proxies.get(parts.scheme) or proxies.get("all")
        return self._proxies[server]


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    """The body, unpacked. Raises TooLarge before it fills the memory."""
    parts = []
    size = 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > LARGEST_BODY:
            raise TooLarge
    return b"".join(parts)
