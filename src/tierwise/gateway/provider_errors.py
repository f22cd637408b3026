"""Providers' errors become ours: a 429 with its Retry-After, a full context, a refusal, a timeout.

What the server answered decides; without an answer, the class of LiteLLM's exception. To add a
provider's fault, add its status to BY_STATUS, its exception to BY_CLASS, or its words to a pattern
below. Bodies are read in `error_body.py`, waits in `retry_hints.py`, words for an empty account
are in `no_credit.py`. What is done about each error is in `cascade/faults.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tierwise import errors
from tierwise.errors import CallError
from tierwise.gateway.billing import is_billable
from tierwise.gateway.error_body import (
    ProviderWords,
    error_in_body,
    words_of_error,
)
from tierwise.gateway.error_text import quotes_prompt, safe_detail
from tierwise.gateway.http_exchange import HttpExchange, NotAReply, TooLarge
from tierwise.gateway.no_credit import is_out_of_credit
from tierwise.gateway.reply_fields import service_tier
from tierwise.gateway.retry_hints import RetryHint, retry_hint
from tierwise.gateway.usage import read_usage
from tierwise.policy.catalog import Model
from tierwise.records import Call

Kind = type[CallError]

# Every class of litellm.exceptions. It decides when no response was received.
BY_CLASS: dict[str, Kind] = {
    "AuthenticationError": errors.AuthenticationFailed,
    "PermissionDeniedError": errors.AuthenticationFailed,
    "PaymentRequiredError": errors.OutOfCredit,
    "NotFoundError": errors.ModelGone,
    "LiteLLMUnknownProvider": errors.ModelGone,
    "ModelNotMappedError": errors.ModelGone,
    "ContextWindowExceededError": errors.ContextTooLong,
    "ContentPolicyViolationError": errors.ContentRefused,
    "RejectedRequestError": errors.ContentRefused,
    "GuardrailRaisedException": errors.ContentRefused,
    "BlockedPiiEntityError": errors.ContentRefused,
    "ModifyResponseException": errors.ContentRefused,
    "SensitiveDataRouteException": errors.ContentRefused,
    "BadRequestError": errors.BadRequest,
    "InvalidRequestError": errors.BadRequest,
    "UnsupportedParamsError": errors.BadRequest,
    "UnprocessableEntityError": errors.BadRequest,
    "ImageFetchError": errors.BadRequest,
    "VectorStoreSearchError": errors.BadRequest,
    "BudgetExceededError": errors.BadRequest,
    "Timeout": errors.CallTimeout,
    "RateLimitError": errors.RateLimited,
    "ServiceUnavailableError": errors.Overloaded,
    "MidStreamFallbackError": errors.BadReply,
    "APIResponseValidationError": errors.BadReply,
    "JSONSchemaValidationError": errors.BadReply,
    "APIConnectionError": errors.Unreachable,
    "BadGatewayError": errors.ServerFault,
    "InternalServerError": errors.ServerFault,
    "APIError": errors.ServerFault,
    "MockException": errors.ServerFault,
    "OpenAIError": errors.ServerFault,
}

# 400 and other statuses below 500 that are not listed are BadRequest, those above ServerFault.
BY_STATUS: dict[int, Kind] = {
    401: errors.AuthenticationFailed,
    402: errors.OutOfCredit,
    403: errors.AuthenticationFailed,
    404: errors.ModelGone,
    408: errors.CallTimeout,
    410: errors.ModelGone,
    429: errors.RateLimited,
    503: errors.Overloaded,
    529: errors.Overloaded,
}

SENTENCES: dict[Kind, str] = {
    errors.RateLimited: "too many requests",
    errors.Overloaded: "the provider has no capacity now",
    errors.ServerFault: "server error",
    errors.CallTimeout: "no complete answer in time",
    errors.Unreachable: "cannot be reached",
    errors.AuthenticationFailed: "the key is missing, wrong or not allowed to use this model",
    errors.OutOfCredit: "no credit left: top up, then run again",
    errors.ModelGone: "the provider does not serve this model; check its `litellm_params`",
    errors.ContextTooLong: "the prompt does not fit the model's context window",
    errors.ContentRefused: "the provider's content filter refused",
    errors.BadRequest: "the provider rejected the request",
    errors.BadReply: "the reply is not a usable answer",
}

# Faults of a server rather than of one request: the sentence names the host.
_OF_THE_HOST = (
    errors.RateLimited,
    errors.Overloaded,
    errors.ServerFault,
    errors.CallTimeout,
    errors.AuthenticationFailed,
)

# Some errors have a status that means several things; the words of the body decide.
_TOO_LONG = re.compile(
    r"context[ _](length|window|size|limit)|maximum (model|input|prompt) length"
    r"|maximum number of tokens|(prompt|input) is too long|too many tokens"
    r"|input tokens? (count|exceed|\d+ exceed)|exceeded model token limit|tokens_limit_reached"
    r"|max_new_tokens` must be|current length is \d+ while limit is"
    r"|max_tokens must be at least 1, got -|max_prompt_tokens_exceeded"
    r"|must have less than \d+ tokens|range of input length should be"
    r"|prompt 超长"
)
_FILTERED = re.compile(
    r"content_filter|content_policy|content management policy|responsibleaipolicy"
)
# A single request above the limit of a whole minute: it will never fit.
_TOO_LARGE = re.compile(r"request too large for|reduce your message size")
# Statuses of refusals that may be for want of money, whatever the provider means by them.
_MAY_BE_OUT_OF_CREDIT = (400, 401, 402, 403, 405, 409, 412, 422, 423, 429)
_WANTS_OTHER_LIMIT = re.compile(
    r"(?is)use\W{1,3}max_completion_tokens|max_tokens\W.{0,60}\bmax_completion_tokens\b.{0,20}instead"
    r"|unsupported (parameter|value|argument)s?\W{1,5}max_tokens\b"
    r"|max_tokens\W{1,3}(parameter )?is (not supported|unsupported|deprecated)"
)
# By a part of the name of a class among the causes; the first that fits. The reason, and a remedy.
_CONNECTION_FAILURES = {
    "gaierror": ("no such host", "is the address right?"),
    "DNSError": ("no such host", "is the address right?"),
    "SSL": ("TLS failed", "does the server speak https?"),
    "Certificate": ("TLS failed", "is its certificate trusted?"),
    "ConnectionRefused": ("connection refused", "is the server running?"),
}
_MOST_CAUSES = 8


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The kind of an error, and what is known about it."""

    kind: Kind
    detail: str = ""  # our own words: a status, a reason
    # the server's or LiteLLM's, not checked yet
    foreign_text: str = field(default="", repr=False)
    hint: RetryHint | None = None
    refused_parameter: str | None = None


