"""Models with provider batches, and calls of them, at the stand-in for batch APIs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from tests.kit.calls import CALL, ENV, catalog, entry
from tierwise.errors import CallError
from tierwise.gateway import Gateway
from tierwise.gateway.batch import BatchItem, ProviderBatch
from tierwise.policy.catalog import Catalog
from tierwise.records import Call, Message, Reply

# catalog name: LiteLLM's name, path of the address, batch API
BATCH_MODELS = {
    "openai": ("openai/small", "/v1", "openai"),
    "openai-litellm": ("openai/gpt-6-luna", "/v1", "openai"),
    "openrouter": ("openai/small", "/api/v1", "openrouter"),
    "mistral": ("mistral/mistral-small-2603", "/v1", "mistral"),
    "anthropic": ("anthropic/claude-haiku-5-5", "", "anthropic"),
    "old-anthropic": ("anthropic/claude-3-haiku-20240307", "", "anthropic"),
    "gemini": ("gemini/gemini-2.5-flash-lite", "/v1beta", "gemini"),
}
KEY = "b0a1c2d3e4f5"
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string"}},
    "required": ["label"],
    "additionalProperties": False,
}


def batch_catalog(
    url: str, batch: dict[str, Any] | None = None, **settings: Any
) -> Catalog:
    """One model for each format, all at one address."""
    models = {}
    for name, (model, path, api) in BATCH_MODELS.items():
        own = {"api": api, "discount": 0.5, **(batch or {})}
        models[name] = entry(model, url + path, batch=own, **settings)
    return catalog(models)


def call_of(model: str, number: int = 1, **changes: Any) -> Call:
    """A call about a document of its own."""
    text = f'Which label?\n\n<document id="{number}">\nInvoice {number} is open.\n</document>'
    messages = (Message("system", "Sort the document."), Message("user", text))
    return replace(CALL, model=model, messages=messages, **changes)


def items_of(model: str, number: int, **changes: Any) -> list[BatchItem]:
    """Items of a batch, each of a document of its own."""
    calls = [call_of(model, place, **changes) for place in range(1, number + 1)]
    return [BatchItem(call.hash, call) for call in calls]


def at_door(
    models: Catalog,
    work: Callable[[Gateway], Awaitable[Any]],
    env: dict[str, str] | None = None,
) -> Any:
    """The result of some work with a gateway."""

    async def go() -> Any:
        gateway = Gateway(models, ENV if env is None else env)
        try:
            return await work(gateway)
        finally:
            await gateway.aclose()

    return asyncio.run(go())


async def collect(
    gateway: Gateway, model: str, batch: ProviderBatch, items: list[BatchItem]
) -> dict[str, Reply | CallError]:
    """All results of a batch by id."""
    calls = {item.custom_id: item.call for item in items}
    results = gateway.batches.results(model, batch, calls)
    return {result.custom_id: result.reply async for result in results}


async def round_trip(
    gateway: Gateway, model: str, items: list[BatchItem]
) -> tuple[ProviderBatch, dict[str, Reply | CallError]]:
    """Submit, ask once and collect."""
    made = await gateway.batches.submit(model, items, KEY)
    batch = await gateway.batches.status(model, made.id)
    return batch, await collect(gateway, model, batch, items)
