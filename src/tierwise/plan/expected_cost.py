"""What one document should cost on one model, and on what evidence that is said."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from tierwise.ledger.views.history import Past
from tierwise.policy.catalog import Model
from tierwise.policy.certificates import Certificate
from tierwise.policy.router import worst_case
from tierwise.records import Usage

ENOUGH = 5  # documents; fewer say nothing about how often answers hold
_REPAIR_TOKENS = 40  # what is wrong with the answer, and that it should be given again


Source = Literal["ledger", "certificate", "half_of_limit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What is known of a step on a model before it runs. `passes` is None when nobody knows: then it is taken as 1."""

    completion_tokens: int
    cached_share: float
    repairs: float  # a document
    passes: float | None
    latency_s: float | None
    source: Source
    basis: str  # the source in words

    def cost(self, model: Model, prompts: tuple[int, ...]) -> Decimal | None:
        """USD for the calls with these prompts, repairs included; None when the price is unknown."""
        usages = (Usage(n, self.completion_tokens, int(n * self.cached_share)) for n in prompts)
        costs = [model.cost(usage) for usage in usages]
        known = sum((cost for cost in costs if cost is not None), Decimal(0))
        return None if None in costs else known * Decimal(str(1 + self.repairs))

    def like(self, other: Expectation) -> Expectation:
        """This, with the length of another model's answers where there is no evidence of its own."""
        return other if self.source == "half_of_limit" else self


def expect(
    model: Model, limit: int, past: Past | None, certificate: Certificate | None
) -> Expectation:
    """What the ledger says, else the certificate, else half of the longest answer allowed (`limit`, tokens)."""
    most = min(limit, model.max_output_tokens)
    measured = certificate and (certificate.mean_usage or {}).get(model.name)
    passes = certificate.passes if certificate else None
    latency = certificate.latency_p50_s if certificate else None
    if past and past.completion_tokens is not None:
        if past.documents >= ENOUGH:
            passes = past.pass_rate
        return Expectation(
            completion_tokens=math.ceil(past.completion_tokens),
            cached_share=past.cached_share,
            repairs=past.repairs / past.documents,
            passes=passes,
            latency_s=past.latency_s,
            source="ledger",
            basis=f"{past.calls} earlier call{'' if past.calls == 1 else 's'}{_rate(passes)}",
        )
    if certificate and measured:
        source: Source = "certificate"
        tokens = math.ceil(measured.completion_tokens)
        basis = f"certificate of {certificate.date}{_rate(passes)}"
    else:
        source = "half_of_limit"
        tokens = math.ceil(most / 2)
        basis = f"half of the limit of {most} tokens{_rate(passes)}"
    return Expectation(
        completion_tokens=tokens,
        cached_share=0.0,
        repairs=0.0,
        passes=passes,
        latency_s=latency,
        source=source,
        basis=basis,
    )


def _rate(passes: float | None) -> str:
    return "" if passes is None else f", {passes:.0%} passed"


def most(model: Model, prompts: tuple[int, ...], limit: int) -> Decimal | None:
    """USD when each answer is as long as it may be and has to be repaired; None when the price is unknown."""
    answer = min(limit, model.max_output_tokens)
    total = Decimal(0)
    for tokens in prompts:
        first = worst_case(model, tokens, limit)
        again = worst_case(model, tokens + answer + _REPAIR_TOKENS, limit)
        if first is None or again is None:
            return None
        total += first + again
    return total


def prompts_of(
    model: Model, tokens: int, text_tokens: int, limit: int, answer: int, *, splits: bool
) -> tuple[int, ...]:
    """The prompts (tokens) that a document takes: one, or one a part and then those over the parts' results."""
    return tuple(_prompts(model, tokens - text_tokens, text_tokens, limit, answer, splits))


def _prompts(
    model: Model, frame: int, text: int, limit: int, answer: int, splits: bool
) -> Iterator[int]:
    room = max(200, int((model.context_tokens - limit) / model.token_margin) - frame)
    if not splits or math.ceil((frame + text) * model.token_margin) + limit <= model.context_tokens:
        yield frame + text
        return
    parts = math.ceil(text / room)
    yield from [frame + math.ceil(text / parts)] * parts
    if parts * answer < text:
        yield from _prompts(model, frame, parts * answer, limit, answer, splits)
