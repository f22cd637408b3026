"""Providers' errors become ours: a 429 with its Retry-After, a full context, a refusal, a timeout.

What the server answered decides; without an answer, the class of LiteLLM's exception. To add a
provider's fault, add its status to BY_STATUS, its exception to BY_CLASS, or its words to a pattern
below. What is done about each error is in `cascade/faults.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from tierwise import errors
from tierwise.errors import CallError
from tierwise.gateway.error_text import safe_detail
from tierwise.gateway.http_exchange import HttpExchange, TooLarge
from tierwise.gateway.usage import read_usage
from tierwise.policy.catalog import Model
from tierwise.records import Call

Kind = type[CallError]

# Every class of litellm.exceptions. It decides when no response was received.
BY_CLASS: dict[str, Kind] = {
    "AuthenticationError": errors.AuthenticationFailed,
    "PermissionDeniedError": errors.AuthenticationFailed,
    "PaymentRequiredError": errors.AuthenticationFailed,
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
    402: errors.AuthenticationFailed,
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
    errors.ServerFault: "a fault on the provider's side",
    errors.CallTimeout: "no complete answer in time",
    errors.Unreachable: "cannot be reached",
    errors.AuthenticationFailed: "the key is missing, wrong or not allowed to use this model",
    errors.ModelGone: "the provider does not serve this model; check its `litellm_params`",
    errors.ContextTooLong: "the prompt does not fit the model's context window",
    errors.ContentRefused: "the provider's content filter refused",
    errors.BadRequest: "the provider rejected the request",
    errors.BadReply: "the reply is not a usable answer",
}

# Some errors have a status that means several things; the words of the body decide.
_TOO_LONG = re.compile(
    r"context[ _](length|window|size|limit)|maximum (model|input) length"
    r"|maximum number of tokens|prompt is too long|input tokens? (count|exceed)"
    r"|max_new_tokens` must be|current length is \d+ while limit is"
)
_FILTERED = re.compile(
    r"content_filter|content_policy|content management policy|responsibleaipolicy"
)
_NO_CREDIT = re.compile(r"insufficient_quota|credit balance|billing_hard_limit")
# By a part of the name of a class among the causes; the first that fits.
_CONNECTION_FAILURES = {
    "gaierror": "no such host",
    "SSL": "TLS failed",
    "Certificate": "TLS failed",
    "ConnectionRefused": "connection refused",
}
_MOST_CAUSES = 8


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The kind of an error, and what is known about it."""

    kind: Kind
    detail: str = ""  # our own words: a status, a reason
    # the server's or LiteLLM's, not checked yet
    foreign_text: str = field(default="", repr=False)
    retry_after: float | None = None


@contextmanager
def translated_errors(
    model: Model, call: Call, exchange: HttpExchange, secrets: Iterable[str]
) -> Iterator[None]:
    """Turn everything that a lane raises into a CallError without a key and without the prompt."""
    try:
        yield
    except CallError:
        raise
    except Exception as error:  # noqa: BLE001 - LiteLLM and wrong bodies raise any class
        diagnosis = diagnose(error, model, exchange)
        message = SENTENCES[diagnosis.kind]
        if diagnosis.detail:
            message += f" ({diagnosis.detail})"
        foreign = safe_detail(diagnosis.foreign_text, call, secrets)
        if foreign:
            message += f": {foreign}"
        # From None: the traceback of the foreign error may hold the prompt.
        raise diagnosis.kind(
            message,
            model=model.name,
            retry_after=diagnosis.retry_after,
            usage=read_usage(exchange.body, model, call, answered=False),
        ) from None


def diagnose(error: Exception, model: Model, exchange: HttpExchange) -> Diagnosis:
    """Decide the kind of an error; the exchange counts more than LiteLLM's exception."""
    kind = kind_by_class(error)
    if isinstance(error, TimeoutError):
        return Diagnosis(errors.CallTimeout, f"{model.timeout_s:g} s")
    if isinstance(exchange.failure, TooLarge):
        return Diagnosis(errors.BadReply, "larger than any answer")
    if exchange.failure is not None:
        return Diagnosis(
            errors.Unreachable, _connection_failure(exchange, exchange.failure)
        )
    if exchange.status is None:
        return _diagnose_unsent(error, kind)
    if exchange.status >= 300:
        return _diagnose_status(exchange.status, kind, exchange)
    if kind in (errors.ContentRefused, errors.ContextTooLong):
        return Diagnosis(kind)
    if exchange.body.get("error"):
        return Diagnosis(errors.BadReply, "an error in a 200")
    return Diagnosis(errors.BadReply)


