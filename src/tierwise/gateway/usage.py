"""The token counts in a response's body, whichever provider wrote them and on whichever lane.

Providers count in different words, and not all count the same things: some leave the tokens of
thinking out of the answer's, and some leave cached tokens out of the prompt's. A count is read
where it has a known name. Where counts contradict each other, there are several readings. The one
that costs most is used, and its `Usage.unclear` says what is unclear. To add a provider, add its
names to the sets below.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from tierwise.policy.catalog import Model
from tierwise.records import Call, Usage
from tierwise.text.tokens import estimate_prompt_tokens

# Where a body has its usage: OpenAI and most others, Gemini, Cohere, Groq, Moonshot. Ollama's and
# llama.cpp's own formats have it at the top of the body.
_SECTIONS = ("usage", "usageMetadata", "usage_metadata", "meta", "x_groq")
# The names of each count, in lower case and without underscores.
_PROMPT = frozenset(
    {
        "prompttokens",
        "inputtokens",
        "prompttokencount",
        "inputtokencount",
        "promptevalcount",
    }
)
_ANSWER = frozenset(
    {
        "completiontokens",
        "outputtokens",
        "completiontokencount",
        "outputtokencount",
        "candidatestokencount",
        "responsetokencount",
        "evalcount",
        "generatedtokens",
        "generatedtokencount",
    }
)
_TOTAL = frozenset({"totaltokens", "totaltokencount"})
# Tokens of thinking that are a part of the answer's, for OpenAI, or come on top, for xAI.
_THOUGHTS = frozenset({"reasoningtokens", "reasoningtokencount", "thinkingtokens"})
# Tokens of thinking that always come on top.
_THOUGHTS_ON_TOP = frozenset({"thoughtstokencount"})
# Cached tokens that are a part of the prompt's.
_CACHED = frozenset(
    {
        "cachedtokens",
        "cachedprompttokens",
        "cachedcontenttokencount",
        "promptcachehittokens",
        "cachedprompttexttokens",
    }
)
_NOT_CACHED = frozenset({"promptcachemisstokens"})
# Cached tokens that come on top of the prompt's, and those that are written to the cache now.
_CACHE_READ = frozenset({"cachereadinputtokens", "cachereadinputtokencount"})
_CACHE_WRITTEN = frozenset(
    {
        "cachecreationinputtokens",
        "cachewriteinputtokens",
        "cachewriteinputtokencount",
    }
)
# Written tokens that are a part of the prompt's.
_WRITTEN_IN_PROMPT = frozenset({"cachewritetokens", "cachecreationtokens"})
# The written tokens by their lifetime in the cache.
_WRITTEN_5M = frozenset({"ephemeral5minputtokens"})
_WRITTEN_1H = frozenset({"ephemeral1hinputtokens"})
# Bedrock has a list of these, each with a `ttl`, in place of a name for each lifetime.
_BY_LIFETIME = {"5m": "ephemeral_5m_input_tokens", "1h": "ephemeral_1h_input_tokens"}
# Prompt tokens that come on top of the prompt's.
_PROMPT_ON_TOP = frozenset({"tooluseprompttokencount"})
# The names at the top of a body that are not ambiguous there.
_AT_THE_TOP = frozenset({"promptevalcount", "evalcount"})
_KNOWN = frozenset().union(
    _PROMPT,
    _ANSWER,
    _TOTAL,
    _THOUGHTS,
    _THOUGHTS_ON_TOP,
    _CACHED,
    _NOT_CACHED,
    _CACHE_READ,
    _CACHE_WRITTEN,
    _WRITTEN_IN_PROMPT,
    _WRITTEN_5M,
    _WRITTEN_1H,
    _PROMPT_ON_TOP,
)
# A count above this multiple of the context window is not believed. It is well above 1, since the
# catalog may state the window too small.
_IMPLAUSIBLE_WINDOWS = 10
_LARGEST_PLAIN = 2**53
_DEEPEST = 4  # dictionaries in dictionaries
_LONGEST_NUMBER = 40  # characters


@dataclass(frozen=True, slots=True)
class _Counts:
    """The counts of one response by their meaning. None: there was none that could be read."""

    prompt: int | None
    answer: int | None
    total: int | None
    thoughts: int
    thoughts_on_top: int
    cached: int
    cache_read: int
    cache_written: int
    written_in_prompt: int
    written_5m: int
    written_1h: int
    prompt_on_top: int
    prompt_includes_cache: bool  # by the name of the prompt's count
    unreadable: tuple[str, ...]


def read_usage(
    body: Mapping[str, Any], model: Model, call: Call, *, answered: bool
) -> Usage | None:
    """Return the usage that a body reports; None when it is unknown.

    `answered`: the body has an answer, so that an answer of no tokens is no count. A usage that
    lacks a part is unknown too, unless the other part alone exceeds what was reserved for it.
    """
    counts = _read_counts(body, model)
    readings = _readings(counts)
    if not readings:
        return None
    dearest = max(readings, key=lambda usage: _cost(model, usage))
    misses_prompt = not dearest.prompt_tokens
    misses_answer = answered and not dearest.completion_tokens
    if not misses_prompt and not misses_answer:
        return dearest
    return _completed(dearest, model, call)


def mentions_usage(body: Mapping[str, Any]) -> bool:
    """Return True if a body reports any tokens, even in a count that cannot be read."""
    return any(_count(value) != 0 for _, value in _named_values(body))


def thinking_tokens(body: Mapping[str, Any], model: Model) -> int | None:
    """Return the tokens of thinking that a body reports; None when it reports none."""
    counts = _read_counts(body, model)
    return counts.thoughts + counts.thoughts_on_top or None


def _completed(usage: Usage, model: Model, call: Call) -> Usage | None:
    """Return a usage without prompt or answer with the most that the missing part may have.

    None where that is not needed: an unknown usage costs what was reserved, and that is enough.
    """
    most_prompt = estimate_prompt_tokens(call.messages, model.token_margin)
    prompt = usage.prompt_tokens
    answer = usage.completion_tokens
    if prompt <= most_prompt and answer <= call.max_tokens:
        return None
    missing = "answer" if prompt else "prompt"
    unclear = (
        f"the server did not count the {missing}, so this is the most that it may have"
    )
    return replace(
        usage,
        prompt_tokens=max(prompt, most_prompt),
        completion_tokens=max(answer, call.max_tokens),
        cached_tokens=0,
        unclear=unclear,
    )


def with_plain_counts(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body whose usage has whole numbers only, for a reader that takes no others.

    It is for LiteLLM, whose reading of the usage is not used.
    """
    plain = dict(body)
    for section in _SECTIONS:
        if section in plain:
            usage = plain[section]
            plain[section] = _plain(usage) if isinstance(usage, Mapping) else None
    for name, value in body.items():
        if _key(name) in _AT_THE_TOP:
            plain[name] = _count(value) or 0
    return plain


