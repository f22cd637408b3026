"""Refusals and states of batch APIs become our errors, by their codes and their place.

What is done about each error is in `BATCH_DECISIONS` of `cascade/faults.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from tierwise import errors
from tierwise.errors import BatchError, CallError
from tierwise.gateway.error_body import words_of_error
from tierwise.gateway.http_exchange import HttpExchange

# Where an error met us: the upload of the items, the request that makes the batch of them, its
# state, a list of batches, its results, a cancellation, or the deletion of its files.
Stage = Literal["upload", "create", "status", "list", "results", "cancel", "delete"]

# Codes of refused batches, by what is to be done. Codes of OpenAI and Azure, as errors of the
# request and of the batch's validation.
_QUEUE_FULL = frozenset(
    {
        "token_limit_exceeded",
        "enqueued_token_limit_exceeded",
        "too_many_tasks",
        "too_many_batches",
        "batch_queue_full",
    }
)
_TOO_LARGE = frozenset(
    {
        "file_too_large",
        "file_size_exceeded",
        "batch_size_limit_exceeded",
        "request_too_large",
        "too_many_requests_in_batch",
        "request_count_exceeded",
        "max_requests_exceeded",
    }
)
_WORDS_OF_FULL = re.compile(
    r"enqueued|queue(d)? (limit|is full)|too many (active |pending |concurrent )?(batch|job)"
    r"|(batch|job)(es|s)? (limit|quota)|in.?progress batch|active batch"
)
_WORDS_OF_LARGE = re.compile(
    r"(file|batch|request|body|payload|input|upload)\b.{0,40}"
    r"\b(too large|too big|exceeds?|larger than|maximum (size|number))"
    r"|(maximum|max|more than|at most|limit of|up to) .{0,20}(requests|lines|items|mb|megabytes|gb)\b"
    r"|too many (requests|lines|items) in"
)
# A key may lack the right to upload, and be good for calls.
_WORDS_OF_RIGHTS = re.compile(r"scope|permission|not (allowed|enabled|authorized)|role")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,59}")

_SENTENCES: dict[type[BatchError], str] = {
    errors.BatchRefused: "the provider refused the batch; the calls go online",
    errors.BatchTooLarge: (
        "the batch is too large for the provider; lower `max_items` or `max_bytes`"
    ),
    errors.BatchQueueFull: "the provider's limit of waiting batches is reached",
    errors.BatchLinesInvalid: "the provider's validation refused some items of the batch",
    errors.BatchInvalid: "the provider's validation refused the batch",
    errors.BatchFailed: "the provider gave the batch up",
    errors.BatchExpired: "the provider's window ended before the answer",
    errors.BatchCancelled: "the batch was cancelled before the answer",
    errors.BatchStalled: "the batch has not ended, long after the provider's window",
    errors.BatchResultsGone: "the batch or its results do not exist any more",
    errors.BatchIncomplete: "the results have fewer items than the provider counts",
    errors.BatchItemMissing: "the results have nothing for this item",
    errors.BatchRenamed: "refused for the name of a parameter, which the next call corrects",
}


def batch_error(
    kind: type[BatchError],
    model: str,
    *,
    names: Iterable[str] = (),
    provider_id: str | None = None,
    detail: str = "",
    retry_after: float | None = None,
    billable: bool | None = None,
) -> BatchError:
    """Return an error with our own words, and codes of the provider that are plain names."""
    details = [detail] if detail else []
    details += sorted({name for name in names if _NAME.fullmatch(name)})[:3]
    message = _SENTENCES[kind]
    if details:
        message += f" ({', '.join(details)})"
    error = kind(message, model=model, retry_after=retry_after, billable=billable)
    error.provider_id = provider_id
    return error


def lines_refused(model: str, places: Sequence[int]) -> errors.BatchLinesInvalid:
    """Return the error of items that cannot even be written, at places from 1."""
    message = _SENTENCES[errors.BatchLinesInvalid]
    error = errors.BatchLinesInvalid(message, model=model, sent=False)
    error.lines = tuple(places)
    return error


def batch_fault(error: CallError, exchange: HttpExchange, stage: Stage) -> CallError:
    """Return the error of a request to a batch API.

    `error` is what it would be for a call. It stays where the same is done about it: keys, credit,
    rate limits, and faults of the server.
    """
    if isinstance(error, BatchError):
        return error
    kind = _kind(error, exchange, stage)
    if kind is not None:
        words = words_of_error(exchange.content)
        detail = str(exchange.status)
        new = batch_error(
            kind,
            error.model,
            names=_codes(words.names),
            detail=detail,
            retry_after=error.retry_after,
        )
        new.sent = error.sent
        return new
    if stage == "upload":
        # A file alone costs nothing.
        error.billable = False
    elif stage == "create":
        error.billable = _may_be_made(exchange) and error.sent
    return error


def _kind(
    error: CallError, exchange: HttpExchange, stage: Stage
) -> type[BatchError] | None:
    status = exchange.status
    if status is None or exchange.failure is not None or status < 300:
        return None
    text = exchange.content[:20_000].decode(errors="replace").lower()
    if stage in ("upload", "create"):
        names = {name.lower() for name in words_of_error(exchange.content).names}
        return _kind_of_refusal(error, status, text, names)
    is_unknown = isinstance(error, errors.ModelGone)
    if stage in ("status", "results", "cancel") and is_unknown and status >= 400:
        return errors.BatchResultsGone
    return None


def _kind_of_refusal(
    error: CallError, status: int, text: str, names: set[str]
) -> type[BatchError] | None:
    """Return the kind of a refused upload or batch; None for an error as calls have it."""
    if isinstance(error, errors.OutOfCredit):
        return None
    if status in (400, 403, 409, 422, 429) and (
        names & _QUEUE_FULL or _WORDS_OF_FULL.search(text)
    ):
        return errors.BatchQueueFull
    if status == 413 or (
        status in (400, 422) and (names & _TOO_LARGE or _WORDS_OF_LARGE.search(text))
    ):
        return errors.BatchTooLarge
    if status == 401:
        return errors.BatchRefused if _WORDS_OF_RIGHTS.search(text) else None
    if isinstance(error, errors.RateLimited | errors.Overloaded | errors.CallTimeout):
        return None
    return errors.BatchRefused if status < 500 else None


def _may_be_made(exchange: HttpExchange) -> bool:
    """Return True if a batch may have been made, though the answer does not say so."""
    return exchange.status is None or exchange.status < 300 or exchange.status >= 500


def fault_of_validation(
    codes: Iterable[str],
    lines: Iterable[int],
    total: int,
    model: str,
    provider_id: str,
) -> BatchError:
    """Return the error of a batch that failed before any item was answered.

    `lines` are the places of the items that it names, from 1; `total` is 0 where it is not known.
    """
    names = [code.lower() for code in codes]
    places = tuple(sorted({line for line in lines if line > 0}))
    if _QUEUE_FULL & set(names):
        kind: type[BatchError] = errors.BatchQueueFull
    elif _TOO_LARGE & set(names):
        kind = errors.BatchTooLarge
    elif places and (not total or len(places) < total):
        kind = errors.BatchLinesInvalid
    elif names and not any(_is_of_the_server(name) for name in names):
        kind = errors.BatchInvalid
    else:
        kind = errors.BatchFailed
    error = batch_error(kind, model, names=_codes(names), provider_id=provider_id)
    if isinstance(error, errors.BatchLinesInvalid):
        error.lines = places
    return error


def _is_of_the_server(code: str) -> bool:
    return any(
        word in code for word in ("server", "internal", "unavailable", "timeout")
    )


def _codes(names: Iterable[str]) -> list[str]:
    """Return the names that are codes: a word of a prompt in their place is not repeated."""
    return [name for name in names if "_" in name]