def kind_by_class(error: BaseException) -> Kind | None:
    """Return the kind for an exception, by the names of its classes, the nearest first.

    By name, so that LiteLLM need not be imported.
    """
    for cls in type(error).__mro__:
        if cls.__name__ in BY_CLASS:
            return BY_CLASS[cls.__name__]
    return None


def kind_by_status(status: int, text: str) -> Kind:
    """Return the kind for an HTTP status of 300 or more with this body."""
    text = text.lower()
    if status in (400, 413, 422, 500) and _TOO_LONG.search(text):
        return errors.ContextTooLong
    if status in (400, 403) and _FILTERED.search(text):
        return errors.ContentRefused
    if status in (400, 429) and _NO_CREDIT.search(text):
        return errors.AuthenticationFailed
    if status < 400:
        # A redirect is not followed: documents go to the address in the catalog alone.
        return errors.ModelGone
    if status in BY_STATUS:
        return BY_STATUS[status]
    return errors.BadRequest if status < 500 else errors.ServerFault


def _diagnose_status(
    status: int, by_class: Kind | None, exchange: HttpExchange
) -> Diagnosis:
    """Diagnose an answer with a status of 300 or more."""
    text = exchange.content.decode(errors="replace")
    kind = kind_by_status(status, text)
    # LiteLLM knows more texts of some providers than our patterns.
    if kind is errors.BadRequest and by_class in (
        errors.ContextTooLong,
        errors.ContentRefused,
    ):
        kind = by_class
    detail = f"{status}"
    if status < 400:
        detail = f"{status}, a redirect, which is not followed"
    return Diagnosis(
        kind,
        detail,
        foreign_text=_error_message(exchange.body),
        retry_after=retry_after(exchange.headers),
    )


def _diagnose_unsent(error: Exception, kind: Kind | None) -> Diagnosis:
    """Diagnose a call that was given up before it was sent, or sent by LiteLLM's own client."""
    text = str(error)
    status = getattr(error, "status_code", None)
    headers = getattr(error, "litellm_response_headers", None) or {}
    # A general class says less than the status of a response that LiteLLM's own client got.
    is_general = kind in (errors.ServerFault, errors.BadRequest)
    if is_general and isinstance(status, int) and status >= 400:
        kind = kind_by_status(status, text)
    return Diagnosis(
        kind or errors.BadRequest, foreign_text=text, retry_after=retry_after(headers)
    )


def _connection_failure(exchange: HttpExchange, failure: Exception) -> str:
    """Return the host, and the reason for a connection that was lost or never made."""
    class_names: list[str] = []
    cause: BaseException | None = failure
    for _ in range(_MOST_CAUSES):
        if cause is None:
            break
        class_names += [cls.__name__ for cls in type(cause).__mro__]
        cause = cause.__cause__ or cause.__context__
    names = " ".join(class_names)
    reason = "connection lost"
    for part, text in _CONNECTION_FAILURES.items():
        if part in names:
            reason = text
            break
    url = urlsplit(exchange.url or "")
    port = f":{url.port}" if url.port else ""
    return f"{url.hostname}{port}: {reason}"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait, from `Retry-After` in seconds or as a date.

    None when the server did not send the header, or sent nonsense.
    """
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        date = date.replace(tzinfo=date.tzinfo or UTC)
        seconds = (date - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _error_message(body: Mapping[str, Any]) -> str:
    """Return the message in an error's body, wherever the provider put it."""
    error = body.get("error")
    inner = error if isinstance(error, dict) else body
    for text in (inner.get("message"), inner.get("detail"), error):
        if isinstance(text, str):
            return text
    return ""