def _plain(usage: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for name, value in usage.items():
        if isinstance(value, Mapping) and _key(name) not in _KNOWN:
            plain[name] = _plain(value)
        elif name.endswith("_details"):
            plain[name] = None  # a list, or what else is no dictionary
        elif value is not None and _is_a_count(name):
            plain[name] = min(_count(value) or 0, _LARGEST_PLAIN)
        else:
            plain[name] = value
    return plain


def _is_a_count(name: str) -> bool:
    return _key(name).endswith(("tokens", "tokencount"))


def _cost(model: Model, usage: Usage) -> tuple[Decimal, int]:
    """Return the order of readings: by cost, and by tokens where those cost nothing."""
    cost = model.cost(usage) or Decimal(0)
    return cost, usage.prompt_tokens + usage.completion_tokens


def _readings(counts: _Counts) -> tuple[Usage, ...]:
    """Return every plausible reading of the counts; none where nothing was counted."""
    has_thoughts = counts.thoughts + counts.thoughts_on_top > 0
    has_sums = (counts.prompt, counts.answer, counts.total) != (None, None, None)
    if not has_sums and not has_thoughts:
        return ()
    doubts = [f"{name} is not a count" for name in counts.unreadable]
    answer = _answer_tokens(counts, doubts)
    prompts = _prompt_readings(counts, answer, doubts)
    _doubt_total(counts, prompts[0].prompt_tokens, answer, doubts)
    unclear = "; ".join(doubts)
    readings: list[Usage] = []
    for usage in prompts:
        readings += _with_total(usage, counts)
    return tuple(replace(usage, unclear=unclear) for usage in readings)


def _with_total(usage: Usage, counts: _Counts) -> tuple[Usage, ...]:
    """Return the readings of a usage beside a total, which may have more tokens, or fewer."""
    prompt = usage.prompt_tokens
    answer = usage.completion_tokens
    total = counts.total
    if total is None:
        return (usage,)
    surplus = total - prompt - answer
    if surplus < 0 and total > answer:
        # A shorter prompt may cost more: its tokens may not have been cached.
        rest = total - answer
        return usage, _with_shorter_prompt(usage, rest)
    if surplus <= 0:
        return (usage,)
    as_answer = replace(usage, completion_tokens=answer + surplus)
    as_prompt = replace(usage, prompt_tokens=prompt + surplus)
    if counts.answer and not counts.prompt:
        return (as_prompt,)
    if counts.prompt and not counts.answer:
        return (as_answer,)
    return as_answer, as_prompt


def _with_shorter_prompt(usage: Usage, prompt: int) -> Usage:
    """Return a usage with fewer tokens of prompt; a cached part that does not fit is left out."""
    cached = usage.cached_tokens
    if cached + usage.cache_write_tokens > prompt:
        cached = 0
    return replace(
        usage,
        prompt_tokens=prompt,
        cached_tokens=cached,
        cache_write_tokens=min(usage.cache_write_tokens, prompt),
        cache_write_1h_tokens=min(usage.cache_write_1h_tokens, prompt),
    )


def _doubt_total(counts: _Counts, prompt: int, answer: int, doubts: list[str]) -> None:
    """Note a total that is not the sum of prompt and answer, where both were counted."""
    total = counts.total
    if total is None or total == prompt + answer:
        return
    if total < prompt + answer:
        relation = "below"
    elif counts.prompt is None or counts.answer is None:
        return  # the missing part is the rest of the total
    else:
        relation = "above"
    doubts.append(
        f"the total of {total:,} tokens is {relation} prompt and answer "
        f"({prompt:,} + {answer:,})"
    )


def _answer_tokens(counts: _Counts, doubts: list[str]) -> int:
    """Return the tokens of the answer with those of thinking."""
    answer = (counts.answer or 0) + counts.thoughts_on_top
    thoughts = counts.thoughts
    if not thoughts:
        return answer
    together = (counts.prompt or 0) + answer + thoughts
    if counts.total == together:
        return answer + thoughts
    if thoughts <= answer:
        return answer
    doubts.append(
        f"more tokens of thinking than of the answer ({thoughts:,} and {answer:,})"
    )
    return answer + thoughts


def _prompt_readings(
    counts: _Counts, answer: int, doubts: list[str]
) -> tuple[Usage, ...]:
    """Return the readings of the prompt and its cached tokens, before a look at the total."""
    prompt = counts.prompt or 0
    by_lifetime = counts.written_5m + counts.written_1h
    written_on_top = counts.cache_written
    if not counts.written_in_prompt:
        # Some servers name the lifetimes alone.
        written_on_top = max(written_on_top, by_lifetime)
    on_top = counts.cache_read + written_on_top
    cached = max(counts.cached, counts.cache_read)
    includes_cache = (
        counts.prompt_includes_cache
        and on_top <= prompt
        and counts.total == prompt + answer
    )
    if on_top and not includes_cache:
        with_cache = prompt + on_top
        agrees = counts.total == with_cache + answer
        is_ambiguous = counts.prompt_includes_cache or counts.total is not None
        if is_ambiguous and not agrees:
            doubts.append("cached tokens may be a part of the prompt's or come on top")
        prompt = with_cache
    prompt += counts.prompt_on_top
    usages = [
        Usage(prompt, answer, cached, written, written_1h)
        for written, written_1h in _written_readings(counts, doubts)
    ]
    most_in_cache = cached + max(usage.cache_write_tokens for usage in usages)
    if most_in_cache > prompt:
        doubts.append(
            "more tokens read from the cache and written to it than the prompt has "
            f"({most_in_cache:,} and {prompt:,})"
        )
    readings: list[Usage] = []
    for usage in usages:
        readings += _with_cache_that_fits(usage)
    return tuple(readings)


def _written_readings(
    counts: _Counts, doubts: list[str]
) -> tuple[tuple[int, int], ...]:
    """Return the readings of the tokens written to the cache: all, and those kept for an hour."""
    written = max(counts.cache_written, counts.written_in_prompt)
    hour = counts.written_1h
    by_lifetime = counts.written_5m + hour
    if not by_lifetime or by_lifetime == written:
        return ((written, hour),)
    if not written:
        return ((by_lifetime, hour),)
    doubts.append(
        f"{written:,} tokens were written to the cache, {by_lifetime:,} by their lifetimes"
    )
    if by_lifetime > written:
        return (written, min(hour, written)), (by_lifetime, hour)
    # The others may be kept as long as the cheaper or as the more expensive ones.
    return (written, hour), (written, written - counts.written_5m)


def _with_cache_that_fits(usage: Usage) -> tuple[Usage, ...]:
    """Return the readings of a usage whose cached and written tokens exceed the prompt."""
    prompt = usage.prompt_tokens
    written = usage.cache_write_tokens
    if usage.cached_tokens + written <= prompt:
        return (usage,)
    # No discount for what cannot be: the cached tokens come on top, at the full price, or are not
    # there.
    within = replace(
        usage,
        cached_tokens=0,
        cache_write_tokens=min(written, prompt),
        cache_write_1h_tokens=min(usage.cache_write_1h_tokens, prompt),
    )
    on_top = prompt + usage.cached_tokens
    if written > prompt:
        on_top += written
    return within, replace(usage, prompt_tokens=on_top, cached_tokens=0)


def _read_counts(body: Mapping[str, Any], model: Model) -> _Counts:
    """Return the largest plausible count for each meaning."""
    most = _IMPLAUSIBLE_WINDOWS * model.context_tokens
    found: dict[str, int] = {}
    unreadable: list[str] = []
    for name, value in _named_values(body):
        count = _count(value)
        if count is None or count > most:
            if name not in unreadable:
                unreadable.append(name)
            continue
        key = _key(name)
        found[key] = max(count, found.get(key, 0))
    prompt = _largest(found, _PROMPT)
    cached = _largest(found, _CACHED) or 0
    not_cached = _largest(found, _NOT_CACHED)
    if not_cached is not None:
        prompt = max(prompt or 0, cached + not_cached)
    return _Counts(
        prompt=prompt,
        answer=_largest(found, _ANSWER),
        total=_largest(found, _TOTAL) or None,  # 0 where a server does not sum
        thoughts=_largest(found, _THOUGHTS) or 0,
        thoughts_on_top=_largest(found, _THOUGHTS_ON_TOP) or 0,
        cached=cached,
        cache_read=_largest(found, _CACHE_READ) or 0,
        cache_written=_largest(found, _CACHE_WRITTEN) or 0,
        written_in_prompt=_largest(found, _WRITTEN_IN_PROMPT) or 0,
        written_5m=_largest(found, _WRITTEN_5M) or 0,
        written_1h=_largest(found, _WRITTEN_1H) or 0,
        prompt_on_top=_largest(found, _PROMPT_ON_TOP) or 0,
        prompt_includes_cache="prompttokens" in found,
        unreadable=tuple(unreadable),
    )


def _largest(found: Mapping[str, int], names: frozenset[str]) -> int | None:
    counts = [count for name, count in found.items() if name in names]
    return max(counts, default=None)


def _named_values(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the known names in a body's usage, wherever it is, with their values.

    A null is as good as no value.
    """
    for name, value in body.items():
        if value is not None and _key(name) in _AT_THE_TOP:
            yield name, value
    for section in _SECTIONS:
        yield from _values_below(body.get(section), _DEEPEST)
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        yield from _values_below(choices[0].get("usage"), _DEEPEST)


def _values_below(value: Any, depth: int) -> Iterator[tuple[str, Any]]:
    if depth == 0:
        return
    if isinstance(value, list):
        for item in value:
            yield from _values_below(item, depth - 1)
    if not isinstance(value, Mapping):
        return
    lifetime = _BY_LIFETIME.get(str(value.get("ttl")))
    if lifetime is not None:
        count = value.get("inputTokens")
        if count is not None:
            yield lifetime, count
        return
    for name, inner in value.items():
        if isinstance(inner, Mapping | list):
            yield from _values_below(inner, depth - 1)
        elif inner is not None and _key(name) in _KNOWN:
            yield name, inner


def _key(name: str) -> str:
    return name.replace("_", "").lower()


def _count(value: Any) -> int | None:
    """Return a whole number of tokens; None for all else, a fraction too.

    120.0 and "120" are 120: some servers count in floats or in texts.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        value = _number_in(value)
    if isinstance(value, float | Decimal):
        if not math.isfinite(value) or value != int(value):
            return None
        value = int(value)
    if not isinstance(value, int) or value < 0:
        return None
    return value


def _number_in(text: str) -> Decimal | None:
    if len(text) > _LONGEST_NUMBER:
        return None
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    # Else `1e999999` would become a number of a million digits.
    return number if abs(number.adjusted()) < _LONGEST_NUMBER else None
