"""The guard in front of every page: Host, sign-in, Origin, CSRF token, size, and headers.

It stands before the routes, so that a page that forgets to ask is refused all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import FormData, MutableHeaders, UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tierwise.desk.access import Access, Person

log = logging.getLogger(__name__)
CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"
_FORM = "application/x-www-form-urlencoded"
_LARGEST_BODY = 2 * 1024 * 1024
_LARGEST_SIGN_IN = 16 * 1024  # of strangers
_MOST_FIELDS = 5000
_METHODS = frozenset({"GET", "HEAD", "POST"})
SIGN_IN = "/sign-in"
# The pages that answer strangers; they say nothing about the project.
_OPEN = frozenset({"/healthz", "/enter", SIGN_IN})
_STATIC = "/static/"
_HEADERS = {
    # Scripts, styles and all else from the desk alone; no frame shows it, no base moves its links.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not `no-referrer`, with which browsers send `Origin: null` with a form of our own page.
    # No other site gets a referrer.
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
# The page for a refusal: request, status, and the reason in words.
Refusal = Callable[[Request, int, str], Response]


class _Refused(Exception):
    """A request that no page gets."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Guard:
    """ASGI middleware: a request reaches a page only if all of it is in order."""

    def __init__(self, app: ASGIApp, access: Access, refusal: Refusal) -> None:
        self._app = app
        self._access = access
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            # No page has a web socket; the life of the server has nothing to guard.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        request.state.person = None
        request.state.form = FormData()
        guarded = _with_headers(send)
        try:
            body = await self._let_in(request)
        except _Refused as refused:
            answer = self._refusal(request, refused.status, refused.why)
            await answer(scope, receive, guarded)
            return
        begun = _Begun(guarded)
        try:
            await self._app(scope, _once(body) if body is not None else receive, begun)
        except Exception:
            if begun.is_begun:
                raise
            # The log is its owner's alone; the page says nothing that may quote a document.
            log.exception("%s %s failed", request.method, request.url.path)
            why = "this page failed; the desk's log has the reason"
            await self._refusal(request, 500, why)(scope, receive, guarded)

    async def _let_in(self, request: Request) -> bytes | None:
        """Set the person and the form; return the body of a POST. Raises _Refused."""
        hosts = request.headers.getlist("host")
        # A page that has pointed its own name to this address (DNS rebinding) sends that name.
        if len(hosts) != 1 or hosts[0].lower() not in self._access.hosts:
            raise _Refused(
                421,
                "this desk is not known under that name; see `names` in [tool.tierwise.desk]",
            )
        if request.method not in _METHODS:
            raise _Refused(
                405, "pages are read and forms are sent; there is nothing else"
            )
        # What routes are found by. The address of a request is cut at a `?` that was encoded.
        path = request.scope["path"]
        person = self._access.person_of(request)
        request.state.person = person
        is_open = path in _OPEN or path.startswith(_STATIC)
        if person is None and not is_open:
            raise _Refused(401, "sign in first")
        if request.method != "POST":
            return None
        _refuse_other_origin(request)
        largest = _LARGEST_SIGN_IN if path == SIGN_IN else _LARGEST_BODY
        body = await _body(request, largest)
        form = _form(request, body)
        request.state.form = form
        if path == SIGN_IN:
            # There is no session yet; the origin has been checked.
            return body
        token = request.headers.get(CSRF_HEADER) or str(form.get(CSRF_FIELD, ""))
        if person is None or not self._access.is_csrf_token(person, token):
            raise _Refused(
                403, "the form is not from your session; load the page again"
            )
        return body


class _Begun:
    """Sends messages on, and knows whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_begun = False

    async def __call__(self, message: Message) -> None:
        self.is_begun = True
        await self._send(message)


def _refuse_other_origin(request: Request) -> None:
    """Refuse a form of another site's page, or of a page that hides where it is from."""
    if "origin" not in request.headers:
        raise _Refused(
            403, "the form is sent without an Origin header, which browsers send"
        )
    origin = urlsplit(request.headers["origin"])
    is_own = origin.netloc.lower() == request.headers["host"].lower()
    if origin.scheme not in ("http", "https") or not is_own:
        raise _Refused(403, "the form is from another site")
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise _Refused(403, "the form is from another site")


async def _body(request: Request, largest: int) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > largest:
            raise _Refused(413, "the form is too large")
    return body


def _form(request: Request, body: bytes) -> FormData:
    """Return the fields of a form. A JSON body has none, and needs the token in a header."""
    kind = request.headers.get("content-type", _FORM).partition(";")[0].strip().lower()
    if kind == "application/json":
        return FormData()
    if kind != _FORM:
        raise _Refused(415, f"send {_FORM} or application/json")
    try:
        fields: list[tuple[str, str | UploadFile]] = []
        fields += parse_qsl(
            body.decode("latin-1"),
            keep_blank_values=True,
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        raise _Refused(413, "the form has too many fields") from None
    return FormData(fields)


def _once(body: bytes) -> Receive:
    """Return a receiver that gives a body which was read already."""
    waiting: list[Message] = [
        {"type": "http.request", "body": body, "more_body": False}
    ]

    async def receive() -> Message:
        return waiting.pop() if waiting else {"type": "http.disconnect"}

    return receive


def _with_headers(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                # A static file may be kept by the browser; it says so itself.
                if name == "cache-control" and "cache-control" in headers:
                    continue
                headers[name] = value
        await send(message)

    return guarded


def person_of(request: Any) -> Person | None:
    """Return the person that the guard found."""
    person = request.state.person
    return person if isinstance(person, Person) else None
