"""Foreign errors become ours, once: by what came over the wire, else by the class of LiteLLM's exception."""

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
from tierwise.gateway.http_exchange import Exchange, TooLarge
from tierwise.policy.catalog import Model
from tierwise.records import Call

Kind = type[CallError]

# every class of litellm.exceptions; decides when no response came over the wire
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

_TOO_LONG = re.compile(
    r"context[ _](length|window|size|limit)|maximum (model|input) length|maximum number of tokens|prompt is too long"
    r"|input tokens? (count|exceed)|max_new_tokens` must be|current length is \d+ while limit is"
)
_FILTERED = re.compile(
    r"content_filter|content_policy|content management policy|responsibleaipolicy"
)
_NO_CREDIT = re.compile(r"insufficient_quota|credit balance|billing_hard_limit")
_KEY = re.compile(r"\b(?:sk|pk|key|pat|gsk|xai|AIza)[-_]?[A-Za-z0-9*_-]{12,}|(?i:bearer)\s+\S+")
_ADDRESS = re.compile(
    r"(?i)(https?://)(?:[^/@\s]*@)?([^\s?#]*)[^\s]*"
)  # without its password and its parameters
_ESCAPED = re.compile(r"\\(?:u([0-9a-fA-F]{4})|[nrt\"\\/])")
_QUOTED = 12  # letters and digits in a row that stand in a prompt too
_OWN_PREFIX = re.compile(
    r"^(?:litellm\.)?(?:\w+(?:Error|Exception|Timeout)(?: \w+Error)?(?::| -) )+"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What an error amounts to, before it becomes one of ours."""

    kind: Kind
    detail: str = ""  # ours: a status, a reason
    words: str = field(
        default="", repr=False
    )  # the server's or LiteLLM's: not trusted to be fit for people
    retry_after: float | None = None


@contextmanager
def translated_errors(
    model: Model, call: Call, exchange: Exchange, secrets: Iterable[str]
) -> Iterator[None]:
    """Everything that a lane raises leaves as a CallError that holds neither a key nor the prompt."""
    try:
        yield
    except CallError:
        raise
    except Exception as error:  # noqa: BLE001 - a wrong body is an IndexError, KeyError or other, in LiteLLM as well
        finding = diagnose(error, model, exchange)
        words = fit_for_people(finding.words, call, secrets)
        text = SENTENCES[finding.kind] + (f" ({finding.detail})" if finding.detail else "")
        message = f"{text}: {words}" if words else text
        raise finding.kind(message, model=model.name, retry_after=finding.retry_after) from None


def diagnose(error: Exception, model: Model, exchange: Exchange) -> Finding:
    """What happened; what came over the wire counts more than what LiteLLM made of it."""
    named = by_class(error)
    if isinstance(error, TimeoutError):
        return Finding(errors.CallTimeout, f"{model.timeout_s:g} s")
    if isinstance(exchange.failure, TooLarge):
        return Finding(errors.BadReply, "larger than any answer")
    if exchange.failure is not None:
        return Finding(errors.Unreachable, _lost(exchange))
    if exchange.status is None:
        return _unsent(error, named)
    if exchange.status >= 300:
        return _refused(exchange.status, named, exchange)
    if named in (errors.ContentRefused, errors.ContextTooLong):
        return Finding(named)
    return Finding(errors.BadReply, "an error in a 200" if exchange.body.get("error") else "")


def by_class(error: BaseException) -> Kind | None:
    """The nearest known class of an exception, by name, so that LiteLLM need not be imported to ask."""
    return next((BY_CLASS[c.__name__] for c in type(error).__mro__ if c.__name__ in BY_CLASS), None)


def by_status(status: int, text: str) -> Kind:
    """Our class for an HTTP status of 300 or more with this body."""
    text = text.lower()
    if status in (400, 413, 422, 500) and _TOO_LONG.search(text):
        return errors.ContextTooLong
    if status in (400, 403) and _FILTERED.search(text):
        return errors.ContentRefused
    if status in (400, 429) and _NO_CREDIT.search(text):
        return errors.AuthenticationFailed
    if status < 400:
        return errors.ModelGone  # a redirect: the documents go where the catalog says, nowhere else
    return BY_STATUS.get(status, errors.BadRequest if status < 500 else errors.ServerFault)


def _refused(status: int, named: Kind | None, exchange: Exchange) -> Finding:
    kind = by_status(status, exchange.content.decode(errors="replace"))
    if kind is errors.BadRequest and named in (errors.ContextTooLong, errors.ContentRefused):
        kind = named
    detail = f"{status}" if status >= 400 else f"{status}, a redirect, which is not followed"
    return Finding(kind, detail, _server_words(exchange.body), retry_after(exchange.headers))


def _unsent(error: Exception, named: Kind | None) -> Finding:
    """It was given up before anything was sent, or LiteLLM sent it by a client of its own."""
    status = getattr(error, "status_code", None)
    if (
        named in (errors.ServerFault, errors.BadRequest)
        and isinstance(status, int)
        and status >= 400
    ):
        named = by_status(status, str(error))
    headers = getattr(error, "litellm_response_headers", None) or {}
    return Finding(named or errors.BadRequest, "", str(error), retry_after(headers))


def _lost(exchange: Exchange) -> str:
    """Host and reason of a lost or never made connection."""
    causes: list[BaseException] = []
    cause: BaseException | None = exchange.failure
    while cause is not None and len(causes) < 8:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    names = " ".join(c.__name__ for cause in causes for c in type(cause).__mro__)
    reasons = {
        "gaierror": "no such host",
        "SSL": "TLS failed",
        "Certificate": "TLS failed",
        "ConnectionRefused": "connection refused",
    }
    reason = next((text for mark, text in reasons.items() if mark in names), "connection lost")
    url = urlsplit(exchange.url or "")
    return f"{url.hostname}{f':{url.port}' if url.port else ''}: {reason}"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from `retry-after` in seconds or as a date; None when the server did not say."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _server_words(body: Mapping[str, Any]) -> str:
    """The message in an error's body, wherever providers put it."""
    error = body.get("error")
    inner = error if isinstance(error, dict) else body
    candidates = (inner.get("message"), inner.get("detail"), error)
    return next((words for words in candidates if isinstance(words, str)), "")


def fit_for_people(words: str, call: Call, secrets: Iterable[str]) -> str:
    """One short line without secrets and keys; nothing at all when it quotes the prompt."""
    line = hidden(_OWN_PREFIX.sub("", " ".join(words.partition("\nTraceback")[0].split())), secrets)
    line = _KEY.sub("***", _ADDRESS.sub(r"\1\2", line))
    line = line if len(line) <= 200 else line[:199] + "…"
    line = "".join(c if c.isprintable() else " " for c in line)
    return "" if _quotes(line, call) else line


def hidden(text: str, secrets: Iterable[str]) -> str:
    """A text with asterisks in the place of secrets."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def _quotes(line: str, call: Call) -> bool:
    """Whether a line holds some of the prompt: in other letters, on one line or escaped, it still does."""
    plain = _letters(_ESCAPED.sub(lambda match: chr(int(match[1], 16)) if match[1] else " ", line))
    pieces = {plain[i : i + _QUOTED] for i in range(len(plain) - _QUOTED + 1)}
    return any(
        piece in text
        for text in map(_letters, (m.content for m in call.messages))
        for piece in pieces
    )


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())
