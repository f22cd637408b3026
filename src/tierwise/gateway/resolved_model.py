"""A catalog's model ready to be called: its parameters filled in and checked, its lane chosen."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

from tierwise.errors import ModelUnavailable
from tierwise.policy.addresses import NOT_AN_ADDRESS, host_of, in_house, is_openai_model
from tierwise.policy.catalog import Model
from tierwise.policy.parameters import OUTPUT_LIMITS

# A catalog entry cannot change these: a call is one request for one answer, within our limits.
_FIXED = {
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "stream",
    "stream_options",
    "timeout",
    "max_retries",
    "num_retries",
}
# LiteLLM's prefixes of servers that speak OpenAI's format.
_OPENAI_FORMAT = ("openai/", "hosted_vllm/", "lm_studio/", "llamafile/")
# OpenAI's own models, wherever they are served, refuse some parameters; LiteLLM knows which. The
# same models are recognised by `is_openai_model`.
_OPENAI_HOSTS = (".openai.com", ".azure.com")
# These go into a request's body as they are. All others belong under `extra_body`.
BODY_PARAMS = {
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "reasoning_effort",
    "response_format",
    "service_tier",
    "user",
}
# The lean lane knows these besides.
_LEAN_PARAMS = BODY_PARAMS | {
    "model",
    "api_base",
    "api_key",
    "extra_headers",
    "extra_body",
    "drop_params",
}
_SECRET_NAME = re.compile(r"(?i)key|token|secret|password|auth")
_NEVER_SECRET = ("model", "api_base")  # even when they come from a variable
_SHORTEST_SECRET = 8  # characters; shorter values occur in ordinary words

LaneName = Literal["lean", "litellm"]


@dataclass(frozen=True)
class ResolvedModel:
    """A model as it is called. `params` are its `litellm_params` with all variables filled in."""

    model: Model
    params: Mapping[str, Any] = field(repr=False)  # keys among them
    direct: bool  # the address is in the house: no proxy may see the call
    lane: LaneName
    # the server's name of the limit of an answer
    limit_parameter: str = "max_tokens"

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """Values that must not be shown, the longest first.

        These are keys, and values of variables except the model's name and address.
        """
        secrets = set(_find_secrets(self.model.litellm_params, self.params))
        return tuple(sorted(secrets, key=len, reverse=True))

    @property
    def private(self) -> tuple[str, ...]:
        """Values that no error may show: the secrets, and headers of any name unless very short."""
        private = list(self.secrets)
        headers = self.params.get("extra_headers") or {}
        for header in headers.values():
            value = str(header)
            if len(value) >= _SHORTEST_SECRET:
                private.append(value)
        return tuple(private)


def resolve_model(
    model: Model, params: Mapping[str, Any], hosts: tuple[str, ...]
) -> ResolvedModel:
    """Check filled-in parameters, and choose the lane.

    `hosts` count as in the house. Raises ModelUnavailable.
    """
    address = params.get("api_base")
    if address is not None and host_of(address) is None:
        raise ModelUnavailable(f"`api_base` {NOT_AN_ADDRESS}", model=model.name)
    for name in ("extra_body", "extra_headers"):
        if not isinstance(params.get(name) or {}, Mapping):
            raise ModelUnavailable(
                f"`{name}` must be names with values", model=model.name
            )
    kept = {name: value for name, value in params.items() if name not in _FIXED}
    extra_body = params.get("extra_body")
    if extra_body:
        fixed = {*_FIXED, "model"}
        kept["extra_body"] = {
            name: value for name, value in extra_body.items() if name not in fixed
        }
    dropped = kept.get("additional_drop_params")
    # Without its limit, an answer could cost more than was reserved.
    if isinstance(dropped, list):
        kept["additional_drop_params"] = [
            name for name in dropped if name not in OUTPUT_LIMITS
        ]
    direct = address is not None and in_house(address, hosts)
    limit_parameter = "max_tokens"
    if model.output_limit_parameter != "auto":
        limit_parameter = model.output_limit_parameter
    lane = _choose_lane(model, kept)
    return ResolvedModel(model, kept, direct, lane, limit_parameter)


def _choose_lane(model: Model, params: Mapping[str, Any]) -> LaneName:
    """Return the lane that the catalog names, or the lean one where it does all that is needed."""
    if model.lane == "lean":
        _check_lean(model, params)
        return "lean"
    if model.lane == "auto" and _fits_lean(params):
        return "lean"
    return "litellm"


def _check_lean(model: Model, params: Mapping[str, Any]) -> None:
    """Raise ModelUnavailable for what the lean lane cannot do."""
    if "api_base" not in params:
        raise ModelUnavailable(
            "`lane: lean` needs `api_base`, the address before `/chat/completions`",
            model=model.name,
        )
    unknown = sorted(params.keys() - _LEAN_PARAMS)
    if unknown:
        names = ", ".join(f"`{name}`" for name in unknown)
        remedy = "put it under `extra_body`, or write `lane: litellm`"
        raise ModelUnavailable(
            f"the lean lane does not know {names}; {remedy}", model=model.name
        )


def _fits_lean(params: Mapping[str, Any]) -> bool:
    """Return True if the lean lane does all that LiteLLM would."""
    address = params.get("api_base")
    if address is None or params.keys() - _LEAN_PARAMS:
        return False
    model = params["model"]
    if not model.startswith(_OPENAI_FORMAT) or is_openai_model(model):
        return False
    host = urlsplit(address).hostname
    return not f".{host}".endswith(_OPENAI_HOSTS)


def _find_secrets(written: Any, filled: Any, name: str = "") -> Iterator[str]:
    """Yield the secret values below `filled`, which has its variables filled in.

    `written` is the same part of the catalog entry: where the two differ, a variable was filled in.
    """
    if isinstance(filled, Mapping):
        for key, value in filled.items():
            written_value = written.get(key) if isinstance(written, Mapping) else None
            yield from _find_secrets(written_value, value, str(key))
    elif isinstance(filled, list):
        for index, value in enumerate(filled):
            has_same = isinstance(written, list) and index < len(written)
            yield from _find_secrets(written[index] if has_same else None, value, name)
    elif isinstance(filled, str) and len(filled) >= _SHORTEST_SECRET:
        from_variable = filled != written and name not in _NEVER_SECRET
        if from_variable or _SECRET_NAME.search(name):
            yield filled
