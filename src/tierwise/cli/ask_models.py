"""`tierwise doctor --ask`: keys and addresses of models, by the cheapest request there is.

That is the list of models, which is free. Where a server has none, it is a call of a few tokens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from tierwise.errors import (
    AuthenticationFailed,
    BadReply,
    CallError,
    CallTimeout,
    ContentRefused,
    ModelGone,
    ModelUnavailable,
    OutOfCredit,
    Unreachable,
)
from tierwise.records import Call, Message
from tierwise.text.amounts import usd

if TYPE_CHECKING:
    from tierwise.gateway.gateway import Gateway
    from tierwise.policy.catalog import Model
    from tierwise.project import Project
    from tierwise.records import Usage

_SECONDS = 10.0
_CALL_SECONDS = 30.0
_QUESTION = Message("user", "Answer with the word: yes")
_FEWEST_TOKENS = 16  # of an answer; some providers refuse a lower limit
_REMEDIES: dict[type[Exception], str] = {
    AuthenticationFailed: "put the right key into its variable",
    OutOfCredit: "top up the account, or raise its limit",
    Unreachable: "correct `api_base` in the catalog, or start the server",
    CallTimeout: "is the address right, and the server running?",
    ModelGone: "correct `model` in the catalog",
}


class Asked(NamedTuple):
    """What a model's server said. `ok` is None where there is no server to ask."""

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
    models += _embedder_servers(project, env)
    return asyncio.run(_ask_all(project, models, env))


def _embedder_servers(project: Project, env: Mapping[str, str]) -> list[Model]:
    """Return the servers of the usable embedders, to be asked like those of models."""
    from tierwise.policy.catalog import called_as

    catalog = project.catalog
    return [
        called_as(entry)
        for entry in catalog.embedders.values()
        if not entry.is_embedded and catalog.embedder_unavailable(entry, env) is None
    ]


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
        return _fault(model, error)
    if served is None:
        return await _call(gateway, model)
    wanted = str(model.resolved_params(env)["model"])
    name = wanted.partition("/")[2] or wanted
    if served and name not in served:
        nearest = get_close_matches(name, served, n=1)
        meant = f"; did you mean '{nearest[0]}'?" if nearest else ""
        detail = f"the server does not list '{name}'{meant} Correct the catalog"
        return Asked(model.name, False, detail)
    return Asked(model.name, True, "the server answers, takes the key, and has it")


async def _call(gateway: Gateway, model: Model) -> Asked:
    """Make one call of a few tokens, and say what it cost."""
    call = Call(
        model=model.name,
        identity="",
        messages=(_QUESTION,),
        max_tokens=_FEWEST_TOKENS,
    )
    try:
        async with asyncio.timeout(_CALL_SECONDS):
            reply = await gateway.complete(call)
        usage = reply.usage
        service_tier = reply.service_tier
    except TimeoutError:
        error = CallTimeout(f"no answer within {_CALL_SECONDS:g} s", model=model.name)
        return _fault(model, error)
    except (BadReply, ContentRefused) as error:
        # An odd answer, or none, to an odd question: the server took the key and has the model.
        usage = error.usage
        service_tier = error.service_tier
    except (CallError, ModelUnavailable) as error:
        return _fault(model, error)
    cost = _cost(model, usage, service_tier)
    return Asked(model.name, True, f"answers a call, which cost {cost}")


def _cost(model: Model, usage: Usage | None, service_tier: str | None) -> str:
    cost = model.billed(usage, "online", service_tier)
    return "an unknown amount" if cost is None else usd(cost)


def _fault(model: Model, error: Exception) -> Asked:
    """Return what went wrong, with the remedy for its kind."""
    remedy = _REMEDIES.get(type(error))
    detail = f"{error}; {remedy}" if remedy else str(error)
    return Asked(model.name, False, detail)
