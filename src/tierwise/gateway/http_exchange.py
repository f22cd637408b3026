"""The request and response of one call, whichever lane sent it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson


class TooLarge(Exception):
    """A response's body is larger than any answer."""


class ErrorStatus(Exception):
    """The server answered with a status of 300 or more; the exchange has it."""


@dataclass
class HttpExchange:
    """One call's request and its response or failure.

    `url` is None until something is sent, `status` until it is answered. Names in `headers` count
    in any case.
    """

    direct: bool  # no proxy may see it
    url: str | None = field(default=None, repr=False)
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes = field(default=b"", repr=False)
    failure: Exception | None = None

    @cached_property
    def body(self) -> dict[str, Any]:
        """The response's JSON object, empty when there is none. Ask only after the response."""
        try:
            body = orjson.loads(self.content)
        except orjson.JSONDecodeError:
            return {}
        return body if isinstance(body, dict) else {}
