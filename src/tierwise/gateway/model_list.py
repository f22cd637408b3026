"""The list of models of a server that speaks OpenAI's format: `GET /models`, which is free."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from tierwise.errors import CallTimeout
from tierwise.gateway.connection_pool import ConnectionPool
from tierwise.gateway.http_exchange import ErrorStatus, HttpExchange
from tierwise.gateway.lean_lane import build_headers, completions_url
from tierwise.gateway.provider_errors import translated_errors
from tierwise.gateway.resolved_model import ResolvedModel
from tierwise.records import Call

_NO_LIST = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


async def read_model_list(
    connections: ConnectionPool, resolved: ResolvedModel, timeout_s: float
) -> list[str] | None:
    """Return the names that the server lists; None where it has no list. Raises CallError."""
    exchange = HttpExchange(resolved.direct)
    model = resolved.model
    # Errors are told from those of a call, and this one has no prompt.
    call = Call(model=model.name, identity="", messages=(), max_tokens=0)
    base = completions_url(resolved).removesuffix("/chat/completions")
    with translated_errors(model, call, exchange, resolved.private):
        try:
            async with asyncio.timeout(timeout_s):
                await connections.get(
                    exchange, f"{base}/models", build_headers(resolved)
                )
        except TimeoutError:
            message = f"{model.name}: no answer from {base} within {timeout_s:g} s"
            raise CallTimeout(message, model=model.name) from None
        if exchange.status in _NO_LIST:
            return None
        if exchange.status is None or exchange.status >= 300:
            raise ErrorStatus
        listed = exchange.body.get("data")
        if not isinstance(listed, list):
            return None
        names = [each.get("id") for each in listed if isinstance(each, dict)]
        return [name for name in names if isinstance(name, str)]
