"""The request and response of one call, whichever lane sent it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tierwise.gateway.json_body import decoded, json_object


class TooLarge(Exception):
    """A response's body is larger than any answer."""


class ErrorStatus(Exception):
    """The server answered with a status of 300 or more, or with an error in the body.

    The exchange has it.
    """


class NotAReply(Exception):
    """The server answered with a good status and a body that is no reply; `detail` says what."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


@dataclass
class HttpExchange:
    """One call's request and its response or failure.

    `url` is None until a lane begins to send, `status` until it is answered. `sent` is set just
    before the request goes over a connection that has been made. Names in `headers` count in any
    case.
    """

    direct: bool  # no proxy may see it
    url: str | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)  # it may hold a password
    sent: bool = False
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes = field(default=b"", repr=False)
    failure: Exception | None = None

    @cached_property
    def body(self) -> dict[str, Any]:
        """The response's JSON object, empty when there is none. Ask only after the response."""
        return json_object(self.content, self._content_type)

    @cached_property
    def text(self) -> str:
        """The response's content as text. Ask only after the response."""
        return decoded(self.content, self._content_type)

    @property
    def has_answered(self) -> bool:
        """Return True if a whole response with a good status was received."""
        if self.failure is not None or self.status is None:
            return False
        return self.status < 300

    @property
    def _content_type(self) -> str | None:
        for name, value in self.headers.items():
            if name.lower() == "content-type":
                return value
        return None
