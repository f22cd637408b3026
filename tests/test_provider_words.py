"""What a provider's error says: its body in any form, the wait that it asks for, an empty account."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.calls import CALL, ask, catalog_at
from tests.kit.standin import Fault, Standin
from tierwise import errors
from tierwise.errors import CallError
from tierwise.gateway.error_body import error_in_body, words_of_error
from tierwise.gateway.http_exchange import HttpExchange
from tierwise.gateway.provider_errors import diagnose, kind_by_status
from tierwise.gateway.retry_hints import LONGEST_HINT_S, retry_hint

BOTH_LANES = pytest.mark.parametrize("model", ["openai", "openai-litellm"])
RETRY_INFO = {
    "@type": "type.googleapis.com/google.rpc.RetryInfo",
    "retryDelay": "57s",
}
QUOTA = "You exceeded your current quota, please check your plan and billing details."


def answer(code: int, body: object, **headers: str) -> Fault:
    """A reply with any status, body and headers."""
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(status=code, headers=named, body=content)


def openai(message: str, code: object = None, kind: object = None) -> dict[str, Any]:
    """An error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "code": code}}


def gemini(message: str, *details: dict[str, Any]) -> list[dict[str, Any]]:
    """An error in the form of Gemini's OpenAI endpoint: an array."""
    error = {
        "code": 429,
        "message": message,
        "status": "RESOURCE_EXHAUSTED",
        "details": list(details),
    }
    return [{"error": error}]


def fail(standin: Standin, fault: Fault, model: str = "openai") -> CallError:
    """The error that a reply leads to."""
    standin.faults([fault])
    with pytest.raises(CallError) as caught:
        ask(catalog_at(standin.url), replace(CALL, model=model))
    return caught.value


# ---- bodies

BODIES = {
    "OpenAI": openai("the words", "c", "t"),
    "Gemini's array": [{"error": {"code": 429, "message": "the words"}}],
    "an array of words": [{"message": "the words"}],
    "a plain text": "the words",
    "a page": "<!DOCTYPE html><html><head><title>the words</title></head><p>x</p></html>",
    "a page without title": "<html><body><h1>the</h1>words</body></html>",
    "detail": {"detail": "the words"},
    "FastAPI's list": {"detail": [{"loc": ["body"], "msg": "the words", "type": "t"}]},
    "message": {"message": "the words"},
    "vLLM of old": {"object": "error", "message": "the words", "code": 400},
    "LM Studio": {"error": "the words"},
    "Anthropic": {"type": "error", "error": {"type": "t", "message": "the words"}},
    "Cloudflare": {"success": False, "errors": [{"code": 1, "message": "the words"}]},
    "MiniMax": {"base_resp": {"status_code": 1002, "status_msg": "the words"}},
    "Tencent": {"Response": {"Error": {"Code": "A.B", "Message": "the words"}}},
    "Baidu": {"error_code": 18, "error_msg": "the words"},
    "JSON in a string": json.dumps(json.dumps(openai("the words"))),
    "JSON in the message": openai(json.dumps(openai("the words"))),
    "with a BOM": "\ufeff" + json.dumps(openai("the words")),
    "with more after it": json.dumps(openai("the words")) + "\n{}",
    "half a character": '{"error": {"message": "the words", "x": "\\ud83d"}}',
    "not a number": '{"error": {"message": "the words", "x": NaN}}',
}


@BOTH_LANES
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_words_of_an_error_are_found_wherever_a_provider_puts_them(
    standin: Standin, model: str, body: object
) -> None:
    error = fail(standin, answer(418, body), model)
    assert type(error) is errors.BadRequest
    assert str(error).endswith(": the words")


