"""The lean lane: one HTTP request to a server that speaks OpenAI's format, without LiteLLM.

LiteLLM costs milliseconds of CPU a call and seconds to import. That is nothing compared with a
vendor's API, and more than the model itself for a local server that answers hundreds of short
requests a second.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import orjson

from tierwise.gateway.connection_pool import ConnectionPool
from tierwise.gateway.http_exchange import ErrorStatus, HttpExchange
from tierwise.gateway.openai_format import request_parts
from tierwise.gateway.prepared import PreparedRequest
from tierwise.gateway.provider_errors import translated_errors
from tierwise.gateway.replies import to_reply
from tierwise.gateway.resolved_model import BODY_PARAMS, ResolvedModel
from tierwise.records import Call, Reply

_COMPLETIONS = "chat/completions"


class LeanLane:
    """Calls servers that speak OpenAI's format: one request and one timeout a call."""

    def __init__(self, connections: ConnectionPool) -> None:
        self._connections = connections

    async def complete(self, call: Call, resolved: ResolvedModel) -> Reply:
        """Return the reply to one request. Raises CallError."""
        exchange = HttpExchange(resolved.direct)
        model = resolved.model
        begun = time.monotonic()
        with translated_errors(model, call, exchange, resolved.private):
            request = _request(call, resolved)
            async with asyncio.timeout(model.timeout_s):
                await self._connections.post(
                    exchange, request.url, request.headers, request.body
                )
            latency_s = time.monotonic() - begun
            return _reply(call, resolved, exchange, latency_s)

    async def prepare(self, call: Call, resolved: ResolvedModel) -> PreparedRequest:
        """Return the request of a call, without sending it."""
        return _request(call, resolved)

    async def read(
        self,
        call: Call,
        resolved: ResolvedModel,
        exchange: HttpExchange,
        latency_s: float,
    ) -> Reply:
        """Return the reply in the answer to a request that was sent elsewhere.

        Raises CallError.
        """
        with translated_errors(resolved.model, call, exchange, resolved.private):
            return _reply(call, resolved, exchange, latency_s)


def _request(call: Call, resolved: ResolvedModel) -> PreparedRequest:
    return PreparedRequest(
        url=completions_url(resolved),
        headers=build_headers(resolved),
        body=to_json(build_body(call, resolved)),
    )


def _reply(
    call: Call, resolved: ResolvedModel, exchange: HttpExchange, latency_s: float
) -> Reply:
    if exchange.status is None or exchange.status >= 300:
        raise ErrorStatus
    return to_reply(exchange.body, exchange, call, resolved.model, latency_s)


def completions_url(resolved: ResolvedModel) -> str:
    """Return the address of requests.

    As with LiteLLM, `api_base` may have the end of the path itself.
    """
    base = str(resolved.params["api_base"]).rstrip("/")
    return base if _COMPLETIONS in base else f"{base}/{_COMPLETIONS}"


def build_headers(resolved: ResolvedModel) -> dict[str, str]:
    """Return the headers, in lower case; an `api_key` counts more than `extra_headers`."""
    headers = {"content-type": "application/json"}
    extra = resolved.params.get("extra_headers") or {}
    for name, value in extra.items():
        headers[name.lower()] = str(value)
    key = resolved.params.get("api_key")
    if key:
        headers["authorization"] = f"Bearer {key}"
    return headers


def build_body(call: Call, resolved: ResolvedModel) -> dict[str, Any]:
    """Return the request's body.

    The catalog may fix a parameter, and leave one out by `null`: some models take no temperature.
    """
    params = resolved.params
    provider_model = params["model"].partition("/")[2] or params["model"]
    body = {"model": provider_model, "temperature": call.temperature}
    body.update({name: value for name, value in params.items() if name in BODY_PARAMS})
    body.update(params.get("extra_body") or {})
    body.update(request_parts(call, resolved.model, resolved.limit_parameter))
    return {name: value for name, value in body.items() if value is not None}


def to_json(body: dict[str, Any]) -> bytes:
    """Return the body as JSON, whatever characters its texts have."""
    try:
        return orjson.dumps(body)
    except TypeError:
        # Half a character, or a number beyond 64 bits. Slower, but LiteLLM sends them too.
        return json.dumps(body).encode()
