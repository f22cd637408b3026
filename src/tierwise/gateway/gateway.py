"""The gateway: sends each call on its model's lane."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tierwise.errors import BadRequest, CallError, ModelUnavailable, Unreachable
from tierwise.gateway.repeated_secret import check_for_secrets
from tierwise.gateway.resolved_model import ResolvedModel, resolve_model
from tierwise.policy.catalog import Catalog, Model
from tierwise.records import Call, Reply
from tierwise.steps.own_work import HttpCall

if TYPE_CHECKING:
    from tierwise.gateway.batch import BatchDoor
    from tierwise.gateway.batch.door import Access
    from tierwise.gateway.connection_pool import ConnectionPool
    from tierwise.gateway.http_exchange import HttpExchange
    from tierwise.gateway.learned_lane import LearnedLane
    from tierwise.gateway.prepared import PreparedRequest
    from tierwise.gateway.service_lane import ServiceLane
    from tierwise.text.vectors import Encoder

__all__ = ["Endpoint", "EndpointProvider", "Gateway", "Lane"]

_OTHER_LIMIT = "max_completion_tokens"
log = logging.getLogger(__name__)


class Endpoint(Protocol):
    """The address and key of an embedded model's server."""

    @property
    def api_base(self) -> str:
        """The address, with the path that comes before `/chat/completions`."""

    @property
    def api_key(self) -> str:
        """The key that the server wants."""


class EndpointProvider(Protocol):
    """Starts the servers of embedded models."""

    def endpoint(self, model: Model, env: Mapping[str, str]) -> Endpoint:
        """Return the endpoint of a model's server, which is started if need be.

        Blocks. Raises ModelUnavailable.
        """


class Lane(Protocol):
    """One way to call a provider."""

    async def complete(self, call: Call, resolved: ResolvedModel) -> Reply:
        """Return the reply to one request. Raises CallError and ModelUnavailable."""

    async def prepare(self, call: Call, resolved: ResolvedModel) -> PreparedRequest:
        """Return the request of a call, without sending it."""

    async def read(
        self,
        call: Call,
        resolved: ResolvedModel,
        exchange: HttpExchange,
        latency_s: float,
    ) -> Reply:
        """Return the reply in the answer to a request that was sent elsewhere."""


