"""The only door to providers: a call goes in, a reply or one of our errors comes out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Protocol

from tierwise.catalog import Catalog, Model, in_house
from tierwise.errors import ModelUnavailable
from tierwise.gateway.litellm_lane import LiteLLMLane
from tierwise.records import Call, Reply

__all__ = ["Endpoint", "Endpoints", "Gateway", "Lane"]


class Endpoint(Protocol):
    """Where an embedded model listens."""

    @property
    def api_base(self) -> str:
        """The address, with the path that comes before `/chat/completions`."""

    @property
    def api_key(self) -> str:
        """The key that the server wants."""


class Endpoints(Protocol):
    """Starts embedded models."""

    def endpoint(self, model: Model, env: Mapping[str, str]) -> Endpoint:
        """Start a model's server if need be and say where it listens. Blocks. Raises ModelUnavailable."""


class Lane(Protocol):
    """One way to a provider."""

    async def complete(self, call: Call, model: Model, params: Mapping[str, Any]) -> Reply:
        """The reply to one request. Raises CallError."""

    async def aclose(self) -> None:
        """Close what is open."""


class Gateway:
    """Sends calls to the catalog's models. Belongs to one event loop."""

    def __init__(self, catalog: Catalog, env: Mapping[str, str], local: Endpoints | None = None) -> None:
        self._catalog, self._env, self._local = catalog, env, local
        self._lane: Lane = LiteLLMLane()
        self._params: dict[str, asyncio.Task[dict[str, Any]]] = {}

    async def complete(self, call: Call) -> Reply:
        """The model's reply to one request, never repeated here. Raises CallError and ModelUnavailable."""
        model = self._catalog.model(call.model)
        return await self._lane.complete(call, model, await self._params_of(model))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._lane.aclose()

    async def _params_of(self, model: Model) -> dict[str, Any]:
        """LiteLLM's parameters, worked out once a model; a failure is forgotten, as its cause may be mended."""
        if model.name not in self._params:
            self._params[model.name] = asyncio.create_task(self._work_out(model))
        task = self._params[model.name]
        try:
            return await asyncio.shield(task)  # a cancelled caller must not take the others along
        except ModelUnavailable:
            self._params.pop(model.name, None)
            raise

    async def _work_out(self, model: Model) -> dict[str, Any]:
        if reason := self._catalog.unavailable(model, self._env):
            raise ModelUnavailable(f"{model.name}: {reason}")
        params = model.resolved_params(self._env)
        if model.weights:
            if self._local is None:
                raise ModelUnavailable(f"{model.name}: no embedded models are started here")
            endpoint = await asyncio.to_thread(self._local.endpoint, model, self._env)
            params |= {"api_base": endpoint.api_base, "api_key": endpoint.api_key}
        address, tier = params.get("api_base"), self._catalog.tiers[model.tier]
        if address is not None and not re.match(r"https?://[^/]", address):
            raise ModelUnavailable(f"{model.name}: `api_base` must be an http address (found {address!r})")
        if tier.stays_in_house:
            if not in_house(address or "", tier.hosts):
                raise ModelUnavailable(f"{model.name}: set `api_base`, or the call would leave the house")
            params.setdefault("api_key", "none")  # else LiteLLM sends the key of some other provider
        return params