def test_the_words_behind_a_gateways_own_words_are_shown_too(standin: Standin) -> None:
    inner = json.dumps(openai("the model is asleep", "sleepy"))
    outer = openai("Provider returned error", 503)
    outer["error"]["metadata"] = {"raw": inner, "provider_name": "x"}
    words = words_of_error(outer)
    assert words.words == "Provider returned error: the model is asleep"
    assert words.status == 503
    assert "sleepy" in words.names


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (openai("slow down", 429), errors.RateLimited),
        (openai("no money", 402), errors.OutOfCredit),
        (openai("bad key", 401), errors.AuthenticationFailed),
        (openai("fell over", 502), errors.BadReply),
        (openai("overloaded", 529), errors.Overloaded),
        (openai("no words for it"), errors.BadReply),
        ([{"error": {"code": 429, "message": "slow down"}}], errors.RateLimited),
        (
            {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
            errors.OutOfCredit,
        ),
        (
            {"choices": [{"error": {"code": 429, "message": "slow down"}}]},
            errors.RateLimited,
        ),
    ],
)
@BOTH_LANES
def test_an_error_inside_a_200_is_what_its_code_says(
    standin: Standin, model: str, body: object, kind: type[CallError]
) -> None:
    error = fail(standin, answer(200, body), model)
    assert type(error) is kind
    assert "an error in a 200" in str(error)


def test_a_reply_is_no_error() -> None:
    reply = {"choices": [{"message": {"content": "x"}}], "error": None, "message": ""}
    for body in (reply, json.dumps(reply), b"", "plain", "[]", "null", None, 5):
        assert error_in_body(body) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "code", "retryDelay"])
            | st.text(),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(body=json_values | st.text() | st.binary())
def test_no_body_makes_the_reader_fail(body: object) -> None:
    for words in (words_of_error(body), error_in_body(body)):
        if words is not None:
            assert words.retry_after is None or (
                0 <= words.retry_after <= LONGEST_HINT_S
            )


def test_a_body_that_nests_without_end_is_given_up() -> None:
    assert words_of_error("[" * 100_000).hints == ()
    deep = '{"error":' * 5000 + "1" + "}" * 5000
    assert error_in_body(deep) is None or words_of_error(deep).words == ""


# ---- waits


def moment(seconds: float) -> float:
    return time.time() + seconds


def iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment(seconds)))


def words(text: str) -> Fault:
    return answer(429, openai(text, "rate_limit_exceeded", "tokens"))


def headers(**named: str) -> Fault:
    return answer(429, openai("slow down"), **named)


# Faults are made when they are sent: some name a moment.
HINTS: dict[str, tuple[Callable[[], Fault], float]] = {
    "seconds": (lambda: headers(retry_after="4"), 4),
    "a fraction": (lambda: headers(retry_after="0.5"), 0.5),
    "none": (lambda: headers(retry_after="0"), 0),
    "a unit": (lambda: headers(retry_after="4s"), 4),
    "sent twice": (lambda: headers(retry_after="2, 3"), 3),
    "an HTTP date": (
        lambda: headers(retry_after=formatdate(moment(40), usegmt=True)),
        40,
    ),
    "an ISO date": (lambda: headers(retry_after=iso(40)), 40),
    "epoch seconds": (lambda: headers(retry_after=str(int(moment(40)))), 40),
    "retry-after-ms": (lambda: headers(retry_after_ms="4000"), 4),
    "x-ms-retry-after-ms": (lambda: headers(x_ms_retry_after_ms="250"), 0.25),
    "the longest": (lambda: headers(retry_after="1", retry_after_ms="1500"), 1.5),
    "an exhausted limit": (
        lambda: headers(
            x_ratelimit_reset_requests="6m0s",
            x_ratelimit_remaining_requests="0",
            x_ratelimit_reset_tokens="20m",
            x_ratelimit_remaining_tokens="17",
        ),
        360,
    ),
    "milliseconds": (
        lambda: headers(
            x_ratelimit_reset_tokens="20ms", x_ratelimit_remaining_tokens="0"
        ),
        0.02,
    ),
    "a limit of unknown rest": (lambda: headers(x_ratelimit_reset_requests="7s"), 7),
    "epoch of a limit": (
        lambda: headers(
            x_ratelimit_reset=str(int(moment(40))), x_ratelimit_remaining="0"
        ),
        40,
    ),
    "epoch milliseconds of a limit": (
        lambda: headers(
            x_ratelimit_reset=str(int(moment(40) * 1000)), x_ratelimit_remaining="0"
        ),
        40,
    ),
    "Anthropic's": (
        lambda: headers(
            anthropic_ratelimit_requests_reset=iso(40),
            anthropic_ratelimit_requests_remaining="0",
            anthropic_ratelimit_tokens_reset=iso(400),
            anthropic_ratelimit_tokens_remaining="9",
        ),
        40,
    ),
    "the draft's": (lambda: headers(ratelimit='"default";r=0;t=30'), 30),
    "RetryInfo": (lambda: answer(429, gemini(QUOTA, RETRY_INFO)), 57),
    "retry_after in the body": (
        lambda: answer(429, {"message": "x", "retry_after": 1.5}),
        1.5,
    ),
    "headers in the body": (
        lambda: answer(
            429,
            {
                "error": {
                    "message": "x",
                    "metadata": {"headers": {"Retry-After": "12"}},
                }
            },
        ),
        12,
    ),
    "words, seconds": (lambda: words("Limit 6000. Please try again in 4.2s."), 4.2),
    "words, minutes": (lambda: words("Please try again in 1m30s. Visit"), 90),
    "words, milliseconds": (lambda: words("Please try again in 250 ms"), 0.25),
    "words in full": (lambda: words("Try again in 2 minutes"), 120),
    "Azure's words": (lambda: words("Please retry after 26 seconds."), 26),
    "Chinese words": (lambda: words("请求过多,请在20秒后重试"), 20),
}


