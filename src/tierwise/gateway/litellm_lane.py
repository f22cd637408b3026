"""The only door to LiteLLM, which turns a call into a provider's format and back, and nothing else.

Its retries, router, costs, callbacks, telemetry and own connections are not used.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tierwise.errors import (
    BadReply,
    CallError,
    ContentRefused,
    ContextTooLong,
    ModelUnavailable,
)
from tierwise.gateway.connection_pool import ConnectionPool
from tierwise.gateway.http_exchange import HttpExchange
from tierwise.gateway.openai_format import request_parts
from tierwise.gateway.prepared import PreparedRequest
from tierwise.gateway.provider_errors import kind_by_class, translated_errors
from tierwise.gateway.replies import to_reply
from tierwise.gateway.resolved_model import ResolvedModel
from tierwise.records import Call, Reply

# Read when LiteLLM is imported or used; a user's own settings win.
_DEFAULTS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches prices over the network
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",  # else it fetches them, too
    "LITELLM_LOG": "ERROR",
}
# Set whatever the user's own settings are.
_FORCED = {
    # Else `openai/` goes around our connections.
    "EXPERIMENTAL_OPENAI_BASE_LLM_HTTP_HANDLER": "True",
    # Else all calls go to a proxy that the catalog does not name.
    "USE_LITELLM_PROXY": "False",
}
# These write whole requests into their debug log.
_VERBOSE_LOGGERS = ("LiteLLM", "openai._base_client", "httpx", "httpcore.http11")
# Providers whose requests are known to pass through our connections, and so by no proxy. The other
# providers in LiteLLM have clients of their own, which would take a document that must stay in the
# house to a proxy outside.
IN_HOUSE = frozenset(
    {
        "anthropic",
        "custom_openai",
        "docker_model_runner",
        "gemini",
        "hosted_vllm",
        "litellm_proxy",
        "llamafile",
        "lm_studio",
        "mistral",
        "ollama",
        "ollama_chat",
        "openai",
    }
)


@dataclass(frozen=True, slots=True)
class _LiteLLM:
    """LiteLLM after its set-up."""

    acompletion: Callable[..., Awaitable[Any]]
    client: Any  # LiteLLM's HTTP handler over our connections


class LiteLLMLane:
    """Calls any provider that LiteLLM supports: one request and one timeout a call."""

    def __init__(self, connections: ConnectionPool) -> None:
        self._connections = connections
        self._litellm: _LiteLLM | None = None
        self._loading = asyncio.Lock()

    async def complete(self, call: Call, resolved: ResolvedModel) -> Reply:
        """Return the reply to one request.

        Raises CallError, and ModelUnavailable for requests that would go around our connections.
        """
        model = resolved.model
        _check_provider(resolved)
        litellm = await self._loaded()
        from tierwise.gateway.litellm_transport import CURRENT_EXCHANGE

        exchange = HttpExchange(resolved.direct)
        request = build_request(call, resolved)
        token = CURRENT_EXCHANGE.set(exchange)
        begun = time.monotonic()
        try:
            with translated_errors(model, call, exchange, resolved.private):
                async with asyncio.timeout(model.timeout_s):
                    body = await _answered_body(litellm, request, exchange)
                latency_s = time.monotonic() - begun
                return to_reply(body, exchange, call, model, latency_s)
        finally:
            CURRENT_EXCHANGE.reset(token)

    async def prepare(self, call: Call, resolved: ResolvedModel) -> PreparedRequest:
        """Return the request of a call, as LiteLLM writes it, without sending it.

        Raises CallError for a request that LiteLLM refuses, and ModelUnavailable.
        """
        _check_provider(resolved)
        litellm = await self._loaded()
        from tierwise.gateway.litellm_transport import (
            CURRENT_EXCHANGE,
            CURRENT_SENDER,
            RequestRecorded,
            RequestRecorder,
        )

        exchange = HttpExchange(resolved.direct)
        request = build_request(call, resolved)
        of_exchange = CURRENT_EXCHANGE.set(exchange)
        of_sender = CURRENT_SENDER.set(RequestRecorder())
        try:
            with translated_errors(resolved.model, call, exchange, resolved.private):
                await litellm.acompletion(**request, client=litellm.client)
        except RequestRecorded as recorded:
            return recorded.request
        finally:
            CURRENT_SENDER.reset(of_sender)
            CURRENT_EXCHANGE.reset(of_exchange)
        message = "LiteLLM sends its requests by a client of its own"
        raise ModelUnavailable(message, model=resolved.model.name)

    async def read(
        self,
        call: Call,
        resolved: ResolvedModel,
        exchange: HttpExchange,
        latency_s: float,
    ) -> Reply:
        """Return the reply in the answer to a request that was sent elsewhere.

        LiteLLM reads it as it reads the answer to an online call. Raises CallError.
        """
        model = resolved.model
        if exchange.has_answered and "choices" in exchange.body:
            with translated_errors(model, call, exchange, resolved.private):
                return to_reply(exchange.body, exchange, call, model, latency_s)
        litellm = await self._loaded()
        from tierwise.gateway.litellm_transport import (
            CURRENT_EXCHANGE,
            CURRENT_SENDER,
            AnswerReplayer,
        )

        replayed = HttpExchange(resolved.direct)
        request = build_request(call, resolved)
        of_exchange = CURRENT_EXCHANGE.set(replayed)
        of_sender = CURRENT_SENDER.set(AnswerReplayer(exchange))
        try:
            with translated_errors(model, call, replayed, resolved.private):
                body = await _answered_body(litellm, request, replayed)
                return to_reply(body, replayed, call, model, latency_s)
        except CallError as error:
            if replayed.status is None and exchange.has_answered:
                # LiteLLM refused before it saw the answer, which is billed all the same.
                message = f"its answer cannot be read: {error.message}"
                raise BadReply(message, model=model.name) from error
            raise
        finally:
            CURRENT_SENDER.reset(of_sender)
            CURRENT_EXCHANGE.reset(of_exchange)

    async def _loaded(self) -> _LiteLLM:
        async with self._loading:
            if self._litellm is None:
                # In a thread, so that the event loop goes on meanwhile.
                self._litellm = await asyncio.to_thread(
                    _load_litellm, self._connections
                )
            return self._litellm


def build_request(call: Call, resolved: ResolvedModel) -> dict[str, Any]:
    """Return LiteLLM's arguments.

    The catalog's parameters may fix a temperature, but not bring back retries or another timeout.
    """
    request: dict[str, Any] = {"temperature": call.temperature}
    if resolved.direct:
        request["api_key"] = "none"  # else LiteLLM sends the key of another provider
    request.update(resolved.params)
    request.update(request_parts(call, resolved.model, resolved.limit_parameter))
    if call.cached_messages:
        _mark_for_cache(request["messages"][call.cached_messages - 1])
    request.update(
        timeout=resolved.model.timeout_s,
        max_retries=0,
        num_retries=0,
        drop_params=True,  # newer models take no temperature
        stream=False,
    )
    return request


def _mark_for_cache(message: dict[str, Any]) -> None:
    """Let the provider cache the prompt up to the end of a message, for its shortest lifetime."""
    content = message["content"]
    # A message with images has parts already; the last one is its text.
    parts = content if isinstance(content, list) else [_text_part(content)]
    marked = {**parts[-1], "cache_control": {"type": "ephemeral"}}
    message["content"] = [*parts[:-1], marked]


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _load_litellm(connections: ConnectionPool) -> _LiteLLM:
    """Import LiteLLM (about 5 s) and set it up: quiet, offline, on our connections."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.update(_FORCED)
    import litellm
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    from tierwise.gateway.litellm_transport import SingleRequestTransport

    for name in _VERBOSE_LOGGERS:
        logging.getLogger(name).addFilter(_is_warning)
    # They quote what a reply holds.
    warnings.filterwarnings("ignore", "Pydantic serializer warnings", UserWarning)
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    transport = SingleRequestTransport(connections)
    client = AsyncHTTPHandler(transport=transport, follow_redirects=False)
    return _LiteLLM(litellm.acompletion, client)


