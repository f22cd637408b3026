"""Whatever goes wrong at a provider becomes one of our errors, after exactly one request."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kit import standin as faults
from tests.kit.calls import CALL, DOCUMENT, ENV, OPENAI_FORMAT, ask, catalog_at
from tests.kit.standin import Fault, Standin, status, unused_address
from tierwise import errors
from tierwise.errors import CallError
from tierwise.gateway.error_text import safe_detail
from tierwise.gateway.provider_errors import BY_CLASS, kind_by_status
from tierwise.gateway.retry_hints import LONGEST_HINT_S, retry_hint

FORMATS = ["anthropic", "gemini", *OPENAI_FORMAT]

VLLM_TOO_LONG = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens."
VLLM_TOO_LONG_NOW = (
    "The decoder prompt (length 5000) is longer than the maximum model length of 4096."
)
LLAMA_TOO_LONG = status(
    400,
    "the request exceeds the available context size",
    type="exceed_context_size_error",
)
EVERYWHERE: list[tuple[str, Fault, type[CallError]]] = [
    ("400", status(400), errors.BadRequest),
    ("401", status(401), errors.AuthenticationFailed),
    ("402", status(402), errors.OutOfCredit),
    ("403", status(403), errors.AuthenticationFailed),
    ("404", status(404), errors.ModelGone),
    ("408", status(408), errors.CallTimeout),
    ("409", status(409), errors.BadRequest),
    ("410", status(410), errors.ModelGone),
    ("413", status(413), errors.BadRequest),
    ("422", status(422), errors.BadRequest),
    ("429", status(429), errors.RateLimited),
    (
        "429 for want of money",
        status(429, type="insufficient_quota"),
        errors.OutOfCredit,
    ),
    ("500", status(500), errors.ServerFault),
    ("502", status(502), errors.ServerFault),
    ("503", status(503), errors.Overloaded),
    ("504", status(504), errors.ServerFault),
    ("529", status(529), errors.Overloaded),
    ("500 in HTML", faults.raw("<html>Internal error</html>", 500), errors.ServerFault),
    (
        "vLLM, later: prompt too long",
        status(400, VLLM_TOO_LONG_NOW),
        errors.ContextTooLong,
    ),
    ("vLLM: prompt too long", status(400, VLLM_TOO_LONG), errors.ContextTooLong),
    ("llama.cpp: prompt too long", LLAMA_TOO_LONG, errors.ContextTooLong),
    (
        "413: prompt too long",
        status(413, "prompt is too long: 210000 tokens > 200000"),
        errors.ContextTooLong,
    ),
    (
        "filtered prompt",
        status(400, "no", code="content_filter"),
        errors.ContentRefused,
    ),
    ("filtered answer", faults.CONTENT_FILTER, errors.ContentRefused),
    ("reset", faults.RESET, errors.Unreachable),
    ("reset in the body", faults.RESET_MID_BODY, errors.Unreachable),
    ("not JSON", faults.NOT_JSON, errors.BadReply),
    ("JSON cut short", faults.TRUNCATED_JSON, errors.BadReply),
    ("no body", faults.raw(""), errors.BadReply),
    ("null", faults.raw("null"), errors.BadReply),
    ("a list", faults.raw("[]"), errors.BadReply),
    ("an empty object", faults.raw("{}"), errors.BadReply),
    ("no text", faults.EMPTY, errors.BadReply),
    ("an error in a 200", faults.ERROR_INSIDE, errors.BadReply),
    ("no choices", faults.NO_CHOICES, errors.BadReply),
    ("32 MiB and more", faults.raw(b" " * (32 * 2**20 + 1)), errors.BadReply),
]


def fail(
    standin: Standin, fault: Fault, model: str = "openai", **settings: object
) -> CallError:
    """The error that a fault leads to."""
    standin.faults([fault])
    with pytest.raises(CallError) as caught:
        ask(catalog_at(standin.url, **settings), replace(CALL, model=model))
    return caught.value


@pytest.mark.parametrize("model", FORMATS)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [(f, k) for _, f, k in EVERYWHERE],
    ids=[name for name, *_ in EVERYWHERE],
)
def test_a_fault_is_translated_after_one_request(
    standin: Standin, model: str, fault: Fault, kind: type[CallError]
) -> None:
    """LiteLLM repeats a request that was reset or got a 422; the repetition may be billed too."""
    error = fail(standin, fault, model)
    assert type(error) is kind
    assert error.model == model
    assert standin.count == 1


@pytest.mark.parametrize("model", FORMATS)
@pytest.mark.parametrize(
    "fault",
    [faults.TRICKLE, faults.late(30)],
    ids=["a body that trickles for ever", "silence"],
)
def test_a_timeout_is_for_the_whole_call(
    standin: Standin, model: str, fault: Fault
) -> None:
    error = fail(standin, fault, model, timeout_s=0.25)
    assert type(error) is errors.CallTimeout
    assert "0.25 s" in str(error)
    assert standin.count == 1


@pytest.mark.parametrize("model", FORMATS)
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        (lambda _: unused_address(), "connection refused"),
        (lambda standin: standin.url.replace("http:", "https:"), "TLS failed"),
        (lambda _: "http://no-such-host.invalid", "no such host"),
    ],
    ids=["nobody listens", "no TLS there", "no such name"],
)
def test_a_server_that_cannot_be_reached_is_named_with_the_reason(
    standin: Standin, model: str, address: Callable[[Standin], str], reason: str
) -> None:
    url = address(standin)
    with pytest.raises(errors.Unreachable) as caught:
        ask(catalog_at(url), replace(CALL, model=model))
    assert url.rpartition("/")[2] in str(caught.value)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize("model", FORMATS)
@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_not_followed(standin: Standin, model: str, code: int) -> None:
    """The documents go where the catalog says: a server in the house cannot send them out of it."""
    with Standin() as elsewhere:
        location = {"Location": elsewhere.url + "/v1/chat/completions"}
        error = fail(standin, Fault(status=code, headers=location, body=b""), model)
        assert elsewhere.count == 0
    assert type(error) is errors.ModelGone
    assert "redirect" in str(error)


@pytest.mark.parametrize("model", OPENAI_FORMAT)
def test_a_refusal_is_not_an_answer(standin: Standin, model: str) -> None:
    error = fail(standin, faults.REFUSAL, model)
    assert type(error) is errors.ContentRefused
    assert "the model refused" in str(error)
    assert error.usage is not None, "it was billed"


@pytest.mark.parametrize("model", FORMATS)
def test_an_answer_that_was_cut_off_is_no_error(standin: Standin, model: str) -> None:
    standin.faults([faults.CUT_OFF])
    [reply] = ask(catalog_at(standin.url), replace(CALL, model=model))
    assert reply.finish_reason == "length"
    assert reply.text


@pytest.mark.parametrize("model", OPENAI_FORMAT)
def test_usage_that_is_no_number_is_unknown(standin: Standin, model: str) -> None:
    standin.faults([faults.WRONG_USAGE])
    [reply] = ask(catalog_at(standin.url), replace(CALL, model=model))
    assert reply.text
    assert reply.usage is None


@pytest.mark.parametrize("model", FORMATS)
@pytest.mark.parametrize("code", [429, 503, 529])
def test_the_wait_that_a_server_asks_for_is_passed_on(
    standin: Standin, model: str, code: int
) -> None:
    assert fail(standin, status(code, retry_after=7), model).retry_after == 7.0
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    wait = fail(standin, status(code, retry_after=soon), model).retry_after
    assert wait is not None
    assert 60 < wait <= 100
    assert fail(standin, status(code), model).retry_after is None


@given(value=st.text() | st.floats().map(str) | st.datetimes().map(format_datetime))
def test_a_wait_is_never_negative_or_endless_whatever_the_header_says(
    value: str,
) -> None:
    hint = retry_hint({"retry-after": value})
    assert hint is None or 0 <= hint.seconds <= LONGEST_HINT_S


@given(code=st.integers(300, 999), body=st.text())
def test_every_status_has_its_error(code: int, body: str) -> None:
    assert issubclass(kind_by_status(code, body), CallError)


def test_every_exception_of_litellm_is_mapped() -> None:
    """A new release of LiteLLM that brings a new exception fails here."""
    from litellm import exceptions

    classes = [
        c
        for c in vars(exceptions).values()
        if inspect.isclass(c) and issubclass(c, Exception)
    ]
    assert {c.__name__ for c in classes} == set(BY_CLASS)


@pytest.mark.parametrize("model", FORMATS)
def test_an_error_shows_no_key_and_no_document(standin: Standin, model: str) -> None:
    """Providers quote both, and error texts end up in logs, in the ledger and on the screen."""
    key = ENV["API_KEY"]
    errors_seen = [
        fail(
            standin,
            status(
                401, f"Incorrect API key provided: {key}. Find yours at example.com."
            ),
            model,
        ),
        fail(
            standin,
            status(403, "Bad key sk-other-98765432101234 and Bearer abcdefgh"),
            model,
        ),
        fail(standin, status(400, f"Cannot work with: {DOCUMENT}"), model),
        fail(standin, faults.raw(f"<html>{key} {DOCUMENT}</html>"), model),
        fail(
            standin,
            faults.raw(f'{{"error": {{"message": "{key} {DOCUMENT}"}}}}'),
            model,
        ),
    ]
    for error in errors_seen:
        for secret in (
            key,
            "98765432101234",
            "abcdefgh",
            "invoice",
            "litellm",
            "Traceback",
        ):
            assert secret not in str(error).removeprefix(f"{model}: ")
        assert error.__suppress_context__, "a traceback would show the foreign text"
    assert "Find yours at example.com." in str(errors_seen[0])


@pytest.mark.parametrize("model", FORMATS)
def test_what_the_server_said_is_kept_short(standin: Standin, model: str) -> None:
    error = fail(
        standin,
        status(400, "max_tokens\nmust be smaller. " + "So much more to say. " * 50),
        model,
    )
    assert "max_tokens must be smaller." in str(error)
    assert len(str(error)) < 300
    assert "\n" not in str(error)


@given(
    before=st.text(max_size=40),
    after=st.text(max_size=2000),
    key=st.from_regex(r"[A-Za-z0-9]{8,60}", fullmatch=True),
)
def test_no_error_text_holds_the_key_or_is_long(
    before: str, after: str, key: str
) -> None:
    words = safe_detail(f"{before} {key} {after}", CALL, [key])
    assert key not in words.replace("***", "")
    assert len(words) <= 200


@pytest.mark.parametrize("model", ["openai", "openai-litellm"])
def test_a_failing_call_prints_nothing(
    standin: Standin, model: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """LiteLLM likes to print where to give feedback, and whole requests with their documents."""
    for fault in (status(500), status(422), faults.NOT_JSON, faults.RESET):
        fail(standin, fault, model)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            400,
            "This model's maximum prompt length is 131072 but the request has 140011",
        ),
        (400, "Input is too long for requested model."),
        (400, "Your request exceeded model token limit: 8192"),
        (413, "tokens_limit_reached: Request body too large. Max size: 8000 tokens."),
        (400, "model_max_prompt_tokens_exceeded: prompt token count of 125516"),
        (422, "`inputs` must have less than 4096 tokens. Given: 5012"),
        (400, "Range of input length should be [1, 129024]"),
        (400, "Prompt 超长"),
        (400, "too many tokens: size limit exceeded by 11326 tokens"),
        (400, "BAD_REQUEST: Input tokens 40011 exceeds maximum 32000"),
        (400, "max_tokens must be at least 1, got -12."),
    ],
)
def test_a_prompt_that_is_too_long_has_many_words(code: int, words: str) -> None:
    assert kind_by_status(code, words) is errors.ContextTooLong