@contextmanager
def translated_errors(
    model: Model, call: Call, exchange: HttpExchange, secrets: Iterable[str]
) -> Iterator[None]:
    """Turn everything that a lane raises into a CallError without a key and without the prompt."""
    try:
        yield
    except CallError as error:
        # An error that reports tokens is billed at the price of its service tier.
        error.service_tier = service_tier(exchange.body, exchange.headers)
        raise
    except Exception as error:  # noqa: BLE001 - LiteLLM and wrong bodies raise any class
        diagnosis = diagnose(error, model, call, exchange)
        message = _sentence(diagnosis, model, exchange)
        foreign = safe_detail(diagnosis.foreign_text, call, secrets)
        if foreign:
            message += f": {foreign}"
        hint = diagnosis.hint
        call_error = diagnosis.kind(
            message,
            model=model.name,
            retry_after=hint.seconds if hint else None,
            usage=read_usage(exchange.body, model, call, answered=False),
            sent=exchange.sent or exchange.url is None,
            billable=is_billable(error, diagnosis.kind, exchange),
        )
        call_error.service_tier = service_tier(exchange.body, exchange.headers)
        if isinstance(call_error, errors.BadRequest):
            call_error.refused_parameter = diagnosis.refused_parameter
        # From None: the traceback of the foreign error may hold the prompt.
        raise call_error from None


