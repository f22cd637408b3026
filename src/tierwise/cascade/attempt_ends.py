"""The end of an attempt: what a reply or an error says of its usage and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from tierwise.cascade.faults import is_free
from tierwise.cascade.prompt_cut import prompt_cut
from tierwise.errors import CallError, UnreadableReply, describe_exception
from tierwise.policy.catalog import Model
from tierwise.records import Attempt, Message, Reply, Usage

# A usage above this multiple of the context window is not believed. The gateway drops single
# counts that are far above the window; this is for all other providers of replies.
_IMPLAUSIBLE_WINDOWS = 100


def checked_reply(
    reply: Reply, model: Model, messages: Sequence[Message], prompt_tokens: int
) -> Reply | CallError:
    """Return the reply, or the fault that makes it no answer to the call.

    `prompt_tokens` are those of the messages, by our own count.
    """
    try:
        model.cost(_usage_if_plausible(reply.usage, model))
    except Exception as error:  # noqa: BLE001 - a paid call must come on record
        return unreadable(error, model.name)
    cut = prompt_cut(model, tuple(messages), prompt_tokens, reply.usage)
    if cut is None:
        return reply
    cut.service_tier = reply.service_tier
    return cut


def unreadable(error: Exception, model: str) -> UnreadableReply:
    """Return the fault of a reply that we fail to read. Its text may quote a document."""
    reason = f"reading the reply failed: {describe_exception(error)}"
    return UnreadableReply(reason, model=model)


def answered_attempt(
    attempt: Attempt, model: Model, reply: Reply, started_at: float
) -> Attempt:
    """Return the attempt with what its reply says."""
    usage = _usage_if_plausible(reply.usage, model)
    return replace(
        attempt,
        started_at=started_at,
        usage=usage,
        cost=model.billed(usage, attempt.transport, reply.service_tier),
        service_tier=reply.service_tier,
        latency_s=reply.latency_s,
        finish_reason=reply.finish_reason,
        confidence=reply.confidence,
        field_confidences=reply.field_confidences,
        served_model=reply.served_model,
        text=reply.text,
    )


def failed_attempt(
    attempt: Attempt, model: Model, error: BaseException, seconds: float
) -> Attempt:
    """Return the attempt with what its error says."""
    reported = None
    service_tier = None
    if isinstance(error, CallError):
        reported = error.usage
        service_tier = error.service_tier
    usage = _usage_if_plausible(reported, model)
    cost = model.billed(usage, attempt.transport, service_tier)
    # A usage that is not believed shows all the same that tokens were counted.
    if reported is None and is_free(error):
        cost = Decimal(0)
    return replace(
        attempt,
        error=type(error).__name__,
        error_text=str(error) or "stopped while the call was under way",
        usage=usage,
        cost=cost,
        service_tier=service_tier,
        latency_s=seconds,
    )


def _usage_if_plausible(usage: Usage | None, model: Model) -> Usage | None:
    """Return a reported usage; None (unknown) when it is far above the model's window."""
    if usage is None:
        return None
    reported = usage.prompt_tokens + usage.completion_tokens
    if reported > _IMPLAUSIBLE_WINDOWS * model.context_tokens:
        return None
    return usage


def note_of(error: CallError, attempt: Attempt) -> str:
    """Return why a call that failed cost nothing, in words; empty where it may have been billed."""
    if not error.sent:
        return f"not sent: {error.message}"
    if attempt.cost == 0 and is_free(error):
        # Its message may quote the server, and notes are kept for good.
        return f"not billed: {type(error).__name__}"
    return ""
