"""Where and how a model is called: its parameters, filled in and checked, and the lane for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

from tierwise.errors import ModelUnavailable
from tierwise.policy.catalog import Model, in_house

# what a catalog entry cannot change: a call is one request for one answer, with the limits that we set
_FIXED = {
    *("messages", "max_tokens", "max_completion_tokens", "n", "stream", "stream_options"),
    *("timeout", "max_retries", "num_retries"),
}
# LiteLLM's prefixes of servers that speak OpenAI's format
_OPENAI_FORMAT = ("openai/", "hosted_vllm/", "lm_studio/", "llamafile/")
# OpenAI's own models, wherever they are served, refuse some parameters; LiteLLM knows which
_OPENAIS_HOSTS = (".openai.com", ".azure.com")
_OPENAIS_MODELS = re.compile(r"openai/(gpt-\d|chatgpt|o\d)")
# what goes into a request's body as it is; anything else belongs under `extra_body`
BODY_PARAMS = {
    *(
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "presence_penalty",
        "frequency_penalty",
    ),
    *(
        "repetition_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "reasoning_effort",
        "response_format",
    ),
    *("service_tier", "user"),
}
_SECRET = re.compile(r"(?i)key|token|secret|password|auth")
_SHOWN = ("model", "api_base")  # also where they come from a variable
_SHORTEST_SECRET = 8  # characters; shorter ones stand in ordinary words
_UNDERSTOOD = BODY_PARAMS | {
    "model",
    "api_base",
    "api_key",
    "extra_headers",
    "extra_body",
    "drop_params",
}


@dataclass(frozen=True)
class Target:
    """A model as it is called. `params` are `litellm_params` with all variables filled in."""

    model: Model
    params: Mapping[str, Any] = field(repr=False)  # keys among them
    direct: bool  # the address is in the house: no proxy may see the call
    lane: Literal["lean", "litellm"]

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """What nobody may be shown: keys, and what came from variables beside the model and its address."""
        found = set(_secrets(self.model.litellm_params, self.params))
        return tuple(sorted(found, key=len, reverse=True))

    @property
    def private(self) -> tuple[str, ...]:
        """What no error may show: the secrets, and every header, whose name may say little."""
        headers = map(str, (self.params.get("extra_headers") or {}).values())
        return (*self.secrets, *(value for value in headers if len(value) >= _SHORTEST_SECRET))


def target_of(model: Model, params: Mapping[str, Any], hosts: tuple[str, ...]) -> Target:
    """The target for filled-in parameters; `hosts` count as in the house. Raises ModelUnavailable."""
    address = params.get("api_base")
    if address is not None and not _is_http(address):
        raise ModelUnavailable(
            f"{model.name}: `api_base` must be an http address, such as http://10.0.0.5:8000/v1"
        )
    for name in ("extra_body", "extra_headers"):
        if not isinstance(params.get(name) or {}, Mapping):
            raise ModelUnavailable(f"{model.name}: `{name}` must be names with values")
    kept = {name: value for name, value in params.items() if name not in _FIXED}
    if extra := params.get("extra_body"):
        kept["extra_body"] = {
            name: value for name, value in extra.items() if name not in {*_FIXED, "model"}
        }
    direct = address is not None and in_house(address, hosts)
    if model.lane == "lean":
        _check_lean(model, kept)
        return Target(model, kept, direct, "lean")
    return Target(
        model, kept, direct, "lean" if model.lane == "auto" and _fits_lean(kept) else "litellm"
    )


def _check_lean(model: Model, params: Mapping[str, Any]) -> None:
    """Raises ModelUnavailable for what the lean lane cannot do."""
    if "api_base" not in params:
        raise ModelUnavailable(
            f"{model.name}: `lane: lean` needs `api_base`, the address before `/chat/completions`"
        )
    if unknown := sorted(params.keys() - _UNDERSTOOD):
        names = ", ".join(f"`{name}`" for name in unknown)
        remedy = "put it under `extra_body`, or write `lane: litellm`"
        raise ModelUnavailable(f"{model.name}: the lean lane does not know {names}; {remedy}")


def _fits_lean(params: Mapping[str, Any]) -> bool:
    """Whether the lean lane does all that LiteLLM would."""
    address = params.get("api_base")
    if (
        address is None
        or not params["model"].startswith(_OPENAI_FORMAT)
        or params.keys() - _UNDERSTOOD
    ):
        return False
    if _OPENAIS_MODELS.match(params["model"]):
        return False
    return not f".{urlsplit(address).hostname}".endswith(_OPENAIS_HOSTS)


def _secrets(written: Any, filled: Any, name: str = "") -> Iterator[str]:
    """The values below `filled` that are secret by their name, or that the catalog does not hold as they are."""
    if isinstance(filled, Mapping):
        for key, value in filled.items():
            own = written.get(key) if isinstance(written, Mapping) else None
            yield from _secrets(own, value, str(key))
    elif isinstance(filled, list):
        for place, value in enumerate(filled):
            own = written[place] if isinstance(written, list) and place < len(written) else None
            yield from _secrets(own, value, name)
    elif (
        isinstance(filled, str)
        and len(filled) >= _SHORTEST_SECRET
        and _is_secret(name, written, filled)
    ):
        yield filled


def _is_secret(name: str, written: Any, filled: str) -> bool:
    return bool(_SECRET.search(name)) or (filled != written and name not in _SHOWN)


def _is_http(address: Any) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, AttributeError):  # a port that is none, a value that is no text
        return False
