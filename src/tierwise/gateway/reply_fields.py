"""The one reader that takes a reply apart, field by field, on every lane.

Servers that claim OpenAI's format depart from it: content in parts, an answer in another field, odd
log-probabilities, finish reasons of their own. So nothing is taken as it comes: each field is read
in all the forms that are known, and what is none of them counts as missing. The answer is looked
for in the content, then in a tool call's arguments that have the fields that were asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tierwise.gateway.logprobs import confidence_of, field_confidences
from tierwise.records import Call
from tierwise.text.half_characters import without_halves
from tierwise.text.json_objects import find_objects
from tierwise.text.thoughts import without_thoughts

# What a finish reason means, by its word in lower case with `_`. Other words are kept as they are.
STOP = "stop"
LENGTH = "length"
FILTERED = "content_filter"
ERROR = "error"
_MEANINGS = {
    STOP: "stop stop_sequence stopped end end_turn end_of_turn eos eos_token complete completed done "
    "finish finished finish_reason_unspecified none null",
    LENGTH: "length max_length max_tokens max_new_tokens max_output_tokens max_completion_tokens "
    "max_tokens_reached token_limit token_limit_reached model_length context_length "
    "context_length_exceeded context_window_exceeded model_context_window_exceeded "
    "length_capped truncated incomplete",
    FILTERED: "content_filter content_filtered content_policy content_policy_violation filtered "
    "safety image_safety recitation image_recitation blocklist prohibited_content spii language "
    "refusal refused sensitive moderation blocked guardrail guardrail_intervened guardrails "
    "safety_violation error_toxic",
    ERROR: "error internal_error server_error network_error insufficient_system_resource "
    "system_error failed abort aborted cancelled canceled timeout engine_error overloaded",
}
_BY_WORD = {
    word: meaning for meaning, words in _MEANINGS.items() for word in words.split()
}
_TIER_WORD = re.compile(r"[A-Za-z_]{1,30}")
_LONGEST_WORD = 40  # characters of a finish reason that is kept
_FINISH_FIELDS = (
    "finish_reason",
    "finishReason",
    "stop_reason",
    "done_reason",
    "incomplete_details",
)
# Parts of a content, by their `type`. A part of another type has no text of the answer.
_TEXT_TYPES = frozenset({"text", "output_text", "input_text"})
_THOUGHT_TYPES = frozenset(
    {"thinking", "reasoning", "thought", "redacted_thinking", "reasoning_text"}
)
_TOOL_TYPES = frozenset({"tool_use", "function_call", "tool_call", "function"})
# Fields with thoughts, in the order in which they are named to people.
_THOUGHT_FIELDS = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "reasoning_text",
    "thoughts",
    "reasoning_details",
)
# Marks of a tool call in a text: Qwen and Hermes, Mistral, Llama.
_WRITTEN_CALL = re.compile(r"\A\s*(?:<tool_call>|\[TOOL_CALLS\]|<\|python_tag\|>)")
_DEEPEST = 6  # parts in parts


@dataclass(frozen=True, slots=True)
class ReplyFields:
    """What a reply's fields say. `answer` is without thoughts.

    `thoughts_in` names the fields that hold thoughts, `content` among them. `other_parts` has the
    types of a content's parts that hold no text, and `tools` the names of tools that were called.
    """

    answer: str = field(default="", repr=False)
    finish_reason: str = STOP
    finish_word: str = ""  # the server's own
    refusal: str = field(default="", repr=False)
    has_error: bool = False
    has_choice: bool = True
    thoughts_in: tuple[str, ...] = ()
    unfinished_thought: bool = False
    answer_in: str = (
        ""  # the field of thoughts that holds JSON with the answer's fields
    )
    other_parts: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    confidence: float | None = None
    field_confidences: Mapping[str, float] | None = None


@dataclass
class _Content:
    """The parts of a message's content, by their kind."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    tool_calls: list[Any] = field(default_factory=list)
    other_types: dict[str, None] = field(default_factory=dict)


def read_reply(body: Mapping[str, Any], call: Call) -> ReplyFields:
    """Return the fields of a response's first choice. `call` says what was asked for."""
    found = _first_choice(body)
    choice: Mapping[str, Any] = body if found is None else found
    message = _message(choice)
    content = _Content()
    text = _text_message(found)
    _read_content(text or _content_of(choice, message, body), content, call, 0)
    spoken = without_thoughts(without_halves("".join(content.texts)))
    tool_calls = [*content.tool_calls, *_tool_calls(message)]
    refusal = "".join(content.refusals) or _refusal(message)
    answer = spoken.answer
    written_calls = _written_calls(answer)
    tool_calls += written_calls
    if written_calls or "{" not in answer:
        called = _answer_in_calls(tool_calls, call)
        answer = called or answer
    if not answer.strip() and _has_the_fields(_parsed(refusal), call):
        answer = refusal
        refusal = ""
    thoughts = _thoughts(message, content)
    thoughts_in = list(thoughts)
    if spoken.thinks:
        thoughts_in.append("content")
    finish_word = _finish_word(choice, message, body)
    return ReplyFields(
        answer=answer,
        finish_reason=_BY_WORD.get(finish_word, finish_word),
        finish_word=finish_word,
        refusal=refusal,
        has_error=bool(choice.get("error") or message.get("error")),
        has_choice=found is not None or message is not choice or bool(content.texts),
        thoughts_in=tuple(dict.fromkeys(thoughts_in)),
        unfinished_thought=spoken.unfinished,
        answer_in=_field_with_answer(thoughts, call),
        other_parts=tuple(content.other_types),
        tools=tuple(_tool_name(tool_call) for tool_call in tool_calls),
        confidence=confidence_of(choice.get("logprobs")),
        field_confidences=field_confidences(choice.get("logprobs"), answer),
    )