@BOTH_LANES
@pytest.mark.parametrize(("fault", "seconds"), HINTS.values(), ids=HINTS)
def test_the_wait_that_a_server_asks_for_is_read(
    standin: Standin, model: str, fault: Callable[[], Fault], seconds: float
) -> None:
    error = fail(standin, fault(), model)
    assert type(error) is errors.RateLimited
    assert error.retry_after == pytest.approx(seconds, abs=0.05 if seconds < 9 else 5)


def test_a_clock_that_differs_from_the_servers_changes_no_wait() -> None:
    an_hour_ago = time.time() - 3600
    hint = retry_hint(
        {
            "Date": formatdate(an_hour_ago, usegmt=True),
            "Retry-After": formatdate(an_hour_ago + 30, usegmt=True),
        }
    )
    assert hint is not None
    assert (hint.seconds, hint.asked) == (pytest.approx(30, abs=1), None)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("-7", 0), ("31536000", LONGEST_HINT_S), ("1e30", LONGEST_HINT_S)],
)
def test_a_wait_beyond_all_sense_is_bounded_and_said(
    standin: Standin, value: str, seconds: float
) -> None:
    error = fail(standin, headers(retry_after=value))
    assert error.retry_after == seconds
    assert f"asks to wait {float(value):g} s, taken as {seconds:g} s" in str(error)


@pytest.mark.parametrize("value", ["nan", "inf", "soon", "", "9" * 400])
def test_what_is_no_wait_is_none(standin: Standin, value: str) -> None:
    assert fail(standin, headers(retry_after=value)).retry_after is None


class RateLimitError(Exception):
    """As LiteLLM raises it for a provider that it calls with a client of its own."""


@pytest.mark.parametrize(
    ("text", "kind", "seconds"),
    [
        ("litellm.RateLimitError: try again in 7s", errors.RateLimited, 7),
        (
            f"litellm.RateLimitError: VertexAIException - {json.dumps(gemini(QUOTA, RETRY_INFO))}",
            errors.RateLimited,
            57,
        ),
        (
            f"litellm.RateLimitError: XException - {json.dumps(openai(QUOTA))}",
            errors.OutOfCredit,
            None,
        ),
    ],
)
def test_the_words_of_an_error_are_read_from_litellms_own_text_too(
    text: str, kind: type[CallError], seconds: float | None
) -> None:
    model = catalog_at("http://127.0.0.1").models["openai"]
    found = diagnose(RateLimitError(text), model, CALL, HttpExchange(direct=False))
    assert found.kind is kind
    assert (found.hint.seconds if found.hint else None) == seconds


