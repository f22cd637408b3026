"""The desk as an ASGI application."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tierwise.desk.access import Access
from tierwise.desk.desk import Desk
from tierwise.desk.guard import SIGN_IN, Guard
from tierwise.desk.pages import (
    alerts,
    compare,
    document,
    health,
    labels,
    metrics,
    overview,
    queue,
    run,
    sign_in,
    static,
)
from tierwise.errors import LedgerError, Misuse, TierwiseError, UnknownName
from tierwise.ledger import Ledger
from tierwise.project import Project

_TITLES = {
    401: "Sign in",
    403: "Not allowed",
    404: "Not found",
    409: "Decided meanwhile",
    413: "Too large",
    429: "Too many tries",
    421: "Unknown name",
    503: "The ledger does not answer",
}
_WHY = {
    404: "There is no page at this address. It may have been moved, or mistyped.",
    405: "This address takes no such request; open it from a page of the desk.",
}
# One router for each page.
ROUTERS = (
    static.router,
    health.router,
    sign_in.router,
    overview.router,
    run.router,
    document.router,
    alerts.router,
    metrics.router,
    queue.router,
    labels.router,
    compare.router,
)


def build_app(
    project: Project,
    ledger: Ledger,
    access: Access,
    *,
    prefect_url: Callable[[], str | None] = lambda: None,
    keep_s: float = 2.0,
) -> FastAPI:
    """Return the application. The caller closes the ledger after the server has ended.

    `prefect_url` returns the address of Prefect's UI, if any. Figures are up to `keep_s` seconds
    old; with 0, each page reads them from the ledger.
    """
    app = FastAPI(
        title="tierwise desk", docs_url=None, redoc_url=None, openapi_url=None
    )
    desk = Desk(project, ledger, access, prefect_url, keep_s)
    app.state.desk = desk
    for router in ROUTERS:
        app.include_router(router)

    def refuse(request: Request, status: int, why: str) -> Response:
        return _refusal(desk, request, status, why)

    @app.exception_handler(StarletteHTTPException)
    def on_http(request: Request, error: HTTPException) -> Response:
        why = str(error.detail)
        if why == _phrase(error.status_code):
            # Of the framework: such a text says no more than the title.
            why = _WHY.get(error.status_code, "This request cannot be answered.")
        return refuse(request, error.status_code, why)

    @app.exception_handler(RequestValidationError)
    def on_wrong_value(request: Request, error: RequestValidationError) -> Response:  # noqa: ARG001
        return refuse(
            request, 400, "a value in the address or the form is not of its kind"
        )

    @app.exception_handler(TierwiseError)
    def on_error(request: Request, error: TierwiseError) -> Response:
        return refuse(request, _status_of(error), str(error))

    app.add_middleware(_RenewsFigures, desk=desk)
    # Outermost: nothing of the application is reached without it.
    app.add_middleware(Guard, access=access, refusal=refuse)
    return app


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


class _RenewsFigures:
    """After a person's form, the next page shows no figure from before it."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app = app
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return

        async def renewing(message: Message) -> None:
            # Before the answer: the browser asks for the next page as soon as it has this one.
            if message["type"] == "http.response.start":
                self._desk.kept.renew()
            await send(message)

        await self._app(scope, receive, renewing)


def _status_of(error: TierwiseError) -> int:
    if isinstance(error, UnknownName):
        return 404
    if isinstance(error, Misuse):
        return 400
    if isinstance(error, LedgerError):
        return 503
    return 500


def _refusal(desk: Desk, request: Request, status: int, why: str) -> Response:
    """Return a page that says why a request is refused."""
    if status == 421:
        # Without our style sheet, which that name would not get either.
        return PlainTextResponse(f"{why}\n", status)
    has_people = desk.access.link_user is None or bool(desk.access.people.accounts())
    wants_page = "text/html" in request.headers.get("accept", "")
    if status == 401 and request.method == "GET" and wants_page and has_people:
        return RedirectResponse(SIGN_IN, 303)
    return desk.page(
        request,
        "refused.html.j2",
        status,
        title=_TITLES.get(status, "Refused"),
        why=why,
        code=status,
        has_people=has_people,
    )