class Gateway:
    """Sends calls to the catalog's models, each on its lane. Belongs to one event loop."""

    def __init__(
        self,
        catalog: Catalog,
        env: Mapping[str, str],
        local: EndpointProvider | None = None,
        *,
        root: Path = Path(),
    ) -> None:
        """`root` is the project's folder, where learned models are."""
        self._catalog = catalog
        self._env = env
        self._local = local
        self._root = root
        self._resolving: dict[str, asyncio.Task[ResolvedModel]] = {}
        # models whose server wants another name for the limit of an answer, as it said
        self._with_other_limit: dict[str, ResolvedModel] = {}

    async def complete(self, call: Call) -> Reply:
        """Send one request, and return the reply.

        It is repeated only if the server refuses the name of the limit of an answer, for which no
        provider charges; later calls of the model use the other name. Raises CallError and
        ModelUnavailable.
        """
        if isinstance(call.own, HttpCall):
            return await self._services.complete(call, call.own)
        if call.own is not None:
            from tierwise.gateway.own_lane import call_function

            return await call_function(call, call.own)
        model = self._catalog.model(call.model)
        if model.learned:
            return await self._learned.complete(call, model)
        resolved = await self._resolved_for_calls(model)
        lane = self._lane(resolved)
        try:
            reply = await lane.complete(call, resolved)
        except BadRequest as error:
            if error.refused_parameter is None or not _may_rename_limit(resolved):
                raise
            resolved = self._rename_limit(resolved)
            reply = await lane.complete(call, resolved)
        except Unreachable:
            if model.weights:
                # Its server may have died; the next call resolves the model and starts it again.
                self._resolving.pop(model.name, None)
            raise
        check_for_secrets(reply, resolved)
        return reply

    async def served_models(self, model: Model, timeout_s: float) -> list[str] | None:
        """Return the names of the models that a model's server lists; it costs nothing.

        None where it has no such list: it does not speak OpenAI's format, or is no server. Raises
        CallError and ModelUnavailable.
        """
        if model.learned or model.weights:
            return None
        resolved = await self._resolved(model)
        if resolved.lane != "lean":
            return None
        from tierwise.gateway.model_list import read_model_list

        return await read_model_list(self._connections, resolved, timeout_s)

    @cached_property
    def batches(self) -> BatchDoor:
        """The door to provider batches of the models whose entries have `batch`."""
        from tierwise.gateway.batch import BatchDoor

        return BatchDoor(
            self._connections, self._batch_access, self._renames_limit_after
        )

    async def _batch_access(self, name: str) -> Access:
        """Return how a model is reached. Raises ModelUnavailable."""
        from tierwise.gateway.batch.door import Access

        model = self._catalog.model(name)
        if model.learned:
            raise ModelUnavailable("it runs in this process", model=name)
        resolved = await self._resolved_for_calls(model)
        return Access(resolved, self._lane(resolved))

    def _renames_limit_after(self, resolved: ResolvedModel, error: CallError) -> bool:
        """Return True if the model's next calls have the other name of their limit."""
        if not isinstance(error, BadRequest) or error.refused_parameter is None:
            return False
        if not _may_rename_limit(resolved):
            return False
        self._rename_limit(resolved)
        return True

    async def _resolved_for_calls(self, model: Model) -> ResolvedModel:
        resolved = self._with_other_limit.get(model.name)
        return resolved or await self._resolved(model)

    def _lane(self, resolved: ResolvedModel) -> Lane:
        return self._lean if resolved.lane == "lean" else self._litellm

    def _rename_limit(self, resolved: ResolvedModel) -> ResolvedModel:
        """Return the model with the other name of its limit, for this call and later ones."""
        name = resolved.model.name
        if name not in self._with_other_limit:
            log.warning(
                "%s takes `%s` in place of `max_tokens`; write "
                "`output_limit_parameter: %s` in its catalog entry to save one call a run",
                name,
                _OTHER_LIMIT,
                _OTHER_LIMIT,
            )
            self._with_other_limit[name] = replace(
                resolved, limit_parameter=_OTHER_LIMIT
            )
        return self._with_other_limit[name]

    async def aclose(self) -> None:
        """Close all connections."""
        if "_connections" in vars(self):  # not before it was used
            await self._connections.aclose()

    # Each lane is imported at its first call: LiteLLM takes seconds.

    @cached_property
    def _connections(self) -> ConnectionPool:
        from tierwise.gateway.connection_pool import ConnectionPool

        return ConnectionPool()

    @cached_property
    def _learned(self) -> LearnedLane:
        from tierwise.gateway.learned_lane import LearnedLane

        return LearnedLane(self._root, self._open_encoder)

    @cached_property
    def _services(self) -> ServiceLane:
        from tierwise.gateway.service_lane import ServiceLane

        return ServiceLane(self._connections, self._env)

    def _open_encoder(self, name: str) -> Encoder:
        """Return the embedder of a catalog entry. Raises ModelUnavailable."""
        from tierwise.gateway.embedders import open_embedder

        return open_embedder(self._catalog, name, self._env)

    @cached_property
    def _lean(self) -> Lane:
        from tierwise.gateway.lean_lane import LeanLane

        return LeanLane(self._connections)

    @cached_property
    def _litellm(self) -> Lane:
        from tierwise.gateway.litellm_lane import LiteLLMLane

        return LiteLLMLane(self._connections)

    async def _resolved(self, model: Model) -> ResolvedModel:
        """Resolve a model once; a failure is forgotten, as its cause may be mended."""
        if model.name not in self._resolving:
            self._resolving[model.name] = asyncio.create_task(self._resolve(model))
        task = self._resolving[model.name]
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()
        try:
            # Shielded: when one caller is cancelled, the others still wait for the task.
            return await asyncio.shield(task)
        except ModelUnavailable:
            self._resolving.pop(model.name, None)
            raise

    async def _resolve(self, model: Model) -> ResolvedModel:
        reason = self._catalog.unavailable(model, self._env)
        if reason:
            raise ModelUnavailable(reason, model=model.name)
        params = model.resolved_params(self._env)
        if model.weights:
            if self._local is None:
                raise ModelUnavailable(
                    "no embedded models are started here", model=model.name
                )
            served = _with_largest_settings(model, self._catalog)
            endpoint = await asyncio.to_thread(self._local.endpoint, served, self._env)
            params |= {"api_base": endpoint.api_base, "api_key": endpoint.api_key}
        tier = self._catalog.tiers[model.tier]
        resolved = resolve_model(model, params, tier.hosts)
        if tier.stays_in_house and not resolved.direct:
            raise ModelUnavailable(
                "set `api_base`, or the call would leave the house", model=model.name
            )
        return resolved


def _may_rename_limit(resolved: ResolvedModel) -> bool:
    """Return True if the catalog leaves the name of the limit to the server."""
    is_auto = resolved.model.output_limit_parameter == "auto"
    return is_auto and resolved.limit_parameter != _OTHER_LIMIT


def _with_largest_settings(model: Model, catalog: Catalog) -> Model:
    """Return an embedded model with the settings of a server for all entries with its weights.

    So the same file is loaded once, for the longest context and the most calls at a time.
    """
    sharing = [
        other for other in catalog.models.values() if other.weights == model.weights
    ]
    changes = {
        "context_tokens": max(other.context_tokens for other in sharing),
        "concurrency": max(other.concurrency for other in sharing),
    }
    return model.model_copy(update=changes)
