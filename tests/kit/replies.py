"""Well-formed replies of each provider's format, and the same with any JSON in any place."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

ANSWER = '{"evidence": "has not arrived", "label": "delivery"}'
_USAGE = {
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "total_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
_TOOL_CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "classify", "arguments": ANSWER},
}
OPENAI = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": ANSWER,
                "reasoning_content": "Late.",
                "refusal": None,
                "tool_calls": [_TOOL_CALL],
                "function_call": {"name": "classify", "arguments": ANSWER},
            },
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "a", "logprob": -1, "bytes": [97]}]},
            "error": None,
        }
    ],
    "usage": _USAGE,
    "error": None,
}
PARTS = {
    "choices": [
        {
            "message": {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "a"}]},
                    {"type": "text", "text": ANSWER},
                ]
            },
            "finish_reason": "tool_calls",
        }
    ]
}
ELSEWHERE = {
    "choices": [
        {
            "message": {"content": None, "tool_calls": [_TOOL_CALL]},
            "logprobs": {"token_logprobs": [-1], "tokens": ["a"]},
        }
    ],
    "usage": {"input_tokens": 5, "output_tokens": 2},
}
ANTHROPIC = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "c",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "x"},
        {"type": "text", "text": ANSWER},
    ],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 3},
}
GEMINI = {
    "candidates": [
        {
            "content": {
                "parts": [{"text": "hm", "thought": True}, {"text": ANSWER}],
                "role": "model",
            },
            "finishReason": "STOP",
        }
    ],
    "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 2},
    "modelVersion": "g",
    "promptFeedback": {"blockReason": None},
}
_NAMES = (
    *("arguments", "choices", "code", "content", "delta", "error", "evidence"),
    *("finish_reason", "function", "index", "label", "logprob", "message", "name"),
    *("reasoning", "refusal", "text", "thinking", "tool_calls", "type", "usage"),
)
_WORDS = [
    ANSWER,
    "",
    "<think>",
    "</think>",
    "[/THINK]",
    "<|channel|>final<|message|>",
    "STOP",
    "MAX_TOKENS",
    "SAFETY",
    "error",
    "text",
    "thinking",
    "tool_use",
    "\ud83d",
    "-1",
    "NaN",
]
_PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**64])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(_WORDS)
)
ANY_JSON = st.recursive(
    _PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value inside of a JSON value, and to itself."""
    yield path
    pairs: Any = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value)
    for key, inner in pairs:
        yield from places(inner, (*path, key))


def with_value(reply: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A reply with another value at a path, as far as the path is still there."""
    if not path:
        return value
    changed = copy.deepcopy(reply)
    inner = changed
    for key in path[:-1]:
        is_list = isinstance(inner, list) and isinstance(key, int) and key < len(inner)
        if not is_list and not (isinstance(inner, dict) and key in inner):
            return changed
        inner = inner[key]
    if isinstance(inner, dict) or (
        isinstance(inner, list) and path[-1] in range(len(inner))
    ):
        inner[path[-1]] = value
    return changed


@st.composite
def strange(draw: st.DrawFn, *replies: dict[str, Any]) -> Any:
    """A well-formed reply with any JSON in one to three places."""
    reply = draw(st.sampled_from(replies))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(reply))))
        reply = with_value(reply, path, draw(ANY_JSON))
        if not isinstance(reply, dict | list):
            break
    return reply


def sent(reply: Any) -> bytes:
    """The bytes of a reply, in Python's dialect of JSON."""
    return json.dumps(reply).encode()
