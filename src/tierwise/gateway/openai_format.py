"""Requests in OpenAI's format, as far as a call needs it; LiteLLM's arguments have it too."""

from __future__ import annotations

import base64
from typing import Any

from tierwise.policy.catalog import Model
from tierwise.records import Call, Message


def request_parts(
    call: Call, model: Model, limit_parameter: str = "max_tokens"
) -> dict[str, Any]:
    """Return messages, token limit and schema.

    `limit_parameter` is the server's name of the limit. The schema is left out for a model that
    gets it in the prompt alone (`instruct`).
    """
    messages = [_message(message) for message in call.messages]
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


def _message(message: Message) -> dict[str, Any]:
    """Return a message; one with images has a list of parts as its content."""
    if not message.images:
        return {"role": message.role, "content": message.content}
    content: list[dict[str, Any]] = []
    for image in message.images:
        data = base64.b64encode(image.data).decode("ascii")
        # Images come in the size at which they are to be looked at.
        url = {"url": f"data:{image.media_type};base64,{data}", "detail": "high"}
        content.append({"type": "image_url", "image_url": url})
    content.append({"type": "text", "text": message.content})
    return {"role": message.role, "content": content}