def diagnose(
    error: Exception, model: Model, call: Call, exchange: HttpExchange
) -> Diagnosis:
    """Decide the kind of an error; the exchange counts more than LiteLLM's exception."""
    kind = kind_by_class(error)
    if isinstance(error, TimeoutError):
        detail = f"{model.timeout_s:g} s"
        if exchange.url is not None and not exchange.sent:
            detail += f", no connection to {_origin(exchange.url)}"
        return Diagnosis(errors.CallTimeout, detail)
    if isinstance(exchange.failure, TooLarge):
        return Diagnosis(errors.BadReply, "larger than any answer")
    if exchange.failure is not None:
        return Diagnosis(
            errors.Unreachable, _connection_failure(exchange, exchange.failure)
        )
    if exchange.status is None:
        return _diagnose_unsent(error, kind)
    if exchange.status >= 300:
        return _diagnose_status(exchange.status, kind, call, exchange)
    if kind in (errors.ContentRefused, errors.ContextTooLong):
        return Diagnosis(kind)
    words = error_in_body(exchange.body or exchange.content)
    if words is not None:
        return _diagnose_error_in_200(words, call, exchange)
    if isinstance(error, NotAReply):
        words = words_of_error(exchange.text)
        return Diagnosis(errors.BadReply, error.detail, words.words)
    return Diagnosis(errors.BadReply)


def kind_by_class(error: BaseException) -> Kind | None:
    """Return the kind for an exception, by the names of its classes, the nearest first.

    By name, so that LiteLLM need not be imported.
    """
    for cls in type(error).__mro__:
        if cls.__name__ in BY_CLASS:
            return BY_CLASS[cls.__name__]
    return None


def kind_by_status(
    status: int,
    text: str,
    words: ProviderWords | None = None,
    *,
    asks_to_wait: bool = False,
    trusted: bool = True,
) -> Kind:
    """Return the kind for an HTTP status of 300 or more with this body.

    `words` are those of the body. Where they are not `trusted`, they may quote the prompt.
    """
    if words is None:
        words = words_of_error(text)
    text = text.lower()
    if status in (400, 413, 422, 500) and _TOO_LONG.search(text):
        return errors.ContextTooLong
    if status in (400, 413, 429) and _TOO_LARGE.search(text):
        return errors.ContextTooLong
    if status in (400, 403) and _FILTERED.search(text):
        return errors.ContentRefused
    if status in _MAY_BE_OUT_OF_CREDIT and is_out_of_credit(
        words, asks_to_wait=asks_to_wait, trusted=trusted
    ):
        return errors.OutOfCredit
    if status < 400:
        # A redirect is not followed: documents go to the address in the catalog alone.
        return errors.ModelGone
    if status in BY_STATUS:
        return BY_STATUS[status]
    return errors.BadRequest if status < 500 else errors.ServerFault


def _diagnose_status(
    status: int, by_class: Kind | None, call: Call, exchange: HttpExchange
) -> Diagnosis:
    """Diagnose an answer with a status of 300 or more."""
    text = exchange.content.decode(errors="replace")
    words = words_of_error(exchange.content)
    hint = retry_hint(exchange.headers, words.hints, refused=status == 429)
    kind = kind_by_status(
        status,
        text,
        words,
        asks_to_wait=hint is not None and hint.seconds > 0,
        trusted=_are_trusted(status, words, call),
    )
    # LiteLLM knows more texts of some providers than our patterns.
    if kind is errors.BadRequest and by_class in (
        errors.ContextTooLong,
        errors.ContentRefused,
    ):
        kind = by_class
    detail = f"{status}"
    if status < 400:
        detail = f"{status}, a redirect, which is not followed"
    refused_parameter = None
    if kind is errors.BadRequest:
        refused_parameter = _refused_parameter(words)
    return Diagnosis(kind, detail, words.words, hint, refused_parameter)


def _diagnose_error_in_200(
    words: ProviderWords, call: Call, exchange: HttpExchange
) -> Diagnosis:
    """Diagnose an error that came with a status of success, by the status among its codes.

    One that names no passing limit and no empty account is a bad reply, which may be billed.
    """
    status = words.status
    hint = retry_hint(exchange.headers, words.hints, refused=status == 429)
    detail = "an error in a 200"
    if status is not None:
        detail += f": {status}"
    kind: Kind = errors.BadReply
    if status is not None and status < 500:
        kind = kind_by_status(
            status,
            words.words,
            words,
            asks_to_wait=hint is not None and hint.seconds > 0,
            trusted=_are_trusted(status, words, call),
        )
    elif status in (503, 529):
        kind = errors.Overloaded
    elif is_out_of_credit(words, asks_to_wait=True, trusted=False) or (
        status is None
        and is_out_of_credit(
            words,
            asks_to_wait=hint is not None,
            trusted=not quotes_prompt(words.words, call),
        )
    ):
        kind = errors.OutOfCredit
    return Diagnosis(kind, detail, words.words, hint)


