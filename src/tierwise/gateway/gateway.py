"""The only door to providers: a call goes in, a reply or one of our errors comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tierwise.errors import BadReply, ModelUnavailable, Unreachable
from tierwise.gateway.resolved_model import Target, target_of
from tierwise.policy.catalog import Catalog, Model
from tierwise.records import Call, Reply

if TYPE_CHECKING:
    from tierwise.gateway.connection_pool import Connections
    from tierwise.gateway.learned_lane import LearnedLane

__all__ = ["Endpoint", "Endpoints", "Gateway", "Lane"]

_LONG = 16  # characters of a secret that no answer holds by chance


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

    async def complete(self, call: Call, target: Target) -> Reply:
        """The reply to one request. Raises CallError and ModelUnavailable."""


class Gateway:
    """Sends calls to the catalog's models, each on its lane. Belongs to one event loop."""

    def __init__(
        self,
        catalog: Catalog,
        env: Mapping[str, str],
        local: Endpoints | None = None,
        *,
        root: Path = Path(),
    ) -> None:
        """`root` is the project's: learned models lie below it."""
        self._catalog = catalog
        self._env = env
        self._local = local
        self._root = root
        self._targets: dict[str, asyncio.Task[Target]] = {}

    async def complete(self, call: Call) -> Reply:
        """The model's reply to one request, never repeated here. Raises CallError and ModelUnavailable."""
        model = self._catalog.model(call.model)
        if model.learned:
            return await self._learned.complete(call, model)
        target = await self._target(model)
        lane = self._lean if target.lane == "lean" else self._litellm
        try:
            reply = await lane.complete(call, target)
        except Unreachable:
            if target.model.weights:  # its server may have died; asked again, it is started again
                self._targets.pop(target.model.name, None)
            raise
        _check_secrets(reply, target)
        return reply

    async def aclose(self) -> None:
        """Close all connections."""
        if "_connections" in vars(self):
            await self._connections.aclose()

    @cached_property
    def _connections(self) -> Connections:
        from tierwise.gateway.connection_pool import Connections

        return Connections()

    @cached_property
    def _learned(self) -> LearnedLane:
        from tierwise.gateway.learned_lane import LearnedLane

        return LearnedLane(self._root)

    @cached_property
    def _lean(self) -> Lane:
        from tierwise.gateway.lean_lane import LeanLane

        return LeanLane(self._connections)

    @cached_property
    def _litellm(self) -> Lane:
        from tierwise.gateway.litellm_lane import LiteLLMLane

        return LiteLLMLane(self._connections)

    async def _target(self, model: Model) -> Target:
        """Worked out once a model; a failure is forgotten, as its cause may be mended."""
        if model.name not in self._targets:
            self._targets[model.name] = asyncio.create_task(self._work_out(model))
        task = self._targets[model.name]
        try:
            return await asyncio.shield(task)  # a cancelled caller must not take the others along
        except ModelUnavailable:
            self._targets.pop(model.name, None)
            raise

    async def _work_out(self, model: Model) -> Target:
        if reason := self._catalog.unavailable(model, self._env):
            raise ModelUnavailable(f"{model.name}: {reason}")
        params = model.resolved_params(self._env)
        if model.weights:
            if self._local is None:
                raise ModelUnavailable(f"{model.name}: no embedded models are started here")
            endpoint = await asyncio.to_thread(self._local.endpoint, model, self._env)
            params |= {"api_base": endpoint.api_base, "api_key": endpoint.api_key}
        tier = self._catalog.tiers[model.tier]
        target = target_of(model, params, tier.hosts)
        if tier.stays_in_house and not target.direct:
            raise ModelUnavailable(
                f"{model.name}: set `api_base`, or the call would leave the house"
            )
        return target


def _check_secrets(reply: Reply, target: Target) -> None:
    """Raises BadReply for a server that repeats what it was sent: answers are kept, keys are not."""
    said = f"{reply.text}\n{reply.served_model}"
    if any(secret in said for secret in target.secrets if len(secret) >= _LONG):
        raise BadReply(
            "the reply repeats a key that was sent", model=target.model.name, usage=reply.usage
        )
