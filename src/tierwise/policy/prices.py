"""Prices: USD per million tokens, and the cost of a call's tokens."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from tierwise.records import Usage
from tierwise.text.settings import Settings

MILLION = Decimal(1_000_000)


class PriceBand(Settings):
    """USD per million tokens."""

    input: Annotated[Decimal, Field(ge=0)] = Field(
        description="A million tokens of prompt."
    )
    output: Annotated[Decimal, Field(ge=0)] = Field(
        description="A million tokens of answer."
    )
    cached_input: Annotated[Decimal, Field(ge=0)] | None = Field(
        None,
        description="A million tokens of cached prompt; by default as `input`.",
    )

    @property
    def is_zero(self) -> bool:
        """True if no token costs anything."""
        return not (self.input or self.output or self.cached_input)

    def cost(self, usage: Usage) -> Decimal:
        """Return the USD of a call with this usage."""
        prompt = usage.prompt_tokens
        cached = usage.cached_tokens
        completion = usage.completion_tokens
        return self.cost_of_tokens(prompt, cached, completion)

    def cost_of_tokens(
        self, prompt: int | Decimal, cached: int | Decimal, completion: int | Decimal
    ) -> Decimal:
        """Return the USD of these tokens; `cached` is the part of the prompt that was cached.

        Cached tokens cost the full price if no cached price is known.
        """
        cached_price = self.input
        if self.cached_input is not None:
            cached_price = self.cached_input
        # Providers count the cached tokens as part of the prompt's.
        uncached = prompt - cached
        total = uncached * self.input + cached * cached_price + completion * self.output
        return total / MILLION


class LongPromptPrice(PriceBand):
    """The price of the whole call once its prompt is longer than `prompt_tokens`."""

    prompt_tokens: Annotated[int, Field(gt=0)] = Field(
        description="The longest prompt with the usual price."
    )


class Price(PriceBand):
    """A price with its source and the day it was read there."""

    source: str = Field(description="Where the price was read.")
    date: Annotated[date, Field(description="When it was read there.")]
    above: LongPromptPrice | None = Field(
        None, description="The price of a call with a longer prompt."
    )

    @property
    def is_zero(self) -> bool:
        """True if no token costs anything, in prompts of any length."""
        is_free_when_long = self.above is None or self.above.is_zero
        return super().is_zero and is_free_when_long

    def cost_of_tokens(
        self, prompt: int | Decimal, cached: int | Decimal, completion: int | Decimal
    ) -> Decimal:
        """Return the USD of one call's tokens, at the long-prompt price if its prompt is long."""
        if self.above and prompt > self.above.prompt_tokens:
            return self.above.cost_of_tokens(prompt, cached, completion)
        return super().cost_of_tokens(prompt, cached, completion)
