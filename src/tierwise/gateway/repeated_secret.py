"""Answers that repeat a key are refused: answers are kept."""

from __future__ import annotations

from tierwise.errors import BadReply
from tierwise.gateway.resolved_model import ResolvedModel
from tierwise.records import Reply

_LONG_SECRET = 16  # characters; an answer does not hold such a value by chance


def check_for_secrets(reply: Reply, resolved: ResolvedModel) -> None:
    """Raise BadReply when a server repeats a key that it was sent."""
    received = f"{reply.text}\n{reply.served_model}"
    for secret in resolved.secrets:
        if len(secret) >= _LONG_SECRET and secret in received:
            message = "the reply repeats a key that was sent"
            error = BadReply(message, model=resolved.model.name, usage=reply.usage)
            error.service_tier = reply.service_tier
            raise error
