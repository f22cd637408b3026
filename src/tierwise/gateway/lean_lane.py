"""The short way to servers that speak OpenAI's format: one request, read where it arrives.

LiteLLM costs milliseconds of CPU a call and seconds to import: nothing beside a vendor's API, and more than
the model itself beside a local server that answers hundreds of short requests a second.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import orjson

from tierwise.gateway.connection_pool import Connections
from tierwise.gateway.http_exchange import ErrorStatus, Exchange
from tierwise.gateway.openai_format import read_answer, request_parts
from tierwise.gateway.provider_errors import translated_errors
from tierwise.gateway.replies import reply_of
from tierwise.gateway.resolved_model import BODY_PARAMS, Target
from tierwise.records import Call, Reply


class LeanLane:
    """Calls servers that speak OpenAI's format: one request a call, one timeout for all of it."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def complete(self, call: Call, target: Target) -> Reply:
        """The reply to one request. Raises CallError."""
        exchange = Exchange(target.direct)
        model = target.model
        begun = time.monotonic()
        with translated_errors(model, call, exchange, target.private):
            body = _encoded(build_body(call, target))
            async with asyncio.timeout(model.timeout_s):
                await self._connections.post(
                    exchange, address_of(target), build_headers(target), body
                )
            if exchange.status is None or exchange.status >= 300:
                raise ErrorStatus
            return reply_of(read_answer(exchange.body), exchange, model, time.monotonic() - begun)


def address_of(target: Target) -> str:
    """Where requests go; `api_base` may name the end of the path itself, as LiteLLM allows."""
    base = str(target.params["api_base"]).rstrip("/")
    return base if "chat/completions" in base else f"{base}/chat/completions"


def build_headers(target: Target) -> dict[str, str]:
    """The headers, in lower case; a key counts more than `extra_headers`."""
    headers = {"content-type": "application/json"}
    headers |= {
        name.lower(): str(value)
        for name, value in (target.params.get("extra_headers") or {}).items()
    }
    if key := target.params.get("api_key"):
        headers["authorization"] = f"Bearer {key}"
    return headers


def build_body(call: Call, target: Target) -> dict[str, Any]:
    """The request. The catalog may fix parameters, and leave one out by `null`: some models take no temperature."""
    params = target.params
    body = {
        "model": params["model"].partition("/")[2] or params["model"],
        "temperature": call.temperature,
        **{name: value for name, value in params.items() if name in BODY_PARAMS},
        **(params.get("extra_body") or {}),
        **request_parts(call, target.model),
    }
    return {name: value for name, value in body.items() if value is not None}


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body)
    except (
        TypeError
    ):  # half a character, or a number beyond 64 bits: slower, but LiteLLM sends them too
        return json.dumps(body).encode()
