"""Whether a failed call may be charged, by what the server answered.

No provider charges for a request that it refuses, or that fails on its side. A charge is possible
where the model may have worked: a reply that was lost, broken off or cannot be read, a time-out, a
content filter (Azure charges for the prompt that it checked), and any answer that reports tokens.
"""

from __future__ import annotations

from collections.abc import Mapping

from tierwise.errors import CallError, ContentRefused
from tierwise.gateway.http_exchange import HttpExchange
from tierwise.gateway.reply_fields import has_generated_text
from tierwise.gateway.usage import mentions_usage

# 408: the server gave up while it worked on the request; Azure charges for that. 460 and 499: a
# load balancer took the caller for gone. 520, 598 and 599: a proxy passed the request on and lost
# the connection.
_MAY_HAVE_WORKED = frozenset({408, 460, 499, 520, 598, 599})
# A time-out of the provider itself, or of a proxy whose model still works.
_TIMEOUTS = frozenset({504, 524})
# Headers of gateways that write a time-out as the provider would.
_GATEWAY_HEADERS = ("x-litellm-", "x-portkey-", "helicone-")


def is_billable(
    error: BaseException,
    kind: type[CallError],
    exchange: HttpExchange,
) -> bool | None:
    """Return whether a failed call may be charged; None where no answer says it."""
    if exchange.status is None:
        return None  # nothing was answered, or LiteLLM's own client got it
    is_half = exchange.failure is not None or isinstance(error, TimeoutError)
    if is_half or mentions_usage(exchange.body):
        return True
    if exchange.status >= 300:
        return kind is ContentRefused or _may_have_worked(exchange)
    # An error in an answer with a good status: by its kind, unless it came after a text.
    return True if has_generated_text(exchange.body) else None


def _may_have_worked(exchange: HttpExchange) -> bool:
    """Return True if the model may have worked on a request in spite of this status."""
    if exchange.status in _MAY_HAVE_WORKED:
        return True
    if exchange.status not in _TIMEOUTS:
        return False
    names = [name.lower() for name in exchange.headers]
    is_by_gateway = any(name.startswith(_GATEWAY_HEADERS) for name in names)
    # A plain proxy writes a page or a line of text, an API the error object of all its errors.
    return is_by_gateway or not isinstance(exchange.body.get("error"), Mapping)