# ---- an empty account

EMPTY = {
    "OpenAI": answer(429, openai(QUOTA, "insufficient_quota", "insufficient_quota")),
    "OpenAI, hard limit": answer(
        400, openai("Billing hard limit has been reached", "billing_hard_limit_reached")
    ),
    "OpenAI, deactivated": answer(401, openai("x", "account_deactivated")),
    "Anthropic": answer(
        400,
        openai("Your credit balance is too low to access the Anthropic API."),
    ),
    "Anthropic, limit": answer(
        400, openai("You have reached your specified API usage limits.")
    ),
    "DeepSeek": answer(402, openai("Insufficient Balance")),
    "OpenRouter": answer(
        402, openai("This request requires more credits, or fewer max_tokens.", 402)
    ),
    "xAI": answer(
        403,
        openai(
            "Your team has either used all available credits or reached its monthly "
            "spending limit.",
            "permission-denied",
        ),
    ),
    "Fireworks": answer(
        412,
        openai(
            "Account x is suspended, possibly due to reaching the monthly spending limit"
        ),
    ),
    "Moonshot": answer(
        429,
        openai(
            "Your account org-x is suspended due to insufficient balance",
            None,
            "exceeded_current_quota_error",
        ),
    ),
    "Zhipu": answer(
        429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}
    ),
    "Gemini, for good": answer(429, gemini(QUOTA)),
    "Gemini, prepaid": answer(429, gemini("Your prepayment credits are depleted.")),
    "DashScope": answer(400, {"code": "Arrearage", "message": "Access denied."}),
    "Volcengine": answer(403, openai("overdue balance", "AccountOverdueError")),
    "words alone": answer(429, "you are out of credits"),
    "payment required": answer(403, {"message": "Payment Required"}),
    "in Chinese": answer(403, {"msg": "账户欠费"}),
    "in German": answer(429, {"detail": "Ihr Guthaben ist aufgebraucht"}),
    "with a wait": answer(
        429, openai(QUOTA, "insufficient_quota"), retry_after="5"
    ),
}  # fmt: skip


@BOTH_LANES
@pytest.mark.parametrize("fault", EMPTY.values(), ids=EMPTY)
def test_an_empty_account_is_a_fault_of_its_own(
    standin: Standin, model: str, fault: Fault
) -> None:
    error = fail(standin, fault, model)
    assert type(error) is errors.OutOfCredit
    place = standin.url.removeprefix("http://")
    assert f"no credit left at {place}: top up, then" in str(error)
    assert "key" not in str(error)


FULL = {
    "Gemini, a minute": (answer(429, gemini(QUOTA, RETRY_INFO)), errors.RateLimited),
    "Gemini, by name": (
        answer(
            429,
            gemini(
                f"{QUOTA} Quota exceeded for metric: requests per minute",
            ),
        ),
        errors.RateLimited,
    ),
    "OpenAI, a minute": (
        words("Rate limit reached for m on tokens per min (TPM): Limit 9, Used 9."),
        errors.RateLimited,
    ),
    "Azure": (
        words(
            "Requests have exceeded call rate limit of your current OpenAI S0 pricing "
            "tier. Please retry after 26 seconds."
        ),
        errors.RateLimited,
    ),
    "OpenRouter, free": (
        words("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000"),
        errors.RateLimited,
    ),
    "a wrong key": (
        answer(401, openai("Incorrect API key provided.")),
        errors.AuthenticationFailed,
    ),
    "a forbidden model": (
        answer(403, openai("Your plan does not include this model.")),
        errors.AuthenticationFailed,
    ),
    "a request that quotes a letter": (
        answer(400, openai(f"cannot read: {CALL.messages[1].content} insufficient balance")),
        errors.BadRequest,
    ),
    "a request that never fits a minute": (
        answer(
            429,
            openai("Request too large for m on tokens per min (TPM): Limit 9, Requested 12."),
        ),
        errors.ContextTooLong,
    ),
    "the same as 413": (
        answer(413, openai("Request too large for model `x`, please reduce your message size")),
        errors.ContextTooLong,
    ),
}  # fmt: skip


