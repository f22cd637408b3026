"""The only door to LiteLLM: it turns a call into a provider's format and back, and nothing else.

Its retries, router, costs, callbacks, telemetry and own connections are not used.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tierwise.catalog import Model
from tierwise.errors import BadReply, ContentRefused, ModelUnavailable
from tierwise.gateway.translate import translated_errors
from tierwise.records import Call, Reply, Usage

if TYPE_CHECKING:
    from tierwise.gateway.wire import Exchange, OneRequest

# read when LiteLLM is imported or used; a user's own settings win
_QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches prices over the network
    "LITELLM_LOG": "ERROR",
    "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER": "True",  # else `openai/` goes around our transport
}
_USAGE_FIELDS = ("usage", "usageMetadata", "prompt_eval_count")


@dataclass(frozen=True, slots=True)
class _Door:
    acompletion: Callable[..., Awaitable[Any]]
    client: Any  # LiteLLM's HTTP handler over our transport
    transport: OneRequest


def _open() -> _Door:
    """Import LiteLLM (about 5 s) and set it up: quiet, offline, on our transport."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import litellm
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, get_ssl_configuration

    from tierwise.gateway.wire import OneRequest

    litellm.suppress_debug_info = True
    litellm.telemetry = False
    tls = get_ssl_configuration()
    inner = AsyncHTTPHandler.create_aiohttp_transport(
        ssl_context=tls if isinstance(tls, ssl.SSLContext) else None, ssl_verify=None if tls else False
    )
    transport = OneRequest(inner)
    client = AsyncHTTPHandler(transport=transport, follow_redirects=False)
    return _Door(litellm.acompletion, client, transport)


class LiteLLMLane:
    """Calls any provider that LiteLLM knows: one request a call, one timeout for all of it."""

    def __init__(self) -> None:
        self._door: _Door | None = None
        self._opening = asyncio.Lock()

    async def complete(self, call: Call, model: Model, params: Mapping[str, Any]) -> Reply:
        """The reply to one request. Raises CallError, and ModelUnavailable for `azure/`."""
        if str(params["model"]).startswith("azure/"):  # LiteLLM would go around our transport
            remedy = "write `openai/<deployment>` and end `api_base` with `/openai/v1`"
            raise ModelUnavailable(f"{model.name}: `azure/` is not supported; {remedy}")
        door = await self._opened()
        from tierwise.gateway.wire import CURRENT, Exchange

        exchange = Exchange()
        request = build_request(call, model, params)
        token, begun = CURRENT.set(exchange), time.monotonic()
        try:
            with translated_errors(model, call, exchange, params):
                async with asyncio.timeout(model.timeout_s):
                    response = await door.acompletion(**request, client=door.client)
                return read_reply(response, exchange, model, time.monotonic() - begun)
        finally:
            CURRENT.reset(token)

    async def _opened(self) -> _Door:
        async with self._opening:
            if self._door is None:
                self._door = await asyncio.to_thread(_open)  # the loop goes on meanwhile
            return self._door

    async def aclose(self) -> None:
        """Close the connections."""
        if self._door is not None:
            await self._door.transport.close()


def build_request(call: Call, model: Model, params: Mapping[str, Any]) -> dict[str, Any]:
    """LiteLLM's arguments. `params` may fix a temperature; nothing in them brings back retries or another timeout."""
    request: dict[str, Any] = {
        "temperature": call.temperature,
        **params,
        "messages": [{"role": message.role, "content": message.content} for message in call.messages],
        "max_tokens": call.max_tokens,
        "timeout": model.timeout_s,
        "max_retries": 0,
        "num_retries": 0,
        "drop_params": True,  # newer models take no temperature
        "stream": False,
    }
    if call.response_schema is not None and model.structured_output != "instruct":
        schema = {"name": call.schema_name, "schema": call.response_schema, "strict": True}
        request["response_format"] = {"type": "json_schema", "json_schema": schema}
    return request


def read_reply(response: Any, exchange: Exchange, model: Model, latency_s: float) -> Reply:
    """The first choice as a Reply. Raises ContentRefused and BadReply, with the usage if there was one."""
    choice = response.choices[0]
    text = choice.message.content or ""
    usage = read_usage(response, exchange, text)
    refusal = (getattr(choice.message, "provider_specific_fields", None) or {}).get("refusal")
    if refusal or choice.finish_reason == "content_filter":
        who = "the model" if refusal else "the provider's content filter"
        raise ContentRefused(f"{who} refused", model=model.name, usage=usage)
    if not text.strip() and choice.finish_reason != "length":
        raise BadReply("the reply is empty", model=model.name, usage=usage)
    served = exchange.body.get("model") or exchange.body.get("modelVersion")
    return Reply(text=text, finish_reason=choice.finish_reason, usage=usage, latency_s=latency_s, served_model=served)


def read_usage(response: Any, exchange: Exchange, text: str) -> Usage | None:
    """What the server reported; None when it reported nothing or nonsense.

    LiteLLM puts zeros or its own count in the place of what is missing, so the server's own words decide.
    """
    if not any(exchange.body.get(field) for field in _USAGE_FIELDS):
        return None
    prompt, completion = response.usage.prompt_tokens, response.usage.completion_tokens
    cached = getattr(response.usage.prompt_tokens_details, "cached_tokens", None) or 0
    if prompt <= 0 or completion < 0 or not 0 <= cached <= prompt or (text and not completion):
        return None
    return Usage(prompt, completion, cached)
