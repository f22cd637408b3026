"""Token counts as servers write them: the largest plausible reading counts, and doubt is kept."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.kit.calls import BOTH_LANES, CALL, ask, catalog_at
from tests.kit.standin import Fault, Standin, status
from tierwise.errors import CallError
from tierwise.gateway.usage import read_usage
from tierwise.policy.catalog import Model
from tierwise.records import Usage
from tierwise.text.tokens import estimate_prompt_tokens

MODEL = Model.model_validate(
    {
        "name": "m",
        "tier": "t",
        "litellm_params": {"model": "openai/m"},
        "context_tokens": 8000,
        "max_output_tokens": 500,
        "strength": 1,
        "price": {
            "input": 1,
            "output": 2,
            "cached_input": "0.1",
            "cache_write": "1.25",
            "cache_write_1h": 2,
            "source": "a test",
            "date": "2026-11-01",
        },
    }
)


def read(body: dict[str, Any], model: Model = MODEL) -> Usage | None:
    return read_usage(body, model, CALL, answered=True)


def openai(prompt: Any, answer: Any, total: Any = None, **more: Any) -> dict[str, Any]:
    usage = {"prompt_tokens": prompt, "completion_tokens": answer, **more}
    if total is not None:
        usage["total_tokens"] = total
    return {"usage": usage}


# Bodies as providers document them: (prompt, answer, cached), without any doubt.
DOCUMENTED: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "OpenAI": (
        openai(
            100,
            3010,
            3110,
            prompt_tokens_details={"cached_tokens": 64, "audio_tokens": 0},
            completion_tokens_details={
                "reasoning_tokens": 3000,
                "accepted_prediction_tokens": 0,
            },
        ),
        (100, 3010, 64),
    ),
    "OpenAI Responses": (
        {
            "usage": {
                "input_tokens": 1000,
                "input_tokens_details": {"cached_tokens": 900},
                "output_tokens": 510,
                "output_tokens_details": {"reasoning_tokens": 500},
                "total_tokens": 1510,
            }
        },
        (1000, 510, 900),
    ),
    "Anthropic": (
        {
            "usage": {
                "input_tokens": 26,
                "cache_read_input_tokens": 900,
                "cache_creation_input_tokens": 74,
                "cache_creation": {"ephemeral_5m_input_tokens": 74},
                "output_tokens": 9,
                "service_tier": "standard",
            }
        },
        (1000, 9, 900, 74),
    ),
    "Anthropic, written for two lifetimes": (
        {
            "usage": {
                "input_tokens": 26,
                "cache_read_input_tokens": 0,
                "cache_creation_input_tokens": 974,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 900,
                    "ephemeral_1h_input_tokens": 74,
                },
                "output_tokens": 9,
            }
        },
        (1000, 9, 0, 974, 74),
    ),
    "a gateway that names only the lifetimes": (
        {
            "usage": {
                "input_tokens": 26,
                "cache_creation": {"ephemeral_1h_input_tokens": 974},
                "output_tokens": 9,
            }
        },
        (1000, 9, 0, 974, 974),
    ),
    "OpenAI, written to the cache": (
        openai(
            1000,
            9,
            1009,
            prompt_tokens_details={"cached_tokens": 200, "cache_write_tokens": 700},
        ),
        (1000, 9, 200, 700),
    ),
    "OpenAI Responses, written to the cache": (
        {
            "usage": {
                "input_tokens": 1000,
                "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 900},
                "output_tokens": 9,
                "total_tokens": 1009,
            }
        },
        (1000, 9, 0, 900),
    ),
    "Bedrock": (
        {
            "usage": {
                "inputTokens": 26,
                "cacheReadInputTokens": 900,
                "cacheWriteInputTokens": 74,
                "outputTokens": 9,
                "totalTokens": 1009,
            }
        },
        (1000, 9, 900, 74),
    ),
    "Bedrock, written for two lifetimes": (
        {
            "usage": {
                "inputTokens": 26,
                "cacheReadInputTokens": 0,
                "cacheWriteInputTokens": 974,
                "cacheDetails": [
                    {"ttl": "1h", "inputTokens": 900},
                    {"ttl": "5m", "inputTokens": 74},
                ],
                "outputTokens": 9,
                "totalTokens": 1009,
            }
        },
        (1000, 9, 0, 974, 900),
    ),
    "Gemini": (
        {
            "usageMetadata": {
                "promptTokenCount": 100,
                "candidatesTokenCount": 10,
                "thoughtsTokenCount": 3000,
                "toolUsePromptTokenCount": 40,
                "cachedContentTokenCount": 64,
                "totalTokenCount": 3150,
                "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}],
            }
        },
        (140, 3010, 64),
    ),
    "Gemini without a total": (
        {
            "usageMetadata": {
                "promptTokenCount": 100,
                "candidatesTokenCount": 10,
                "thoughtsTokenCount": 30,
            }
        },
        (100, 40, 0),
    ),
    "xAI": (
        openai(100, 10, 3110, completion_tokens_details={"reasoning_tokens": 3000}),
        (100, 3010, 0),
    ),
    "xAI with few thoughts": (
        openai(100, 10, 115, completion_tokens_details={"reasoning_tokens": 5}),
        (100, 15, 0),
    ),
    "DeepSeek": (
        openai(
            1000, 10, 1010, prompt_cache_hit_tokens=900, prompt_cache_miss_tokens=100
        ),
        (1000, 10, 900),
    ),
    "Moonshot": (openai(1000, 10, 1010, cached_tokens=900), (1000, 10, 900)),
    "Mistral": (openai(90, 4, 94), (90, 4, 0)),
    "a LiteLLM proxy before Anthropic": (
        openai(
            1000,
            9,
            1009,
            cache_read_input_tokens=900,
            cache_creation_input_tokens=74,
            prompt_tokens_details={"cached_tokens": 900},
        ),
        (1000, 9, 900, 74),
    ),
    "Cohere": (
        {
            "usage": {
                "billed_units": {"input_tokens": 90, "output_tokens": 9},
                "tokens": {"input_tokens": 120, "output_tokens": 9},
            }
        },
        (120, 9, 0),
    ),
    "Cohere, version 1": (
        {"meta": {"tokens": {"input_tokens": 120, "output_tokens": 9}}},
        (120, 9, 0),
    ),
    "Ollama": (
        {"prompt_eval_count": 120, "eval_count": 9, "eval_duration": 10**12},
        (120, 9, 0),
    ),
    "a total of 0": (openai(120, 9, 0), (120, 9, 0)),
    "floats": (openai(120.0, 9.0, 129.0), (120, 9, 0)),
    "texts": (openai("120", "9", "129"), (120, 9, 0)),
    "texts of floats": (openai("120.0", " 9 ", "1.29e2"), (120, 9, 0)),
    "null details": (
        openai(120, 9, 129, prompt_tokens_details=None, completion_tokens_details=None),
        (120, 9, 0),
    ),
    "a list of details": (
        openai(1000, 10, 1010, prompt_tokens_details=[{"tokenCount": 1000}]),
        (1000, 10, 0),
    ),
    "details in details": (
        openai(120, 9, 129, prompt_tokens_details={"inner": {"cached_tokens": 64}}),
        (120, 9, 64),
    ),
    "no answer's count": (openai(120, None, 129), (120, 9, 0)),
    "no prompt's count": (openai(None, 9, 129), (120, 9, 0)),
    "a usage in a choice": (
        {"choices": [{"usage": {"prompt_tokens": 120, "completion_tokens": 9}}]},
        (120, 9, 0),
    ),
}


@pytest.mark.parametrize("provider", DOCUMENTED)
def test_what_providers_document_is_read_without_doubt(provider: str) -> None:
    body, counts = DOCUMENTED[provider]
    usage = read(body)
    assert usage == Usage(*counts)
    assert usage.unclear == ""


# Bodies that contradict themselves, and the reading that costs most.
UNCLEAR: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "thoughts in the total alone": (openai(100, 10, 3110), (100, 3010, 0)),
    "more thoughts than answer": (
        openai(100, 10, completion_tokens_details={"reasoning_tokens": 3000}),
        (100, 3010, 0),
    ),
    "more thoughts than the total has": (
        openai(100, 10, 110, reasoning_tokens=3000),
        (100, 3010, 0),
    ),
    "a total that is too small": (openai(100, 10, 50), (100, 10, 0)),
    "a total that is no number": (openai(100, 10, "many"), (100, 10, 0)),
    "a negative count of cached tokens": (
        openai(100, 10, 110, prompt_tokens_details={"cached_tokens": -5}),
        (100, 10, 0),
    ),
    "more cached tokens than the prompt has": (
        openai(100, 10, cached_tokens=900),
        (1000, 10, 0),
    ),
    "cached tokens on top, or thoughts": (
        openai(100, 10, 1010, cached_tokens=900),
        (100, 910, 0),
    ),
    "cached tokens that may come on top": (
        openai(1000, 10, cache_read_input_tokens=900),
        (1900, 10, 900),
    ),
    "Anthropic's counts with a total without the cache": (
        {
            "usage": {
                "input_tokens": 1000,
                "output_tokens": 10,
                "cache_read_input_tokens": 900,
                "total_tokens": 1010,
            }
        },
        (1900, 10, 900),
    ),
    "more written to the cache than the prompt has": (
        openai(100, 10, prompt_tokens_details={"cache_write_tokens": 900}),
        (1000, 10, 0, 900),
    ),
    "more read from the cache and written to it than the prompt has": (
        openai(
            100,
            10,
            prompt_tokens_details={"cached_tokens": 60, "cache_write_tokens": 60},
        ),
        (160, 10, 0, 60),
    ),
    "lifetimes that lack a part of what was written": (
        {
            "usage": {
                "input_tokens": 26,
                "cache_creation_input_tokens": 974,
                "cache_creation": {"ephemeral_5m_input_tokens": 900},
                "output_tokens": 9,
            }
        },
        (1000, 9, 0, 974, 74),
    ),
    "lifetimes with more than what was written": (
        {
            "usage": {
                "input_tokens": 26,
                "cache_creation_input_tokens": 74,
                "cache_creation": {"ephemeral_1h_input_tokens": 974},
                "output_tokens": 9,
            }
        },
        (1000, 9, 0, 974, 974),
    ),
    "a fraction beside a total": (openai(120, 9.5, 129), (120, 9, 0)),
    "an answer of no tokens, and a larger total": (openai(120, 0, 129), (120, 9, 0)),
    "an answer longer than was allowed, and no prompt": (
        openai(None, 3010),
        (estimate_prompt_tokens(CALL.messages, MODEL.token_margin), 3010, 0),
    ),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_counts_that_contradict_each_other_are_read_at_their_largest(case: str) -> None:
    body, counts = UNCLEAR[case]
    usage = read(body)
    assert usage == Usage(*counts)
    assert usage.unclear


UNKNOWN = {
    "nothing": {},
    "null": {"usage": None},
    "a list": {"usage": [1, 2]},
    "a text": {"usage": "120 tokens"},
    "zeros": openai(0, 0, 0),
    "nulls": openai(None, None),
    "fractions": openai(120.5, 9.5),
    "a fractional prompt": openai(120.5, 9),
    "booleans": openai(True, True, True),
    "negative": openai(-120, -9, -129),
    "not a number": openai(math.nan, math.nan, math.nan),
    "infinite": openai(math.inf, -math.inf, math.inf),
    "beyond 64 bits": openai(2**70, 2**70, 2**71),
    "a text of a million digits": openai("1e999999", "9" * 5000),
    "dictionaries": openai({"a": 1}, {"a": 1}),
    "no answer's count, and no total": openai(20, None),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_is_no_count_is_unknown(case: str) -> None:
    assert read(UNKNOWN[case]) is None


def test_the_reading_that_costs_most_depends_on_the_price() -> None:
    dear_prompt = MODEL.model_copy(
        update={"price": MODEL.price.model_copy(update={"output": Decimal(0)})}  # type: ignore[union-attr]
    )
    body = openai(100, 10, 3110)
    assert read(body) == Usage(100, 3010)
    assert read(body, dear_prompt) == Usage(3100, 10)


# All that can be sent as JSON.
SENT = [case for case in UNKNOWN if case not in ("nothing", "not a number", "infinite")]
FORMATS = ["xAI", "DeepSeek", "Moonshot", "OpenAI, written to the cache"]
FAR = ["texts", "floats", "a list of details", "details in details", "null details"]


@BOTH_LANES
@pytest.mark.parametrize(
    "usage",
    [
        *(DOCUMENTED[case] for case in [*FAR, *FORMATS]),
        *(UNCLEAR[case] for case in ("thoughts in the total alone",)),
    ],
    ids=str,
)
def test_both_lanes_read_the_same(
    standin: Standin, name: str, usage: tuple[dict[str, Any], tuple[int, ...]]
) -> None:
    body, counts = usage
    standin.faults([Fault(usage={"total_tokens": None, **body["usage"]})])
    [reply] = ask(catalog_at(standin.url), replace(CALL, model=name))
    assert reply.usage == Usage(*counts)


def with_usage(usage: Any, text: str = "billing") -> Fault:
    """A good reply in OpenAI's format with exactly this usage."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = {"id": "x", "model": "m", "object": "chat.completion", "choices": [choice]}
    return Fault(body=json.dumps({**body, "usage": usage}).encode())


