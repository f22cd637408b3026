"""OpenAI's wire format, as far as a call needs it. Also the one that LiteLLM takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tierwise.gateway.replies import Answer
from tierwise.policy.catalog import Model
from tierwise.records import Call

# finish reasons in OpenAI's words; all others, such as `eos_token`, mean that the model came to its end
_FINISH = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "tool_calls": "tool_calls",
    "function_call": "function_call",
}


def request_parts(call: Call, model: Model) -> dict[str, Any]:
    """Messages, limit and, unless the model is only told it, the schema."""
    parts: dict[str, Any] = {
        "messages": [
            {"role": message.role, "content": message.content} for message in call.messages
        ],
        "max_tokens": call.max_tokens,
    }
    if call.response_schema is not None and model.structured_output != "instruct":
        schema = {"name": call.schema_name, "schema": call.response_schema, "strict": True}
        parts["response_format"] = {"type": "json_schema", "json_schema": schema}
    if call.confidence:
        parts["logprobs"] = True
    return parts


def read_answer(body: Mapping[str, Any]) -> Answer:
    """The first choice of a response. Raises KeyError, IndexError, TypeError or AttributeError when it is none."""
    choice = body["choices"][0]
    message = choice["message"]
    usage = body.get("usage") or {}
    return Answer(
        text=message.get("content") or "",
        finish_reason=_FINISH.get(choice.get("finish_reason"), "stop"),
        refusal=message.get("refusal"),
        prompt_tokens=usage.get("prompt_tokens") or 0,
        completion_tokens=usage.get("completion_tokens") or 0,
        cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        confidence=confidence_of(
            [token["logprob"] for token in (choice.get("logprobs") or {}).get("content") or ()]
        ),
    )


def confidence_of(log_probabilities: Sequence[float]) -> float | None:
    """The probability of the least likely token; None where there are none or a server sends nonsense."""
    return (
        math.exp(min(log_probabilities))
        if log_probabilities and max(log_probabilities) <= 0
        else None
    )
