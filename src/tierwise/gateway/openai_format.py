"""OpenAI's wire format, as far as a call needs it; LiteLLM's arguments have it too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tierwise.gateway.replies import ParsedResponse
from tierwise.policy.catalog import Model
from tierwise.records import Call

# Finish reasons that matter. All others, such as `eos_token`, mean that the answer is complete.
_FINISH_REASONS = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "function_call",
}


def request_parts(call: Call, model: Model) -> dict[str, Any]:
    """Return messages, token limit and schema.

    The schema is left out for a model that gets it in the prompt alone (`instruct`).
    """
    messages = [
        {"role": message.role, "content": message.content} for message in call.messages
    ]
    parts: dict[str, Any] = {"messages": messages, "max_tokens": call.max_tokens}
    if call.response_schema is not None and model.structured_output != "instruct":
        schema = {
            "name": call.schema_name,
            "schema": call.response_schema,
            "strict": True,
        }
        parts["response_format"] = {"type": "json_schema", "json_schema": schema}
    if call.confidence:
        parts["logprobs"] = True
    return parts


def parse_response(body: Mapping[str, Any]) -> ParsedResponse:
    """Parse the first choice of a response.

    Raises KeyError, IndexError, TypeError or AttributeError for another format.
    """
    choice = body["choices"][0]
    message = choice["message"]
    tokens = (choice.get("logprobs") or {}).get("content") or ()
    return ParsedResponse(
        text=message.get("content") or "",
        finish_reason=_FINISH_REASONS.get(choice.get("finish_reason"), "stop"),
        refusal=message.get("refusal"),
        confidence=least_probability([token["logprob"] for token in tokens]),
    )


def least_probability(log_probabilities: Sequence[float]) -> float | None:
    """Return the probability of the least likely token.

    None when there are no log-probabilities, or when they are nonsense (above 0).
    """
    if not log_probabilities or max(log_probabilities) > 0:
        return None
    return math.exp(min(log_probabilities))