@BOTH_LANES
@pytest.mark.parametrize("case", SENT)
def test_no_lane_loses_an_answer_for_a_usage_that_is_none(
    standin: Standin, name: str, case: str
) -> None:
    standin.faults([with_usage(UNKNOWN[case]["usage"])])
    [reply] = ask(catalog_at(standin.url), replace(CALL, model=name))
    assert reply.text == "billing"
    assert reply.usage is None


@pytest.mark.parametrize("name", ["gemini", "anthropic"])
def test_other_formats_are_read_as_their_providers_wrote_them(
    standin: Standin, name: str
) -> None:
    usage = {
        "gemini": {"promptTokenCount": "100", "thoughtsTokenCount": 3000.0},
        "anthropic": {
            "input_tokens": "26",
            "cache_read_input_tokens": 74.0,
            "cache_creation_input_tokens": "50",
            "cache_creation": {
                "ephemeral_5m_input_tokens": 20.0,
                "ephemeral_1h_input_tokens": "30",
            },
        },
    }[name]
    standin.answer("x" * 15)
    standin.faults([Fault(usage={"totalTokenCount": None, **usage})])
    [reply] = ask(catalog_at(standin.url), replace(CALL, model=name))
    expected = {"gemini": Usage(100, 3004), "anthropic": Usage(150, 4, 74, 50, 30)}
    assert reply.usage == expected[name]


@BOTH_LANES
@pytest.mark.parametrize("code", [400, 500])
def test_an_error_with_a_usage_says_what_it_cost(
    standin: Standin, name: str, code: int
) -> None:
    fault = status(code, "no answer in this form")
    body = (
        fault.body[:-1]
        + b', "usage": {"prompt_tokens": 100.0, "completion_tokens": 10}}'
    )
    standin.faults([replace(fault, body=body)])
    with pytest.raises(CallError) as caught:
        ask(catalog_at(standin.url), replace(CALL, model=name))
    assert caught.value.usage == Usage(100, 10)
