"""Addresses: where a model's calls go, and whether that is in the house.

The address is the entry's `api_base`. Without one, LiteLLM takes an environment variable of the
provider, or else the provider's own address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tierwise.policy.litellm_facts import litellm_facts

# HTTP clients disagree on any other address: on user-info, backslashes, white space, odd letters.
_PLAIN_ADDRESS = re.compile(
    r"(?ai:https?://([a-z0-9._-]+|\[[0-9a-f]*:[0-9a-f:.]+\])(?::([0-9]{1,5}))?(?:/[!-\[\]-~]*)?)"
)
_LARGEST_PORT = 65_535
# Listed here, because `ip.is_private` also covers tunnels to the outside (2001::/23), and changes
# between versions of Python.
_PRIVATE_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("127.0.0.0/8", "::1/128", "0.0.0.0/32"),  # this machine
        # private networks
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    )
)
# OpenAI's families of models, so that a new member needs no new version of LiteLLM.
# `gpt-4all-j` and `gpt-oss-20b` are not among them.
_OPENAI_FAMILIES = re.compile(
    r"(?:ft:.+|gpt-\d+(?:\.\d+)?[a-z]?(?:-.+)?|chatgpt-.+|codex-.+|o\d+(?:-.+)?)"
)
NOT_AN_ADDRESS = (
    "must be a plain http address, such as http://10.0.0.5:8000/v1 "
    "or https://api.example.com/v1"
)


class Undisclosed(str):
    """A description in the place of a variable's value, which is known only in a flow run."""

    __slots__ = ()


# ---- addresses ----------------------------------------------------------------------------------


def host_of(address: Any) -> str | None:
    """Return the host of a plain http address; None for any other address.

    Every HTTP client reads the same host from a plain address.
    """
    match = _match(address)
    if match is None:
        return None
    return match[1].strip("[]").casefold()


def host_and_port(address: Any) -> str | None:
    """Return the host of a plain http address, with the port if the address names one."""
    match = _match(address)
    if match is None:
        return None
    host = match[1].casefold()
    return f"{host}:{match[2]}" if match[2] else host


def in_house(address: str, hosts: tuple[str, ...] = ()) -> bool:
    """Return True if a plain http address is of this machine, a private network, or in `hosts`.

    Names are never resolved. Return False in any case of doubt.
    """
    host = host_of(address)
    if host is None:
        return False
    own_hosts = [name.casefold() for name in hosts]
    if host == "localhost" or host in own_hosts:
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(ip in network for network in _PRIVATE_NETWORKS)


def _match(address: Any) -> re.Match[str] | None:
    if not isinstance(address, str):
        return None
    match = _PLAIN_ADDRESS.fullmatch(address)
    if match is None:
        return None
    port = match[2]
    if port is not None and not 0 < int(port) <= _LARGEST_PORT:
        return None
    return match


# ---- providers ----------------------------------------------------------------------------------


def provider_fault(model: str, *, has_address: bool) -> str | None:
    """Return what is wrong with LiteLLM's name of a model; None if its calls go where it says.

    `model` is `provider/name`. A name without a provider is refused, because LiteLLM then chooses
    the provider by its own lists.
    """
    name, slash, rest = model.partition("/")
    providers = litellm_facts().providers
    if not slash or not rest:
        return (
            f"'{model}' names no provider; write it before the name, such as `openai/gpt-6-luna`, "
            "or `openai/my-model` for a server with OpenAI's format"
        )
    if name == "azure":
        remedy = "write `openai/<deployment>` and end `api_base` with `/openai/v1`"
        return f"`azure/` is not supported; {remedy}"
    provider = providers.get(name)
    if provider is None:
        return _unknown_provider(name, providers)
    if has_address:
        return None
    if provider.calls_openai:
        return f"`{name}/` needs `api_base`, or LiteLLM sends its calls to OpenAI"
    if name == "openai" and not is_openai_model(model):
        return (
            f"'{rest}' is none of OpenAI's own models, so its calls need `api_base`; "
            "without it they go to OpenAI"
        )
    return None


def _unknown_provider(name: str, providers: Iterable[str]) -> str:
    remedy = "write `openai/<model>` for a server with OpenAI's format"
    nearest = get_close_matches(name.casefold(), sorted(providers), n=1)
    if nearest:
        remedy = f"did you mean '{nearest[0]}'? If not, {remedy}"
    return f"LiteLLM has no provider named '{name}'; {remedy}"


def is_openai_model(model: str) -> bool:
    """Return True for `openai/…` with the name of one of OpenAI's own models."""
    provider, _, name = model.partition("/")
    if provider != "openai":
        return False
    # LiteLLM's prefix for OpenAI's newer interface.
    name = name.removeprefix("responses/")
    if _OPENAI_FAMILIES.fullmatch(name):
        return True
    return name in litellm_facts().openai_models


def moving_variable(model: str, env: Mapping[str, str]) -> str | None:
    """Return the variable by which LiteLLM replaces a provider's address; None if none is set."""
    provider = litellm_facts().providers.get(model.partition("/")[0])
    if provider is None:
        return None
    for name in provider.variables:
        if env.get(name):
            return name
    return None


def provider_address(model: str, env: Mapping[str, str]) -> str | None:
    """Return the address that LiteLLM takes if the entry names none; None if only LiteLLM knows."""
    variable = moving_variable(model, env)
    if variable is not None:
        return env[variable]
    provider = litellm_facts().providers.get(model.partition("/")[0])
    if provider is None:
        return None
    return provider.address


def canonical_address(address: Any) -> str:
    """Return an address as it is compared: without a last slash, its host in lower case."""
    text = str(address).strip().rstrip("/")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return text
    host = (parts.hostname or "").casefold()
    default_port = {"http": 80, "https": 443}.get(parts.scheme)
    if port is not None and port != default_port:
        host = f"{host}:{port}"
    return urlunsplit((parts.scheme.casefold(), host, parts.path, parts.query, ""))
