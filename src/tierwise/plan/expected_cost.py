"""The expected and the highest cost of one document on one model, and the evidence for it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from tierwise.ledger.views.history import Past
from tierwise.policy.catalog import Model
from tierwise.policy.certificates import Certificate
from tierwise.policy.prices import Band
from tierwise.policy.router import worst_case
from tierwise.records import Usage
from tierwise.text.amounts import plural, total

ENOUGH = 5  # documents; fewer say nothing about how often answers pass
_REPAIR_TOKENS = 40  # of the request to give a corrected answer
_REASK_TOKENS = 200  # of a re-ask with the words of the failed checks, at most
_SMALLEST_PART = 200  # tokens; see `cascade/answers.py`


Source = Literal["ledger", "certificate", "half_of_limit", "price"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The evidence on a step and a model before it runs.

    `passes` is None when there is none: the plan then takes it as 1.
    """

    completion_tokens: int
    cached_share: float
    written_share: float
    repairs: float  # a document
    reasks: float  # a document
    passes: float | None
    latency_s: float | None
    source: Source
    basis: str  # the source in words

    def cost(
        self, model: Model, prompts: tuple[int, ...], band: Band = "online"
    ) -> Decimal | None:
        """Return the USD for calls with these prompts, follow-ups included; None when unknown."""
        costs = []
        for tokens in prompts:
            cached = int(tokens * self.cached_share)
            written = int(tokens * self.written_share)
            usage = Usage(tokens, self.completion_tokens, cached, written)
            costs.append(model.cost(usage, band))
        cost = total(costs)
        if cost is None:
            return None
        return cost * Decimal(str(self.calls_a_prompt))

    @property
    def calls_a_prompt(self) -> float:
        """The expected calls for a prompt: the first, its repair and its re-asks."""
        return 1 + self.repairs + self.reasks

    def like(self, other: Expectation) -> Expectation:
        """Return this, or another model's expectation where there is no evidence of its own."""
        return other if self.source == "half_of_limit" else self


def expect(
    model: Model,
    limit: int,
    past: Past | None,
    certificate: Certificate | None,
    *,
    reask: int,
) -> Expectation:
    """Return the expectation from the ledger, else the certificate, else half the limit.

    `limit` is the tokens of the longest answer that the prompt allows, `reask` the most re-asks. A
    certificate's tokens are those of all calls for a document, re-asks included.
    """
    passes = certificate.passes if certificate else None
    if past and past.completion_tokens is not None:
        if past.documents >= ENOUGH:
            passes = past.pass_rate
        return Expectation(
            completion_tokens=math.ceil(past.completion_tokens),
            cached_share=past.cached_share,
            written_share=past.written_share,
            repairs=past.repairs / past.documents,
            reasks=_expected_reasks(past, reask),
            passes=passes,
            latency_s=past.latency_s,
            source="ledger",
            basis=f"{plural(past.calls, 'earlier call')}{_passed(passes)}",
        )
    usage = None
    if certificate and certificate.mean_usage:
        usage = certificate.mean_usage.get(model.name)
    if certificate and usage:
        source: Source = "certificate"
        tokens = math.ceil(usage.completion_tokens)
        basis = f"certificate of {certificate.date}"
    else:
        source = "half_of_limit"
        longest = model.longest_output(limit)
        tokens = math.ceil(longest / 2)
        basis = f"half of the limit of {longest} tokens"
    return Expectation(
        completion_tokens=tokens,
        cached_share=0.0,
        written_share=0.0,
        repairs=0.0,
        reasks=0.0,
        passes=passes,
        latency_s=certificate.latency_p50_s if certificate else None,
        source=source,
        basis=basis + _passed(passes),
    )


def expect_own(past: Past | None) -> Expectation:
    """Return the expectation of a step without a model, whose calls cost the same."""
    passes = None
    basis = "the step's own price"
    latency_s = None
    if past is not None:
        latency_s = past.latency_s
        if past.documents >= ENOUGH:
            passes = past.pass_rate
        basis = f"{plural(past.calls, 'earlier call')}{_passed(passes)}"
    return Expectation(
        completion_tokens=0,
        cached_share=0.0,
        written_share=0.0,
        repairs=0.0,
        reasks=0.0,
        passes=passes,
        latency_s=latency_s,
        source="price",
        basis=basis,
    )


def _expected_reasks(past: Past, most: int) -> float:
    """Return the re-asks a document; documents that failed so far would all be asked again."""
    if not most:
        return 0.0
    if past.reasks:
        return past.reasks / past.documents
    return most * (1 - past.pass_rate)


def _passed(passes: float | None) -> str:
    return "" if passes is None else f", {passes:.0%} passed"


def highest_cost(
    model: Model,
    prompts: tuple[int, ...],
    limit: int,
    *,
    reask: int,
    band: Band = "online",
) -> Decimal | None:
    """Return the USD when each answer has the longest length and is repaired; None when unknown.

    The answer to the last prompt, which is checked, is also asked for again `reask` times.
    """
    answer = model.longest_answer(limit)
    costs = []
    for tokens in prompts:
        costs.append(worst_case(model, tokens, limit, band))
        # The repair's prompt has the first answer in it.
        longer = tokens + answer + _REPAIR_TOKENS
        costs.append(worst_case(model, longer, limit, band))
    for number in range(1, reask + 1):
        # Its prompt has the repaired answer and those of the re-asks before it in it.
        added = (number + 1) * answer + _REPAIR_TOKENS + number * _REASK_TOKENS
        costs.append(worst_case(model, prompts[-1] + added, limit, band))
    return total(costs)


def prompts_of(
    model: Model,
    tokens: int,
    text_tokens: int,
    limit: int,
    answer: int,
    *,
    splits: bool,
) -> tuple[int, ...]:
    """Return the tokens of each prompt that a document takes.

    That is one prompt, or one for each part and then those over the parts' results.
    """
    frame = tokens - text_tokens
    return tuple(_prompts(model, frame, text_tokens, limit, answer, splits=splits))


def _prompts(
    model: Model, frame: int, text: int, limit: int, answer: int, *, splits: bool
) -> Iterator[int]:
    longest = limit + model.thinking_tokens
    window = math.ceil((frame + text) * model.token_margin) + longest
    if not splits or window <= model.context_tokens:
        yield frame + text
        return
    room = int((model.context_tokens - longest) / model.token_margin) - frame
    parts = math.ceil(text / max(_SMALLEST_PART, room))
    for _ in range(parts):
        yield frame + math.ceil(text / parts)
    # The parts' results are joined and asked again, as long as they get shorter.
    results = parts * answer
    if results < text:
        yield from _prompts(model, frame, results, limit, answer, splits=splits)
