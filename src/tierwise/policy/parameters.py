"""The parameters under `litellm_params`: which exist, and which the catalog must not set.

LiteLLM passes an unknown parameter on without a word. A misspelt `api_base` would so send the
documents to the vendor's own address.
"""

from __future__ import annotations

from difflib import get_close_matches

from tierwise.policy.litellm_facts import litellm_facts

_ROUTED = "name the models in a route"
_OURS = "tierwise sets it for every call"
# Names of the limit of an answer, which the lanes set for every call.
OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens")
OUTPUT_REMEDY = (
    "write the entry's `max_output_tokens`, "
    "and `output_limit_parameter: max_completion_tokens` where the server wants that name"
)
_TIMEOUT = "write the entry's `timeout_s`"
_HEADERS = "write it under `extra_headers`"
_PRICE = "write the entry's `price`"
_ADDRESS = "write it as `api_base`"

# Parameters that LiteLLM knows and that have another place here, or none. Those that name an
# address or a model would send a call where no guard has checked.
_REFUSED = {
    "api_url": _ADDRESS,
    "base_url": _ADDRESS,
    "endpoint": _ADDRESS,
    "host": _ADDRESS,
    "server": _ADDRESS,
    "url": _ADDRESS,
    "context_window_fallback_dict": _ROUTED,
    "fallbacks": _ROUTED,
    "litellm_credential_name": "write `api_base` and `api_key`",
    "model_alias_map": _ROUTED,
    "model_list": _ROUTED,
    "use_litellm_proxy": "write `litellm_proxy/<model>` and the proxy's `api_base`",
    "custom_llm_provider": "write it before the model's name, as in `openai/my-model`",
    "mock_response": "an answer must come from the model",
    "default_headers": _HEADERS,
    "headers": _HEADERS,
    "max_completion_tokens": OUTPUT_REMEDY,
    "max_tokens": OUTPUT_REMEDY,
    "force_timeout": _TIMEOUT,
    "request_timeout": _TIMEOUT,
    "stream_timeout": _TIMEOUT,
    "timeout": _TIMEOUT,
    "max_parallel_requests": "write the entry's `concurrency`",
    "rpm": "write the entry's `requests_per_minute`",
    "tpm": "write the entry's `tokens_per_minute`",
    "input_cost_per_token": _PRICE,
    "output_cost_per_token": _PRICE,
    "max_retries": "tierwise repeats calls by its own rules",
    "num_retries": "tierwise repeats calls by its own rules",
    "messages": _OURS,
    "n": _OURS,
    "stream": _OURS,
    "stream_options": _OURS,
}
# Read by LiteLLM's code for one provider, and in none of its lists.
_OF_ONE_PROVIDER = frozenset(
    {
        "oci_compartment_id",
        "oci_fingerprint",
        "oci_key",
        "oci_key_file",
        "oci_region",
        "oci_serving_mode",
        "oci_tenancy",
        "oci_user",
        "project_id",
        "space_id",
    }
)


def parameter_fault(name: str) -> str | None:
    """Return what is wrong with a parameter of this name, and the remedy; None if it is known."""
    if name in _REFUSED:
        return f"litellm_params cannot have `{name}`; {_REFUSED[name]}"
    known = known_parameters()
    if name in known:
        return None
    remedy = "a parameter that only the server knows goes under `extra_body`"
    spelling = name.casefold().replace("-", "_")
    nearest = get_close_matches(spelling, sorted(known), n=1)
    if nearest:
        remedy = f"did you mean '{nearest[0]}'? If not, {remedy}"
    return f"litellm_params has no parameter named '{name}'; {remedy}"


def known_parameters() -> frozenset[str]:
    """Return the parameters that an entry of the catalog may set."""
    known = litellm_facts().parameters | _OF_ONE_PROVIDER
    return known - _REFUSED.keys()