@BOTH_LANES
@pytest.mark.parametrize(("fault", "kind"), FULL.values(), ids=FULL)
def test_what_is_not_an_empty_account_is_not_taken_for_one(
    standin: Standin, model: str, fault: Fault, kind: type[CallError]
) -> None:
    assert type(fail(standin, fault, model)) is kind


EMPTY_WORDS = [
    (
        402,
        "Credit limit exceeded, please navigate to https://api.together.ai/settings/billing",
    ),
    (402, "You have insufficient credit to run this model"),
    (402, "You have exceeded your monthly included credits for Inference Providers"),
    (403, "Sorry, your account balance is insufficient"),
    (429, "Your monthly spend limit has been reached"),
    (403, "Key limit exceeded (total limit)"),
    (403, "This API method requires billing to be enabled"),
    (429, "You have run out of credits"),
    (400, "Credit balance too low"),
    (429, "Your credits are exhausted"),
    (429, "Account balance is negative"),
    (403, "Your account is past due"),
    (429, "billing_hard_limit_reached"),
    (429, "Quota exceeded: please upgrade your plan"),
    (429, "You have reached your monthly quota"),
    (403, "账户余额不足"),
    (429, "账号已欠费"),
    (403, "残高が不足しています"),
    (403, "잔액이 부족합니다"),
    (403, "Votre solde est insuffisant"),
    (403, "Saldo insuficiente"),
    (403, "Недостаточно средств на балансе"),
    (403, "Ihr Guthaben reicht nicht aus"),
    (429, "Your prepaid balance has been used up"),
    (402, ""),
    (403, "The account is out of funds"),
    (403, "Your organization has been disabled due to non-payment"),
    (429, "Your team has run out of credits or hit its spending cap"),
    (403, "spending cap reached"),
    (412, "Account suspended"),
    (429, "Insufficient quota"),
    (429, "no remaining balance"),
    (403, "您的额度已用完"),
    (403, "用户额度不足"),
    (401, "Your account has been deactivated"),
    (
        429,
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    (403, "Subscription expired, please renew your payment"),
    (429, "You have consumed all your credits"),
    (403, "Not enough credits"),
    (429, "token quota is not enough"),
]
FULL_WORDS = [
    (429, "Rate limit exceeded"),
    (429, "Too many requests, quota of 60 requests per minute exceeded"),
    (429, "Quota exceeded for quota metric 'Generate Content API requests per minute'"),
    (401, "Incorrect API key provided"),
    (403, "Your plan does not include this model"),
    (403, "You do not have access to this model"),
    (
        429,
        "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day",
    ),
    (
        429,
        "Limit 30000, Used 29000 TPM. Need more tokens? Visit https://console.groq.com/settings/billing",
    ),
    (429, "Concurrency limit reached; upgrade to increase"),
    (400, "max_tokens too large"),
    (403, "Country not supported"),
    (429, "The engine is currently overloaded"),
    (429, "Resource has been exhausted (e.g. check quota)."),
    (400, "thinking budget limit exceeded"),
    (429, "Requests rate limit exceeded, visit billing to raise your limits"),
    (403, "Account not verified"),
    (
        429,
        "Please try again in 2s. Add a payment method to raise your rate limit: example.com/account/billing.",
    ),
]


@pytest.mark.parametrize(("code", "said"), EMPTY_WORDS)
def test_an_empty_account_is_known_by_its_words(code: int, said: str) -> None:
    body = json.dumps(openai(said), ensure_ascii=False)
    assert kind_by_status(code, body) is errors.OutOfCredit


@pytest.mark.parametrize(("code", "said"), FULL_WORDS)
def test_words_about_limits_and_billing_are_no_empty_account(
    code: int, said: str
) -> None:
    body = json.dumps(openai(said), ensure_ascii=False)
    assert kind_by_status(code, body) is not errors.OutOfCredit