def served_model(body: Mapping[str, Any]) -> str | None:
    """Return the name that the server gives the model, if it gives one."""
    return _text(body.get("model")) or _text(body.get("modelVersion")) or None


def service_tier(body: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """Return the service tier that a response names, which decides its price, if it names one.

    OpenAI and Groq name it in the body, Anthropic in the usage, Gemini in a header, Vertex in the
    usage's `trafficType`.
    """
    places: list[Any] = [body.get("service_tier"), body.get("serviceTier")]
    for section in ("usage", "usageMetadata"):
        usage = body.get(section)
        if isinstance(usage, Mapping):
            places += [usage.get("service_tier"), usage.get("trafficType")]
    for name, value in headers.items():
        if name.lower() == "x-gemini-service-tier":
            places.append(value)
    for place in places:
        # It is recorded, so anything that may hold a key or a text is not taken.
        if isinstance(place, str) and _TIER_WORD.fullmatch(place):
            return place
    return None


def has_generated_text(body: Mapping[str, Any]) -> bool:
    """Return True if a response holds anything that the model wrote, thoughts and calls too."""
    found = _first_choice(body)
    choice: Mapping[str, Any] = body if found is None else found
    message = _message(choice)
    text = _text_message(found) or _all_text(_content_of(choice, message, body), 0)
    if text.strip() or _tool_calls(message):
        return True
    return bool(_thoughts(message, _Content()))


# ---- choices and messages


def _first_choice(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the first choice (of Gemini: candidate) that is an object."""
    for name in ("choices", "candidates"):
        choices = body.get(name)
        if isinstance(choices, Mapping):
            return choices
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, Mapping):
                return choice
            if isinstance(choice, str):
                return {"text": choice}
    return None


def _text_message(choice: Mapping[str, Any] | None) -> str:
    """Return the text that a choice has in the place of a message."""
    return "" if choice is None else _text(choice.get("message"))


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a choice's message, or the piece of one; the choice itself where it has none.

    A `message` that is a text is an error's, where it is not that of a choice.
    """
    for name in ("message", "delta"):
        message = choice.get(name)
        if isinstance(message, Mapping) and message:
            return message
    return choice


def _content_of(
    choice: Mapping[str, Any], message: Mapping[str, Any], body: Mapping[str, Any]
) -> Any:
    """Return the first of the places of an answer's text that holds anything."""
    places = (
        message.get("content"),
        message.get("text"),
        message.get("parsed"),
        choice.get("text"),
        body.get("output_text"),
        body.get("response"),
        body.get("output"),
    )
    return next((value for value in places if value), None)


def _finish_word(
    choice: Mapping[str, Any], message: Mapping[str, Any], body: Mapping[str, Any]
) -> str:
    """Return the finish reason of the choice, the message or the body, in lower case with `_`."""
    feedback = body.get("promptFeedback")
    if isinstance(feedback, Mapping) and feedback.get("blockReason"):
        return "blocked"
    for part in (choice, message, body):
        for name in _FINISH_FIELDS:
            word = part.get(name)
            if isinstance(word, Mapping):  # such as {"type": "stop"}
                word = word.get("type") or word.get("reason")
            plain = re.sub(r"[^a-z0-9_.:]+", "_", _text(word).strip().lower())
            if plain:
                return plain[:_LONGEST_WORD]
    return STOP


# ---- content


def _read_content(value: Any, content: _Content, call: Call, depth: int) -> None:
    """Sort a content, or one part of it, into texts, thoughts and all else."""
    if depth > _DEEPEST:
        return
    if isinstance(value, str):
        content.texts.append(_text(value))
    elif isinstance(value, list):
        for part in value:
            _read_content(part, content, call, depth + 1)
    elif isinstance(value, Mapping):
        _read_part(value, content, call, depth)
    elif value is not None:
        content.other_types[type(value).__name__] = None


def _read_part(
    part: Mapping[str, Any], content: _Content, call: Call, depth: int
) -> None:
    kind = part.get("type")
    kind = kind.lower() if isinstance(kind, str) else ""
    if kind in _THOUGHT_TYPES or part.get("thought") is True:
        content.thoughts.append(_all_text(part, depth))
    elif kind == "refusal":
        content.refusals.append(_text(part.get("refusal")) or _all_text(part, depth))
    elif kind in _TOOL_TYPES or "functionCall" in part:
        content.tool_calls.append(part.get("functionCall") or part)
    elif kind in _TEXT_TYPES and isinstance(part.get("text"), str):
        content.texts.append(_text(part["text"]))
    elif _has_the_fields(part, call):
        content.texts.append(_json(part))  # the answer as an object, not as a text
    else:
        for name in ("text", "parts", "content", "value", "json", "output"):
            if part.get(name):
                _read_content(part[name], content, call, depth + 1)
                return
        if kind not in _TEXT_TYPES and part:
            name = _text(part.get("type")) or next(iter(part))
            content.other_types[name[:_LONGEST_WORD]] = None


def _all_text(value: Any, depth: int) -> str:
    """Return all texts in a value, such as in the parts of a thought."""
    if isinstance(value, str):
        return _text(value)
    if depth > _DEEPEST:
        return ""
    if isinstance(value, list):
        return "".join(_all_text(item, depth + 1) for item in value)
    if isinstance(value, Mapping):
        names = ("text", "thinking", "reasoning", "summary", "content", "value")
        return "".join(_all_text(value.get(name), depth + 1) for name in names)
    return ""


# ---- an answer in another field


def _answer_in_calls(tool_calls: list[Any], call: Call) -> str:
    """Return the answer in the arguments of tool calls; empty where there is none.

    Different ones are all returned, one after the other: the step compares them.
    """
    answers: dict[str, None] = {}
    for tool_call in tool_calls:
        arguments = _arguments(tool_call)
        if _has_the_fields(arguments, call):
            answers[_json(arguments)] = None
    return "\n".join(answers)


def _written_calls(text: str) -> list[Any]:
    """Return the tool calls that a model wrote into its text, and the server left there."""
    mark = _WRITTEN_CALL.search(text)
    if mark is None:
        return []
    after = text[mark.end() :]
    calls = [_parsed(after[found]) for found in find_objects(after)]
    return [call for call in calls if isinstance(call, Mapping) and "name" in call]


def _tool_calls(message: Mapping[str, Any]) -> list[Any]:
    """Return a message's tool calls, of the old form (`function_call`) too."""
    calls = message.get("tool_calls")
    found: list[Any] = []
    if isinstance(calls, list):
        found.extend(item for item in calls if isinstance(item, Mapping))
    elif isinstance(calls, Mapping):
        found.append(calls)
    if isinstance(message.get("function_call"), Mapping):
        found.append(message["function_call"])
    return found


def _function(tool_call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool_call.get("function")
    return function if isinstance(function, Mapping) else tool_call


def _tool_name(tool_call: Mapping[str, Any]) -> str:
    return _text(_function(tool_call).get("name"))[:_LONGEST_WORD] or "(no name)"


def _arguments(tool_call: Mapping[str, Any]) -> Any:
    """Return a tool call's arguments as an object, whichever way they are written."""
    function = _function(tool_call)
    for name in ("arguments", "input", "args", "parameters"):
        arguments = function.get(name)
        if isinstance(arguments, str):
            return _parsed(arguments)
        if arguments:
            return arguments
    return None


def _has_the_fields(value: Any, call: Call) -> bool:
    """Return True for an object with all the fields that the call's schema requires.

    Whether it fits the schema, the step decides.
    """
    if not isinstance(value, Mapping) or not value:
        return False
    schema = call.response_schema or {}
    required = schema.get("required") or schema.get("properties")
    if not required:
        return False
    return all(name in value for name in required)


def _refusal(message: Mapping[str, Any]) -> str:
    """Return a message's refusal, which LiteLLM keeps in a field of its own."""
    refusal = message.get("refusal")
    fields = message.get("provider_specific_fields")
    if not refusal and isinstance(fields, Mapping):
        refusal = fields.get("refusal")
    return _all_text(refusal, 0)


# ---- thoughts


def _thoughts(message: Mapping[str, Any], content: _Content) -> dict[str, str]:
    """Return the thoughts that stand apart from the answer, by the name of their field."""
    thoughts: dict[str, str] = {}
    for name in _THOUGHT_FIELDS:
        text = _all_text(message.get(name), 0)
        if text.strip():
            thoughts[name] = text
    in_parts = "".join(content.thoughts)
    if in_parts.strip():
        thoughts["content"] = in_parts
    return thoughts


def _field_with_answer(thoughts: Mapping[str, str], call: Call) -> str:
    """Return the field of thoughts that are nothing but JSON with the answer's fields."""
    for name, text in thoughts.items():
        answer = without_thoughts(text).answer
        if _has_the_fields(_parsed(answer), call):
            return name
    return ""


# ---- values


def _text(value: Any) -> str:
    """Return a text without halves of characters; empty for all else."""
    return without_halves(value) if isinstance(value, str) else ""


def _json(value: Any) -> str:
    return without_halves(json.dumps(value, ensure_ascii=False))


def _parsed(text: str) -> Any:
    """Return the JSON of a text; None where it is none."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