def _are_trusted(status: int, words: ProviderWords, call: Call) -> bool:
    """Return True unless the words may be the document's: a rejected request is often quoted."""
    return status not in (400, 422) or not quotes_prompt(words.words, call)


def _refused_parameter(words: ProviderWords) -> str | None:
    """Return `max_tokens` where the server wants `max_completion_tokens` in its place."""
    text = words.words
    if "max_tokens" in words.names and "unsupported_parameter" in words.names:
        return "max_tokens"
    return "max_tokens" if _WANTS_OTHER_LIMIT.search(text) else None


def _diagnose_unsent(error: Exception, kind: Kind | None) -> Diagnosis:
    """Diagnose a call that was given up before it was sent, or sent by LiteLLM's own client."""
    text = str(error)
    status = getattr(error, "status_code", None)
    headers = getattr(error, "litellm_response_headers", None) or {}
    words = words_of_error(text)
    brace = text.find("{")
    if brace >= 0:
        # LiteLLM puts names of its own before the body
        words = words_of_error(text[brace:])
    hint = retry_hint(headers, words.hints, refused=kind is errors.RateLimited)
    asks_to_wait = hint is not None and hint.seconds > 0
    # A general class says less than the status of a response that LiteLLM's own client got.
    is_general = kind in (errors.ServerFault, errors.BadRequest)
    if is_general and isinstance(status, int) and status >= 400:
        kind = kind_by_status(status, text, words, asks_to_wait=asks_to_wait)
    if kind is errors.RateLimited and is_out_of_credit(
        words, asks_to_wait=asks_to_wait, trusted=True
    ):
        kind = errors.OutOfCredit
    return Diagnosis(kind or errors.BadRequest, foreign_text=text, hint=hint)


def _sentence(diagnosis: Diagnosis, model: Model, exchange: HttpExchange) -> str:
    """Return our own words for an error, with the status and what is odd about a wait."""
    message = SENTENCES[diagnosis.kind]
    if diagnosis.kind is errors.OutOfCredit:
        message = f"no credit left at {_place(model, exchange)}: top up, then run again"
    details = [diagnosis.detail] if diagnosis.detail else []
    hint = diagnosis.hint
    if hint is not None and hint.asked is not None:
        details.append(
            f"the server asks to wait {hint.asked:g} s, taken as {hint.seconds:g} s"
        )
    if diagnosis.kind is errors.ServerFault and exchange.status is not None:
        message += f" {exchange.status}"
        details.remove(diagnosis.detail)
    if details:
        message += f" ({'; '.join(details)})"
    # What was not sent names the address in its details.
    if diagnosis.kind in _OF_THE_HOST and exchange.url is not None and exchange.sent:
        message += f" at {_host(exchange)}"
    return message


def _place(model: Model, exchange: HttpExchange) -> str:
    """Return the host of a call, else the provider in the model's name."""
    if exchange.url is not None:
        return _host(exchange)
    return str(model.litellm_params.get("model", model.name)).partition("/")[0]


def _connection_failure(exchange: HttpExchange, failure: Exception) -> str:
    """Return the reason for a connection that was lost or never made, where, and the remedy."""
    class_names: list[str] = []
    cause: BaseException | None = failure
    for _ in range(_MOST_CAUSES):
        if cause is None:
            break
        class_names += [cls.__name__ for cls in type(cause).__mro__]
        cause = cause.__cause__ or cause.__context__
    names = " ".join(class_names)
    origin = _origin(exchange.url or "")
    if exchange.sent:
        return f"connection lost at {origin}"
    if "ProxyConnection" in names or "HttpProxy" in names:
        proxy = _origin(exchange.proxy or "")
        return f"the proxy {proxy} lets no call through to {origin}: is it running?"
    for part, (reason, remedy) in _CONNECTION_FAILURES.items():
        if part in names:
            return f"{reason} at {origin}: {remedy}"
    return f"no connection to {origin}: is the server running?"


def _origin(url: str) -> str:
    """Return an address without its path, its parameters and a password."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def _host(exchange: HttpExchange) -> str:
    """Return the host that was called, with its port where the address names one."""
    url = urlsplit(exchange.url or "")
    port = f":{url.port}" if url.port else ""
    return f"{url.hostname}{port}"
