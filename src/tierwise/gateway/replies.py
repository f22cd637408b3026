"""The fields of a response become a Reply, or an error: refused, broken off, or without an answer.

An error in a body with a good status is left to `provider_errors`, which knows providers' words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tierwise.errors import BadReply, CallError, ContentRefused, NoAnswer, ServerFault
from tierwise.gateway.error_body import error_in_body
from tierwise.gateway.http_exchange import ErrorStatus, HttpExchange, NotAReply
from tierwise.gateway.reply_fields import (
    ERROR,
    FILTERED,
    LENGTH,
    ReplyFields,
    read_reply,
    served_model,
    service_tier,
)
from tierwise.gateway.usage import read_usage, thinking_tokens
from tierwise.policy.catalog import Model
from tierwise.records import Call, Reply, Usage


def to_reply(
    body: Mapping[str, Any],
    exchange: HttpExchange,
    call: Call,
    model: Model,
    latency_s: float,
) -> Reply:
    """Return the reply in a body of OpenAI's format, or one near it.

    The usage is read from what the server sent, as LiteLLM fills a missing one with zeros or its
    own count. Raises CallError with the usage, NotAReply, and ErrorStatus for an error in the body.
    """
    fields = read_reply(body, call)
    has_text = bool(fields.answer or fields.thoughts_in)
    usage = read_usage(exchange.body, model, call, answered=has_text)
    has_answer = bool(fields.answer.strip())
    is_whole = has_answer and fields.finish_reason != ERROR
    if fields.has_error or (not is_whole and error_in_body(body) is not None):
        raise ErrorStatus
    refusal = _refusal(fields, model, usage)
    if refusal is not None:
        raise refusal
    # An answer that was cut off may be empty when the model spent all its tokens on thoughts.
    if not has_answer and fields.finish_reason != LENGTH:
        raise _without_answer(fields, exchange, model, usage)
    return Reply(
        text=fields.answer,
        finish_reason=fields.finish_reason,
        usage=usage,
        latency_s=latency_s,
        served_model=served_model(exchange.body),
        confidence=fields.confidence,
        field_confidences=fields.field_confidences,
        thinking_tokens=_thinking_tokens(fields, exchange, model, usage),
        service_tier=service_tier(exchange.body, exchange.headers),
    )


def _refusal(
    fields: ReplyFields, model: Model, usage: Usage | None
) -> CallError | None:
    """Return the error of an answer that was refused or broken off, if it was."""
    name = model.name
    if fields.refusal:
        return ContentRefused("the model refused", model=name, usage=usage)
    if fields.finish_reason == FILTERED:
        message = "the provider's content filter refused"
        if fields.finish_word != FILTERED:
            message += f" ({fields.finish_word})"
        return ContentRefused(message, model=name, usage=usage)
    if fields.finish_reason == ERROR:
        message = f"the server broke the answer off ({fields.finish_word})"
        return ServerFault(message, model=name, usage=usage)
    return None


def _without_answer(
    fields: ReplyFields, exchange: HttpExchange, model: Model, usage: Usage | None
) -> Exception:
    """Return the error of a reply without an answer: what it has instead, and the remedy."""
    message = None
    hidden = thinking_tokens(exchange.body, model)
    if fields.answer_in and fields.answer_in != "content":
        message = (
            f"the answer is in `{fields.answer_in}`, not in `content`: "
            "switch off the server's reasoning parser"
        )
    elif fields.unfinished_thought:
        message = (
            "no answer, as the model's thought has no end: "
            "raise `thinking_tokens`, or switch its thinking off"
        )
    elif fields.thoughts_in:
        places = " and ".join(f"`{name}`" for name in fields.thoughts_in)
        message = (
            f"no answer, only thoughts in {places}: "
            "switch off the server's reasoning parser, or the model's thinking"
        )
    elif fields.tools:
        names = ", ".join(dict.fromkeys(fields.tools))
        message = f"no answer, only a call of the tool {names}"
    elif fields.other_parts:
        message = f"no text, only {', '.join(fields.other_parts)}"
    elif hidden:
        message = (
            f"no answer, only {hidden} tokens of thinking: "
            "raise `thinking_tokens`, or switch the model's thinking off"
        )
    if message is not None:
        return NoAnswer(message, model=model.name, usage=usage)
    if not fields.has_choice:
        return NotAReply(_instead_of_a_reply(exchange))
    message = "the reply is empty"
    if fields.finish_word != "stop":
        message += f" (the server's finish reason: {fields.finish_word})"
    return BadReply(message, model=model.name, usage=usage)


def _instead_of_a_reply(exchange: HttpExchange) -> str:
    """Return what a body without choices is."""
    if exchange.body:
        return "no choices"
    text = exchange.text.strip()
    if not text:
        return "an empty body"
    return "a web page" if text.startswith("<") else "no JSON object"


def _thinking_tokens(
    fields: ReplyFields, exchange: HttpExchange, model: Model, usage: Usage | None
) -> int | None:
    """Return the tokens that went into thinking, as far as they are known."""
    reported = thinking_tokens(exchange.body, model)
    if reported:
        return reported
    # Without an answer, all of them.
    if usage is not None and fields.thoughts_in and not fields.answer.strip():
        return usage.completion_tokens
    return None
