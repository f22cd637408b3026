"""A parsed response becomes a Reply, or an error for a refusal or an unusable answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tierwise.errors import BadReply, ContentRefused
from tierwise.gateway.http_exchange import HttpExchange
from tierwise.policy.catalog import Model
from tierwise.records import Reply, Usage

# Names of the usage in the bodies of OpenAI (and Anthropic), Gemini and Ollama.
_USAGE_FIELDS = ("usage", "usageMetadata", "prompt_eval_count")
_THOUGHT = re.compile(r"\A\s*<(think|thinking)>.*?</\1>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """The fields of a response, not checked yet. Token counts that were not reported are 0."""

    text: str = field(repr=False)
    finish_reason: str
    refusal: str | None = field(repr=False)
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    confidence: float | None = None


def to_reply(
    response: ParsedResponse, exchange: HttpExchange, model: Model, latency_s: float
) -> Reply:
    """Return the response as a Reply, without the model's thoughts.

    Raises ContentRefused and BadReply, with the usage if there was one.
    """
    usage = reported_usage(response, exchange)
    if response.refusal:
        raise ContentRefused("the model refused", model=model.name, usage=usage)
    if response.finish_reason == "content_filter":
        message = "the provider's content filter refused"
        raise ContentRefused(message, model=model.name, usage=usage)
    text = _THOUGHT.sub("", response.text)
    # An answer that was cut off may be empty when the model spent all its tokens on thoughts.
    if not text.strip() and response.finish_reason != "length":
        raise BadReply("the reply is empty", model=model.name, usage=usage)
    served_model = exchange.body.get("model") or exchange.body.get("modelVersion")
    return Reply(
        text=text,
        finish_reason=response.finish_reason,
        usage=usage,
        latency_s=latency_s,
        served_model=served_model if isinstance(served_model, str) else None,
        confidence=response.confidence,
    )


def reported_usage(response: ParsedResponse, exchange: HttpExchange) -> Usage | None:
    """Return the usage that the server reported; None when it reported none, or nonsense.

    LiteLLM fills a missing usage with zeros or its own count, so the body itself decides.
    Raises TypeError for counts that are not numbers.
    """
    if not any(exchange.body.get(name) for name in _USAGE_FIELDS):
        return None
    prompt = response.prompt_tokens
    completion = response.completion_tokens
    cached = response.cached_tokens
    has_negative = min(prompt, completion, cached) < 0
    misses_prompt = not prompt or cached > prompt
    misses_answer = bool(response.text) and not completion
    if has_negative or misses_prompt or misses_answer:
        return None
    return Usage(prompt, completion, cached)
