"""Prompt caching: whether the beginning that calls share is worth a provider's prompt cache.

A provider that caches prompts charges `cached_input` for the tokens that it read from its cache.
Some charge more than `input` for the tokens that they write to it (`cache_write`). With P tokens of
common beginning, a write costs P x (cache_write - input) more than no caching, and each call that
reads it costs P x (input - cached_input) less. So a write pays from this many reads on:

    break-even = (cache_write - input) / (input - cached_input)

For an input price of 2.00, a write at 2.50 and a read at 0.10 USD, that is 0.5 / 1.9 = 0.26 reads:
one further call pays for the write. P cancels out.
"""

from __future__ import annotations

from decimal import Decimal

from tierwise.policy.catalog import Model
from tierwise.policy.prices import PriceBand

# Providers keep a beginning for five minutes after its last use.
LIFETIME_S = 300.0
# Shorter beginnings are cached by no provider.
_LEAST_TOKENS = 1024
# LiteLLM's prefixes of providers that cache only what a request marks with `cache_control`.
_MARKING_PROVIDERS = frozenset({"anthropic"})
# Parameters by which a catalog entry places the marks itself.
_OWN_MARKS = ("cache_control", "cache_control_injection_points")


def break_even_reads(price: PriceBand) -> Decimal | None:
    """Return how many reads pay for one write to the cache; None where no number does."""
    if price.cached_input is None or price.cached_input >= price.input:
        return None
    write = price.input if price.cache_write is None else price.cache_write
    surcharge = max(Decimal(0), write - price.input)
    return surcharge / (price.input - price.cached_input)


def is_cached(model: Model, tokens: int) -> bool:
    """Return True if the model's provider charges less for a repeated beginning of N tokens."""
    if model.price == "unknown" or tokens < _LEAST_TOKENS:
        return False
    return break_even_reads(model.price) is not None


def needs_mark(model: Model) -> bool:
    """Return True if the provider caches only what requests mark, and the entry marks nothing."""
    params = model.litellm_params
    provider = str(params.get("model")).partition("/")[0]
    has_own_marks = any(name in params for name in _OWN_MARKS)
    return provider in _MARKING_PROVIDERS and not has_own_marks


def write_pays(model: Model, tokens: int, expected_reads: int) -> bool:
    """Return True if this many expected reads of a beginning pay for writing it to the cache."""
    if model.price == "unknown" or not is_cached(model, tokens):
        return False
    least = break_even_reads(model.price)
    return least is not None and expected_reads > 0 and expected_reads >= least
