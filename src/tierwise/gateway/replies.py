"""A parsed response becomes a Reply, or an error for a refusal or an unusable answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tierwise.errors import BadReply, ContentRefused
from tierwise.gateway.http_exchange import HttpExchange
from tierwise.gateway.usage import read_usage
from tierwise.policy.catalog import Model
from tierwise.records import Call, Reply

_THOUGHT = re.compile(r"\A\s*<(think|thinking)>.*?</\1>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ParsedResponse:
    """The fields of a response, not checked yet. Its token counts are read by `usage`."""

    text: str = field(repr=False)
    finish_reason: str
    refusal: str | None = field(repr=False)
    confidence: float | None = None


def to_reply(
    response: ParsedResponse,
    exchange: HttpExchange,
    call: Call,
    model: Model,
    latency_s: float,
) -> Reply:
    """Return the response as a Reply, without the model's thoughts.

    Raises ContentRefused and BadReply, with the usage if there was one.
    """
    # From the body on both lanes: LiteLLM fills a missing usage with zeros or its own count.
    usage = read_usage(exchange.body, model, call, answered=bool(response.text))
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
