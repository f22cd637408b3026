"""LiteLLM's parameters, providers and their addresses, without an import of LiteLLM.

The facts are in `litellm.json`, which `python -m tests.kit.litellm_facts` writes. A test compares
them with the installed LiteLLM.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Provider:
    """The destination of a provider's calls when the catalog names no address."""

    # None: LiteLLM takes it from a region or an account, or has a client of its own for it.
    address: str | None
    # Environment variables that LiteLLM reads in place of it, the first one set counts.
    variables: tuple[str, ...]
    # LiteLLM takes the provider for OpenAI and sends the calls to OpenAI's address.
    calls_openai: bool


@dataclass(frozen=True, slots=True)
class LiteLLMFacts:
    """What LiteLLM reads in an entry of the catalog."""

    providers: Mapping[str, Provider]
    parameters: frozenset[str]
    openai_models: frozenset[str]


@cache
def litellm_facts() -> LiteLLMFacts:
    """Read the facts, once a process."""
    path = Path(__file__).with_name("litellm.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    return LiteLLMFacts(
        providers={name: _provider(row) for name, row in data["providers"].items()},
        parameters=frozenset(data["parameters"]),
        openai_models=frozenset(data["openai_models"]),
    )


def _provider(row: Mapping[str, Any]) -> Provider:
    return Provider(
        address=row["address"],
        variables=tuple(row["variables"]),
        calls_openai=row.get("openai", False),
    )
