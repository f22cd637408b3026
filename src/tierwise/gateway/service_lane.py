"""The lane to services: one HTTP request for a step without a model, and its answer as JSON.

The request goes to the step's address alone: no redirect is followed, and an address in the house
is reached without a proxy. Nothing of a server's answer is quoted in an error.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping

import aiohttp

from tierwise import errors
from tierwise.errors import CallError
from tierwise.gateway.connection_pool import ConnectionPool
from tierwise.gateway.http_exchange import HttpExchange, TooLarge
from tierwise.gateway.retry_hints import retry_hint
from tierwise.policy.addresses import host_and_port
from tierwise.records import Call, Reply, Usage
from tierwise.steps.own_work import HttpCall

# 400 and other statuses below 500 that are not listed are BadRequest, those above ServerFault.
_BY_STATUS: dict[int, type[CallError]] = {
    401: errors.AuthenticationFailed,
    402: errors.OutOfCredit,
    403: errors.AuthenticationFailed,
    408: errors.CallTimeout,
    425: errors.Overloaded,
    429: errors.RateLimited,
    503: errors.Overloaded,
    529: errors.Overloaded,
}
_LONG_SECRET = 16  # characters; an answer does not hold such a value by chance


class ServiceLane:
    """Calls the services of steps without a model."""

    def __init__(self, connections: ConnectionPool, env: Mapping[str, str]) -> None:
        self._connections = connections
        self._env = env

    async def complete(self, call: Call, own: HttpCall) -> Reply:
        """Return a service's answer. Raises CallError."""
        work = own.work
        # A file that a secret was read from often ends with a new line.
        secrets = {
            name: self._env.get(name, "").strip() for name in work.headers.values()
        }
        headers = {
            "content-type": "application/json",
            "accept": "application/json",
            # the same call has the same key, so that a service can tell a repetition
            "idempotency-key": call.hash,
        }
        for header, name in work.headers.items():
            headers[header.lower()] = secrets[name]
        exchange = HttpExchange(own.is_direct)
        begun = time.monotonic()
        try:
            async with asyncio.timeout(work.timeout_s):
                await self._connections.send(
                    work.method,
                    exchange,
                    work.url,
                    headers,
                    own.body.encode(),
                    largest=work.max_bytes,
                )
        except TimeoutError:
            message = f"no complete answer within {work.timeout_s:g} s"
            raise errors.CallTimeout(
                message, model=call.model, sent=exchange.sent
            ) from None
        except TooLarge:
            message = f"its answer is larger than {work.max_bytes} bytes"
            raise errors.BadReply(message, model=call.model) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            host = host_and_port(work.url)
            message = f"no connection to {host}: {type(error).__name__}"
            raise errors.Unreachable(
                message, model=call.model, sent=exchange.sent
            ) from None
        if exchange.status is None or exchange.status >= 300:
            raise _refusal(call, own, exchange)
        return Reply(
            text=_json_in(call, exchange, secrets),
            finish_reason="stop",
            usage=Usage(0, 0),
            latency_s=time.monotonic() - begun,
        )


def _refusal(call: Call, own: HttpCall, exchange: HttpExchange) -> CallError:
    """Return the error of a status of 300 or more, without a word of its body."""
    status = exchange.status or 0
    default = errors.BadRequest if status < 500 else errors.ServerFault
    kind = _BY_STATUS.get(status, default)
    message = f"status {status} at {host_and_port(own.work.url)}"
    if status < 400:
        message += "; redirects are not followed"
    hint = None
    if kind in (errors.RateLimited, errors.Overloaded):
        is_limit = kind is errors.RateLimited
        hint = retry_hint(dict(exchange.headers), refused=is_limit)
    return kind(
        message, model=call.model, retry_after=None if hint is None else hint.seconds
    )


def _json_in(call: Call, exchange: HttpExchange, secrets: Mapping[str, str]) -> str:
    """Return an answer that is JSON. Raises BadReply for any other."""
    text = exchange.text
    for secret in secrets.values():
        if len(secret) >= _LONG_SECRET and secret in text:
            message = "its answer repeats a key that was sent"
            raise errors.BadReply(message, model=call.model)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        message = "its answer is not JSON"
        raise errors.BadReply(message, model=call.model) from None
    return text