def _is_warning(record: logging.LogRecord) -> bool:
    """Keep documents and headers out of the logs, even if those are set to debug."""
    return record.levelno >= logging.WARNING


def _check_provider(resolved: ResolvedModel) -> None:
    """Raise ModelUnavailable where LiteLLM would send the request by a client of its own."""
    name = resolved.model.name
    provider = resolved.params["model"].partition("/")[0]
    if provider == "azure":
        remedy = "write `openai/<deployment>` and end `api_base` with `/openai/v1`"
        raise ModelUnavailable(f"`azure/` is not supported; {remedy}", model=name)
    if resolved.direct and provider not in IN_HOUSE:
        remedy = "write `openai/<model>` if its server speaks OpenAI's format"
        raise ModelUnavailable(
            f"`{provider}/` is not supported in the house; {remedy}", model=name
        )


async def _answered_body(
    litellm: _LiteLLM, request: dict[str, Any], exchange: HttpExchange
) -> Mapping[str, Any]:
    """Send a request and return the body to read the reply from.

    That is the server's own, where it is in OpenAI's format: LiteLLM loses fields that it does not
    know, and some bodies as a whole. Another format is read as LiteLLM translates it.
    """
    try:
        response = await litellm.acompletion(**request, client=litellm.client)
    except Exception as error:
        # LiteLLM's word on what was refused counts; otherwise the body may be readable all the same.
        is_refused = kind_by_class(error) in (ContentRefused, ContextTooLong)
        if is_refused or not exchange.has_answered:
            raise
        return exchange.body
    if "choices" in exchange.body:
        return exchange.body
    translated: dict[str, Any] = response.model_dump(warnings=False)
    return translated
