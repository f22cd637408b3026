"""Requests in OpenAI's format, as far as a call needs it; LiteLLM's arguments have it too."""

from __future__ import annotations

from typing import Any

from tierwise.policy.catalog import Model
from tierwise.records import Call


def request_parts(
    call: Call, model: Model, limit_parameter: str = "max_tokens"
) -> dict[str, Any]:
    """Return messages, token limit and schema.

    `limit_parameter` is the server's name of the limit. The schema is left out for a model that
    gets it in the prompt alone (`instruct`).
    """
    messages = [
        {"role": message.role, "content": message.content} for message in call.messages
    ]
    parts: dict[str, Any] = {"messages": messages, limit_parameter: call.max_tokens}
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
