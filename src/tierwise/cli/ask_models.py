"""`tierwise doctor --ask`: keys and addresses of models, by a request that costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from tierwise.errors import (
    AuthenticationFailed,
    CallError,
    CallTimeout,
    ModelUnavailable,
    OutOfCredit,
    Unreachable,
)

if TYPE_CHECKING:
    from tierwise.gateway.gateway import Gateway
    from tierwise.policy.catalog import Model
    from tierwise.project import Project

_SECONDS = 10.0
_REMEDIES: dict[type[Exception], str] = {
    AuthenticationFailed: "put the right key into its variable",
    OutOfCredit: "top up the account, or raise its limit",
    Unreachable: "correct `api_base` in the catalog, or start the server",
    CallTimeout: "is the address right, and the server running?",
}


class Asked(NamedTuple):
    """What a model's server said. `ok` is None where nothing can be said without a paid call."""

    model: str
    ok: bool | None
    detail: str


def ask_models(project: Project, env: Mapping[str, str]) -> list[Asked]:
    """Ask the servers of all available models at the same time."""
    unavailable = project.policy(dict(env)).unavailable
    models = [
        model
        for name, model in project.catalog.models.items()
        if name not in unavailable
    ]
    return asyncio.run(_ask_all(project, models, env))


async def _ask_all(
    project: Project, models: list[Model], env: Mapping[str, str]
) -> list[Asked]:
    from tierwise.gateway.gateway import Gateway

    gateway = Gateway(project.catalog, env, root=project.root)
    try:
        return await asyncio.gather(*(_ask(gateway, model, env) for model in models))
    finally:
        await gateway.aclose()


async def _ask(gateway: Gateway, model: Model, env: Mapping[str, str]) -> Asked:
    if model.learned or model.weights:
        return Asked(model.name, None, "runs on this machine: nothing to ask")
    try:
        served = await gateway.served_models(model, _SECONDS)
    except (CallError, ModelUnavailable) as error:
        remedy = _REMEDIES.get(type(error))
        detail = f"{error}; {remedy}" if remedy else str(error)
        return Asked(model.name, False, detail)
    if served is None:
        without = "its server has no list of models; only a paid call could say more"
        return Asked(model.name, None, without)
    wanted = str(model.resolved_params(env)["model"])
    name = wanted.partition("/")[2] or wanted
    if served and name not in served:
        nearest = get_close_matches(name, served, n=1)
        meant = f"; did you mean '{nearest[0]}'?" if nearest else ""
        detail = f"the server does not list '{name}'{meant} Correct the catalog"
        return Asked(model.name, False, detail)
    return Asked(model.name, True, "the server answers, takes the key, and has it")
