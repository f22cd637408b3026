"""The only door to LiteLLM: it turns a call into a provider's format and back, and nothing else.

Its retries, router, costs, callbacks, telemetry and own connections are not used.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tierwise.errors import ModelUnavailable
from tierwise.gateway.connection_pool import Connections
from tierwise.gateway.http_exchange import Exchange
from tierwise.gateway.openai_format import confidence_of, request_parts
from tierwise.gateway.provider_errors import translated_errors
from tierwise.gateway.replies import Answer, reply_of
from tierwise.gateway.resolved_model import Target
from tierwise.records import Call, Reply

# read when LiteLLM is imported or used; a user's own settings win
_QUIET = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches prices over the network
    "LITELLM_LOG": "ERROR",
}
_TALKATIVE = (
    "LiteLLM",
    "openai._base_client",
    "httpx",
    "httpcore.http11",
)  # write whole requests into their debug log
# Whose requests are known to pass through our connections, and so by no proxy. Others of LiteLLM's have clients
# of their own, which would take a document in the house to the proxy outside.
IN_HOUSE = frozenset(
    {
        *(
            "openai",
            "custom_openai",
            "hosted_vllm",
            "lm_studio",
            "llamafile",
            "litellm_proxy",
            "docker_model_runner",
        ),
        *("ollama", "ollama_chat", "anthropic", "gemini", "mistral"),
    }
)


@dataclass(frozen=True, slots=True)
class _Door:
    acompletion: Callable[..., Awaitable[Any]]
    client: Any  # LiteLLM's HTTP handler over our connections


def _open(connections: Connections) -> _Door:
    """Import LiteLLM (about 5 s) and set it up: quiet, offline, on our connections."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    os.environ["EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER"] = (
        "True"  # else `openai/` goes around our connections
    )
    import litellm
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    from tierwise.gateway.litellm_transport import OneRequest

    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_no_debug)
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    client = AsyncHTTPHandler(transport=OneRequest(connections), follow_redirects=False)
    return _Door(litellm.acompletion, client)


def _no_debug(record: logging.LogRecord) -> bool:
    """Documents and headers stay out of logs, however loud those are set."""
    return record.levelno >= logging.WARNING


class LiteLLMLane:
    """Calls any provider that LiteLLM knows: one request a call, one timeout for all of it."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._door: _Door | None = None
        self._opening = asyncio.Lock()

    async def complete(self, call: Call, target: Target) -> Reply:
        """The reply to one request. Raises CallError, and ModelUnavailable for what would go around our connections."""
        model = target.model
        _check_way(target)
        door = await self._opened()
        from tierwise.gateway.litellm_transport import CURRENT

        exchange = Exchange(target.direct)
        request = build_request(call, target)
        token = CURRENT.set(exchange)
        begun = time.monotonic()
        try:
            with translated_errors(model, call, exchange, target.private):
                async with asyncio.timeout(model.timeout_s):
                    response = await door.acompletion(**request, client=door.client)
                return reply_of(_answer(response), exchange, model, time.monotonic() - begun)
        finally:
            CURRENT.reset(token)

    async def _opened(self) -> _Door:
        async with self._opening:
            if self._door is None:
                self._door = await asyncio.to_thread(
                    _open, self._connections
                )  # the loop goes on meanwhile
            return self._door


def _check_way(target: Target) -> None:
    """Raises ModelUnavailable where LiteLLM would send the request by a client of its own."""
    name = target.model.name
    provider = target.params["model"].partition("/")[0]
    if provider == "azure":
        remedy = "write `openai/<deployment>` and end `api_base` with `/openai/v1`"
        raise ModelUnavailable(f"{name}: `azure/` is not supported; {remedy}")
    if target.direct and provider not in IN_HOUSE:
        remedy = "write `openai/<model>` if its server speaks OpenAI's format"
        raise ModelUnavailable(f"{name}: `{provider}/` is not supported in the house; {remedy}")


def build_request(call: Call, target: Target) -> dict[str, Any]:
    """LiteLLM's arguments. `params` may fix a temperature; nothing in them brings back retries or another timeout."""
    key = (
        {"api_key": "none"} if target.direct else {}
    )  # else LiteLLM sends the key of some other provider
    return {
        "temperature": call.temperature,
        **key,
        **target.params,
        **request_parts(call, target.model),
        "timeout": target.model.timeout_s,
        "max_retries": 0,
        "num_retries": 0,
        "drop_params": True,  # newer models take no temperature
        "stream": False,
    }


def _answer(response: Any) -> Answer:
    """What LiteLLM made of the response."""
    choice = response.choices[0]
    usage = response.usage
    return Answer(
        text=choice.message.content or "",
        finish_reason=choice.finish_reason,
        refusal=(getattr(choice.message, "provider_specific_fields", None) or {}).get("refusal"),
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=getattr(usage.prompt_tokens_details, "cached_tokens", None) or 0,
        confidence=confidence_of(
            [
                token.logprob
                for token in (getattr(choice, "logprobs", None) and choice.logprobs.content) or ()
            ]
        ),
    )
