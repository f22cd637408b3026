"""Catalog entries and calls to a stand-in provider."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tierwise.gateway import Gateway
from tierwise.policy.catalog import Catalog
from tierwise.records import Call, Message, Reply

DOCUMENT = "The invoice of March is still open. Please pay it by Friday."


CALL = Call(
    model="openai",
    identity="x",
    messages=(
        Message("system", "Sort the document."),
        Message("user", f'Which label?\n\n<document id="1">\n{DOCUMENT}\n</document>'),
    ),
    max_tokens=50,
)


CLARIFAI_MODEL = (
    "https://clarifai.com/mistralai/completion/models/Ministral-3-14B-Reasoning-2512"
)


MODELS = {  # catalog name: LiteLLM's name, path of the address
    "openai": ("openai/small", "/v1"),
    "openai-litellm": ("openai/small", "/v1"),
    "no-temperature": ("openai/gpt-6-luna", "/v1"),
    "clarifai": (f"openai/{CLARIFAI_MODEL}", "/v2/ext/openai/v1"),
    "clarifai-litellm": (f"openai/{CLARIFAI_MODEL}", "/v2/ext/openai/v1"),
    "vllm": ("hosted_vllm/qwen", "/v1"),
    "vllm-litellm": ("hosted_vllm/qwen", "/v1"),
    "mistral": ("mistral/mistral-small-2603", "/v1"),
    "anthropic": ("anthropic/claude-haiku-5-5", ""),
    "old-anthropic": ("anthropic/claude-3-haiku-20240307", ""),
    "gemini": ("gemini/gemini-2.5-flash-lite", "/v1beta"),
}


OPENAI_FORMAT = [
    "clarifai",
    "clarifai-litellm",
    "mistral",
    "openai",
    "openai-litellm",
    "vllm",
    "vllm-litellm",
]


BOTH_LANES = pytest.mark.parametrize("name", ["openai", "openai-litellm"])


def entry(litellm_model: str, api_base: str | None, **settings: Any) -> dict[str, Any]:
    params = {
        "model": litellm_model,
        "api_key": "${API_KEY}",
        **settings.pop("params", {}),
    }
    if api_base is not None:
        params["api_base"] = api_base
    defaults = {
        "tier": "elsewhere",
        "context_tokens": 8000,
        "max_output_tokens": 500,
        "price": "unknown",
    }
    return {**defaults, "strength": 50, "litellm_params": params, **settings}


def catalog(models: dict[str, dict[str, Any]]) -> Catalog:
    tiers = {
        "elsewhere": {"description": "any provider"},
        "local": {"description": "here", "stays_in_house": True},
    }
    return Catalog.model_validate({"version": 1, "tiers": tiers, "models": models})


def catalog_at(url: str, **settings: Any) -> Catalog:
    """One model for each format and lane, all at one address."""
    models = {
        name: entry(model, url + path, **settings)
        for name, (model, path) in MODELS.items()
    }
    return catalog({name: model | forced_lane(name) for name, model in models.items()})


def forced_lane(name: str) -> dict[str, str]:
    """The lane that a model's name asks for; else it is chosen."""
    return {"lane": "litellm"} if name.endswith("-litellm") else {}


ENV = {"API_KEY": "sk-test-0123456789"}


def ask(
    models: Catalog, *calls: Call, env: dict[str, str] | None = None, local: Any = None
) -> list[Reply]:
    """The replies to some calls, made together."""

    async def go() -> list[Reply]:
        gateway = Gateway(models, ENV if env is None else env, local)
        try:
            return await asyncio.gather(*map(gateway.complete, calls))
        finally:
            await gateway.aclose()

    return asyncio.run(go())
