"""Prices: USD per million tokens, and the cost of a call's tokens.

A model has up to three price bands: `online`, `flex` (a slower service tier of the same requests)
and `batch` (a provider's batch API). Each band prices five kinds of tokens: the plain prompt, the
part of it that the server read from its prompt cache, the parts that it wrote to that cache for
five minutes or for an hour, and the answer.
"""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from tierwise.records import Transport, Usage
from tierwise.text.settings import Settings

MILLION = Decimal(1_000_000)

Band = Literal["online", "flex", "batch"]
BANDS: tuple[Band, ...] = get_args(Band)

# Service tiers as servers name them in replies, in lower case. All others cost as much as `online`.
_FLEX = "flex"
_PRIORITY = "priority"

Tokens = int | Decimal
_Usd = Annotated[Decimal, Field(ge=0)]


def billed_band(transport: Transport, service_tier: str | None) -> Band | None:
    """Return the band at which a provider bills a call; None where no band of ours describes it.

    `service_tier` is the one that the reply reports: a server that did not grant `flex` bills the
    standard price. `priority` costs more than `online`, by a price that the catalog does not have.
    """
    if transport == "batch":
        return "batch"
    # Google's Vertex writes ON_DEMAND_FLEX.
    words = (service_tier or "").lower().split("_")
    if _FLEX in words:
        return "flex"
    if _PRIORITY in words:
        return None
    return "online"


class PriceBand(Settings):
    """USD per million tokens."""

    input: _Usd = Field(description="A million tokens of prompt.")
    output: _Usd = Field(description="A million tokens of answer.")
    cached_input: _Usd | None = Field(
        None,
        description="A million tokens of cached prompt; by default as `input`.",
    )
    cache_write: _Usd | None = Field(
        None,
        description="A million tokens of prompt that the server writes to its cache, for its "
        "shortest lifetime (Anthropic: five minutes); by default as `input`.",
    )
    cache_write_1h: _Usd | None = Field(
        None,
        description="The same for a lifetime of one hour; by default as `cache_write`.",
    )

    @property
    def is_zero(self) -> bool:
        """True if no token costs anything."""
        return not (self.input_bound or self.output)

    @property
    def input_bound(self) -> Decimal:
        """USD per million tokens of prompt at most, be they cached, written to a cache or neither."""
        prices = (self.input, self.cached_input, self.cache_write, self.cache_write_1h)
        return max(price for price in prices if price is not None)

    def cost(self, usage: Usage) -> Decimal:
        """Return the USD of a call with this usage."""
        return self.cost_of_tokens(
            usage.prompt_tokens,
            usage.cached_tokens,
            usage.completion_tokens,
            usage.cache_write_tokens,
            usage.cache_write_1h_tokens,
        )

    def cost_of_tokens(
        self,
        prompt: Tokens,
        cached: Tokens,
        completion: Tokens,
        written: Tokens = 0,
        written_1h: Tokens = 0,
    ) -> Decimal:
        """Return the USD of these tokens.

        `cached` and `written` are parts of the prompt: what was read from the cache, and what was
        written to it. `written_1h` is the part of `written` that is kept for an hour. A kind of
        token without a price of its own costs what the next plainer kind does.
        """
        cached_price = self.input if self.cached_input is None else self.cached_input
        write_price = self.input if self.cache_write is None else self.cache_write
        hour_price = write_price if self.cache_write_1h is None else self.cache_write_1h
        # Providers count cached and written tokens as parts of the prompt's.
        plain = prompt - cached - written
        total = plain * self.input
        total += cached * cached_price
        total += (written - written_1h) * write_price
        total += written_1h * hour_price
        total += completion * self.output
        return total / MILLION

    def most(self, prompt: Tokens, completion: Tokens) -> Decimal:
        """Return the most USD that these tokens can cost, whatever part of them is cached."""
        return (prompt * self.input_bound + completion * self.output) / MILLION

    def _discounted(self, discount: Decimal) -> dict[str, Decimal | None]:
        """Return each price with the discount taken off."""
        rest = 1 - discount
        prices: dict[str, Decimal | None] = {}
        for name in PriceBand.model_fields:
            price = getattr(self, name)
            prices[name] = None if price is None else price * rest
        return prices


class LongPromptPrice(PriceBand):
    """The price of the whole call once its prompt is longer than `prompt_tokens`."""

    prompt_tokens: Annotated[int, Field(gt=0)] = Field(
        description="The longest prompt with the usual price."
    )

    def at_discount(self, discount: Decimal) -> LongPromptPrice:
        """Return the same price with a discount taken off."""
        prices = self._discounted(discount)
        return LongPromptPrice.model_validate(
            {**prices, "prompt_tokens": self.prompt_tokens}
        )


class BandPrice(PriceBand):
    """The whole price of one band: USD per million tokens, for short prompts and long ones."""

    above: LongPromptPrice | None = Field(
        None, description="The price of a call with a longer prompt."
    )

    @property
    def is_zero(self) -> bool:
        """True if no token costs anything, in prompts of any length."""
        is_free_when_long = self.above is None or self.above.is_zero
        return super().is_zero and is_free_when_long

    @property
    def parts(self) -> tuple[PriceBand, ...]:
        """The prices of short prompts and, if they differ, of long ones."""
        return (self,) if self.above is None else (self, self.above)

    def cost_of_tokens(
        self,
        prompt: Tokens,
        cached: Tokens,
        completion: Tokens,
        written: Tokens = 0,
        written_1h: Tokens = 0,
    ) -> Decimal:
        """Return the USD of one call's tokens, at the long-prompt price if its prompt is long."""
        if self.above and prompt > self.above.prompt_tokens:
            return self.above.cost_of_tokens(
                prompt, cached, completion, written, written_1h
            )
        return super().cost_of_tokens(prompt, cached, completion, written, written_1h)

    def most(self, prompt: Tokens, completion: Tokens) -> Decimal:
        """Return the most USD that one call can cost whose prompt has at most these tokens."""
        most = super().most(prompt, completion)
        if self.above and prompt > self.above.prompt_tokens:
            # The prompt may be shorter than that, so both prices are possible.
            return max(most, self.above.most(prompt, completion))
        return most

    def at_discount(self, discount: Decimal) -> BandPrice:
        """Return the same price with a discount taken off."""
        above = None if self.above is None else self.above.at_discount(discount)
        prices = self._discounted(discount)
        return BandPrice.model_validate({**prices, "above": above})


class ReducedPrice(Settings):
    """The price of a band below `online`: a discount on the online price, or a price of its own."""

    discount: Annotated[Decimal, Field(ge=0, lt=1)] | None = Field(
        None,
        description="The share that is taken off every price of `price`: 0.5 is half price.",
    )
    price: BandPrice | None = Field(
        None,
        description="USD per million tokens, where no discount describes them.",
    )

    @model_validator(mode="after")
    def _require_one_price(self) -> ReducedPrice:
        """Refuse a band without a price, and one with two."""
        if (self.discount is None) == (self.price is None):
            raise ValueError("give either a `discount` or a `price`")
        return self

    def of(self, online: BandPrice) -> BandPrice:
        """Return this band's price, given the online one."""
        if self.price is not None:
            return self.price
        # One of the two is always given.
        return online.at_discount(self.discount or Decimal(0))


class Price(BandPrice):
    """A price with its source and the day it was read there."""

    source: str = Field(description="Where the price was read.")
    date: Annotated[date, Field(description="When it was read there.")]
    flex: ReducedPrice | None = Field(
        None,
        description="The price of the `flex` service tier: the same requests, answered later. It "
        "applies to replies that report this tier.",
    )
