"""What a server answered becomes a Reply, or one of our errors."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tierwise.errors import BadReply, ContentRefused
from tierwise.gateway.http_exchange import Exchange
from tierwise.policy.catalog import Model
from tierwise.records import Reply, Usage

_USAGE_FIELDS = ("usage", "usageMetadata", "prompt_eval_count")
_THOUGHT = re.compile(r"\A\s*<(think|thinking)>.*?</\1>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a lane found in a response. Tokens that were not reported are 0; what is not checked yet may be nonsense."""

    text: str = field(repr=False)
    finish_reason: str
    refusal: str | None = field(repr=False)
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    confidence: float | None = None


def reply_of(answer: Answer, exchange: Exchange, model: Model, latency_s: float) -> Reply:
    """The answer as a Reply. Raises ContentRefused and BadReply, with the usage if there was one."""
    usage = usage_of(answer, exchange)
    if answer.refusal or answer.finish_reason == "content_filter":
        who = "the model" if answer.refusal else "the provider's content filter"
        raise ContentRefused(f"{who} refused", model=model.name, usage=usage)
    text = _THOUGHT.sub("", answer.text)
    if not text.strip() and answer.finish_reason != "length":
        raise BadReply("the reply is empty", model=model.name, usage=usage)
    served = exchange.body.get("model") or exchange.body.get("modelVersion")
    return Reply(
        text=text,
        finish_reason=answer.finish_reason,
        usage=usage,
        latency_s=latency_s,
        served_model=served if isinstance(served, str) else None,
        confidence=answer.confidence,
    )


def usage_of(answer: Answer, exchange: Exchange) -> Usage | None:
    """What the server reported; None when it reported nothing or nonsense. Raises TypeError for what is no number.

    LiteLLM puts zeros or its own count in the place of what is missing, so the server's own words decide.
    """
    if not any(exchange.body.get(field) for field in _USAGE_FIELDS):
        return None
    prompt = answer.prompt_tokens
    completion = answer.completion_tokens
    cached = answer.cached_tokens
    if (
        min(prompt, completion, cached) < 0
        or not prompt
        or cached > prompt
        or (answer.text and not completion)
    ):
        return None
    return Usage(prompt, completion, cached)
