"""What the installed LiteLLM does with a catalog entry: its parameters, and the hosts it calls.

`python -m tests.kit.litellm_facts` writes them to src/tierwise/policy/litellm.json, which tierwise
reads in place of an import of LiteLLM (5 s). No request leaves this process: the connections are
replaced, and sockets refuse to connect.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.kit.calls import CALL, catalog, entry
from tierwise.gateway.connection_pool import ConnectionPool
from tierwise.gateway.http_exchange import HttpExchange
from tierwise.gateway.litellm_lane import LiteLLMLane
from tierwise.gateway.resolved_model import ResolvedModel

FILE = Path(__file__).parents[2] / "src" / "tierwise" / "policy" / "litellm.json"
OPENAI = "https://api.openai.com"
ADDRESS_VARIABLE = re.compile(
    r"[\"']([A-Z][A-Z0-9_]*_(?:API_BASE|BASE_URL|API_URL|ENDPOINT|HOST|BASE|URL))[\"']"
)
PUBLIC = re.compile(r"[a-z][a-z0-9_]*")
CHAT_MODES = ("chat", "responses", "completion")
LOOKED_UP: list[str] = []  # hosts, by clients that do not use our connections


class RecordingPool(ConnectionPool):
    """Keeps the address of a request, and sends nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.url: str | None = None

    async def post(
        self, exchange: HttpExchange, url: str, headers: Mapping[str, str], body: bytes
    ) -> None:
        exchange.url = url
        self.url = url
        raise OSError("nothing is sent")


def facts() -> dict[str, Any]:
    """Ask LiteLLM, in a process whose environment and sockets may be changed."""
    variables = address_variables()
    for name in variables:
        os.environ.pop(name, None)
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"  # else botocore asks and waits
    socket.getaddrinfo = refuse_to_resolve
    socket.socket.connect = refuse_to_connect  # type: ignore[method-assign, assignment]
    addresses = asyncio.run(provider_addresses(variables))
    return {
        "litellm": version("litellm"),
        "providers": addresses,
        "parameters": parameters(),
        "openai_models": openai_models(),
    }


def refuse_to_resolve(host: Any, *_: Any, **__: Any) -> list[Any]:
    LOOKED_UP.append(str(host))
    raise socket.gaierror(f"no look-up of {host}")


def refuse_to_connect(_: Any, address: Any) -> None:
    raise OSError(f"no connection to {address}")


def sources() -> Iterator[str]:
    spec = find_spec("litellm")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0])
    for path in (*folder.rglob("*.py"), *folder.rglob("providers.json")):
        yield path.read_text(encoding="utf-8", errors="ignore")


def address_variables() -> list[str]:
    """Return every environment variable that may hold an address for LiteLLM."""
    names: set[str] = set()
    for text in sources():
        names.update(ADDRESS_VARIABLE.findall(text))
    return sorted(names)


# ---- providers ----------------------------------------------------------------------------------


async def provider_addresses(variables: list[str]) -> dict[str, dict[str, Any]]:
    """Return each provider's address and the variables that replace it, the first one first.

    `openai` says that LiteLLM would call OpenAI, although the provider is another one. The address
    is None there, and where the request does not go over our connections.
    """
    import litellm

    names = {str(getattr(name, "value", name)) for name in litellm.provider_list}
    found = {}
    for provider in sorted(names):
        LOOKED_UP.clear()
        address = await called_address(provider)
        calls_openai = address == OPENAI or urlsplit(OPENAI).hostname in LOOKED_UP
        moved_by = await moving_variables(provider, variables)
        if calls_openai and provider != "openai":
            address = None
            moved_by = [name for name in moved_by if not name.startswith("OPENAI_")]
            found[provider] = {"address": None, "variables": moved_by, "openai": True}
        else:
            found[provider] = {"address": address, "variables": moved_by}
    return found


async def called_address(provider: str) -> str | None:
    """Return the scheme, host and port of the request to a provider; None if none is seen."""
    name = f"{provider}/some-model"
    model = catalog({"m": entry(name, None)}).model("m")
    pool = RecordingPool()
    params = {"model": name, "api_key": "sk-0"}
    resolved = ResolvedModel(model, params, direct=False, lane="litellm")
    # Whatever goes wrong after the request does not matter here.
    with suppress(Exception):
        async with asyncio.timeout(10):
            await LiteLLMLane(pool).complete(CALL, resolved)
    if pool.url is None:
        return None
    parts = urlsplit(pool.url)
    return f"{parts.scheme}://{parts.netloc}"


async def moving_variables(provider: str, variables: list[str]) -> list[str]:
    """Set all variables, each to a host of its own; take away the one that is followed; repeat."""
    hosts = {f"{name.lower().replace('_', '-')}.example": name for name in variables}
    for host, name in hosts.items():
        os.environ[name] = f"https://{host}/v1"
    moved_by = []
    try:
        while True:
            address = await called_address(provider)
            host = urlsplit(address or "").hostname or ""
            if host not in hosts:
                return moved_by
            name = hosts.pop(host)
            moved_by.append(name)
            del os.environ[name]
    finally:
        for name in variables:
            os.environ.pop(name, None)


# ---- parameters ---------------------------------------------------------------------------------


def parameters() -> list[str]:
    """Return the names of OpenAI's parameters, of each provider's own ones, and of credentials."""
    from litellm import constants
    from litellm.types.router import CredentialLiteLLMParams

    names = set(constants.OPENAI_CHAT_COMPLETION_PARAMS)
    names |= set(constants.DEFAULT_CHAT_COMPLETION_PARAM_VALUES)
    names |= set(CredentialLiteLLMParams.model_fields)
    names |= set(provider_parameters())
    public = {name for name in names if PUBLIC.fullmatch(name)}
    return sorted(public - {"self", "kwargs"})


def provider_parameters() -> Iterator[str]:
    import inspect

    import litellm
    from litellm.types.utils import LlmProviders
    from litellm.utils import ProviderConfigManager

    for provider in LlmProviders:
        config = None
        with suppress(Exception):  # some providers need a model's own name
            config = ProviderConfigManager.get_provider_chat_config("m", provider)
        if config is None:
            continue
        with suppress(Exception):
            yield from litellm.get_supported_openai_params(
                "m", custom_llm_provider=provider.value
            )
        for cls in type(config).__mro__:
            yield from getattr(cls, "__annotations__", {})
        yield from inspect.signature(type(config).__init__).parameters


def openai_models() -> list[str]:
    """Return the names of OpenAI's models that answer a chat."""
    import litellm

    names = []
    for name, about in litellm.model_cost.items():
        chats = about.get("mode") in CHAT_MODES
        if about.get("litellm_provider") == "openai" and chats and "/" not in name:
            names.append(name)
    return sorted(names)


def written(found: Mapping[str, Any]) -> str:
    """Return the facts as JSON that reads well in a diff: one provider or a few names a line."""
    parts = []
    for key, value in found.items():
        text = json.dumps(value)
        if isinstance(value, dict):
            rows = [
                f"{json.dumps(name)}: {json.dumps(it)}" for name, it in value.items()
            ]
            text = "{\n  " + ",\n  ".join(rows) + "\n }"
        elif isinstance(value, list):
            text = textwrap.fill(
                text, 96, subsequent_indent="  ", break_on_hyphens=False
            )
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    target.write_text(written(facts()), encoding="utf-8")
