"""Token counts as strange servers write them, and what they may mean at the most."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

_MOST_TOKENS = 80_000  # ten windows: no count above that is believed
_NUMBERS = st.integers(0, 5000)
_VALUES = st.one_of(
    _NUMBERS,
    _NUMBERS.map(float),
    _NUMBERS.map(str),
    _NUMBERS.map(lambda number: number + 0.5),
    st.sampled_from([None, True, False, -1, math.nan, math.inf, 2**70, 1e300, "x", ""]),
    st.just([1]),
    st.just({"a": 1}),
)
_PROMPTS = ("prompt_tokens", "input_tokens", "promptTokenCount")
_ANSWERS = ("completion_tokens", "output_tokens", "candidatesTokenCount")
_TOTALS = ("total_tokens", "totalTokenCount")
USAGE = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys((*_PROMPTS, *_ANSWERS, *_TOTALS), _VALUES),
        "cached_tokens": _VALUES,
        "prompt_tokens_details": st.fixed_dictionaries(
            {}, optional={"cached_tokens": _VALUES}
        )
        | _VALUES,
        "completion_tokens_details": st.fixed_dictionaries(
            {}, optional={"reasoning_tokens": _VALUES}
        )
        | _VALUES,
    },
)


def _number(value: Any) -> int | None:
    """The whole number in a value, by another way than the product's."""
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not 0 <= value <= _MOST_TOKENS or value % 1:
        return None
    return int(value)


def _largest(usage: dict[str, Any], names: tuple[str, ...]) -> int | None:
    numbers = [_number(usage.get(name)) for name in names]
    return max((number for number in numbers if number is not None), default=None)


def _detail(usage: dict[str, Any], section: str, name: str) -> int:
    details = usage.get(section)
    return (_number(details.get(name)) if isinstance(details, dict) else None) or 0


_DETAILS = {
    "prompt_tokens_details": {"cached_tokens"},
    "completion_tokens_details": {"reasoning_tokens"},
}
_NAMES = {*_PROMPTS, *_ANSWERS, *_TOTALS, "cached_tokens", *_DETAILS}


def is_known(usage: Any) -> bool:
    """Whether a usage has only names whose meaning `owed` knows."""
    if not isinstance(usage, dict) or not usage.keys() <= _NAMES:
        return False
    for section, names in _DETAILS.items():
        details = usage.get(section)
        if isinstance(details, dict) and not details.keys() <= names:
            return False
    return not any(
        isinstance(value, dict | list)
        for name, value in usage.items()
        if name not in _DETAILS
    )


def owed(usage: dict[str, Any]) -> Decimal:
    """The most that a usage may mean, in USD at a price of 1 and 2, cached 0.1, a million."""
    prompt = _largest(usage, _PROMPTS) or None  # no prompt has 0 tokens
    answer = _largest(usage, _ANSWERS)
    total = _largest(usage, _TOTALS) or 0
    thoughts = _detail(usage, "completion_tokens_details", "reasoning_tokens")
    cached = max(
        _detail(usage, "prompt_tokens_details", "cached_tokens"),
        _number(usage.get("cached_tokens")) or 0,
    )
    p = prompt or 0
    a = answer or 0
    readings = [(p, a), (p, max(a, thoughts))]
    if thoughts > a or total == p + a + thoughts:
        readings.append((p, a + thoughts))
    if prompt is not None and total > p:
        readings.append((p, total - p))
    if answer is not None and total > a:
        readings.append((total - a, a))
    costs = []
    for prompt_tokens, answer_tokens in readings:
        discounted = cached if cached <= prompt_tokens else 0
        units = (
            prompt_tokens - discounted + discounted / Decimal(10) + 2 * answer_tokens
        )
        costs.append(units / 1_000_000)
    return max(costs)


# The usage of some providers, as they document it.
DOCUMENTED: tuple[dict[str, Any], ...] = (
    {
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "total_tokens": 3110,
            "prompt_tokens_details": {"cached_tokens": 64},
            "completion_tokens_details": {"reasoning_tokens": 3000},
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
            "cached_tokens": 64,
        }
    },
    {
        "usage": {
            "input_tokens": 26,
            "cache_read_input_tokens": 900,
            "cache_creation_input_tokens": 74,
            "output_tokens": 9,
        }
    },
    {
        "usage": {
            "inputTokens": 26,
            "cacheReadInputTokens": 900,
            "cacheWriteInputTokens": 74,
            "outputTokens": 9,
            "totalTokens": 1009,
        }
    },
    {
        "usageMetadata": {
            "promptTokenCount": 100,
            "candidatesTokenCount": 10,
            "thoughtsTokenCount": 3000,
            "toolUsePromptTokenCount": 40,
            "cachedContentTokenCount": 64,
            "totalTokenCount": 3150,
        }
    },
    {
        "usage": {
            "billed_units": {"input_tokens": 90, "output_tokens": 9},
            "tokens": {"input_tokens": 120, "output_tokens": 9},
        }
    },
    {"prompt_eval_count": 120, "eval_count": 9},
)
