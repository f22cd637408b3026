"""Signing in, by the link or by a password, and signing out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from tierwise.desk.access import SESSION_S, By, Viewer
from tierwise.desk.desk import Desk, TheDesk
from tierwise.desk.guard import SIGN_IN
from tierwise.desk.tries import WAIT_S

router = APIRouter()


@router.get("/enter")
def enter(
    desk: TheDesk, request: Request, token: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """Sign in by the link, and go on to an address without the token."""
    access = desk.access
    if access.link_user is None or not access.is_link_token(token):
        return desk.page(
            request,
            "refused.html.j2",
            401,
            title="Sign in",
            why="this link is not valid; `tierwise desk` prints the present one",
            code=401,
            has_people=access.link_user is None,
        )
    return _signed_in(desk, request, access.link_user, "link")


@router.get(SIGN_IN)
def sign_in_page(desk: TheDesk, request: Request) -> Response:
    """Show the form."""
    return desk.page(request, "sign_in.html.j2", wrong="", name="")


@router.post(SIGN_IN)
def sign_in(desk: TheDesk, request: Request) -> Response:
    """Check name and password, and begin a session."""
    form = request.state.form
    name = str(form.get("name", ""))[:200]
    password = str(form.get("password", ""))
    address = request.client.host if request.client else ""
    if not desk.tries.begin(name, address):
        why = f"too many wrong passwords; wait {WAIT_S:.0f} s"
        return desk.page(request, "sign_in.html.j2", 429, wrong=why, name=name)
    with desk.tries.turn() as has_turn:
        if not has_turn:
            desk.tries.give_back(name, address)
            why = "many people sign in at this moment; try again"
            return desk.page(request, "sign_in.html.j2", 429, wrong=why, name=name)
        account = desk.access.people.check(name, password)
    if account is None:
        why = "name or password is wrong"
        return desk.page(request, "sign_in.html.j2", 401, wrong=why, name=name)
    desk.tries.succeed(account.name)
    return _signed_in(desk, request, account.name, "password", account.stamp)


@router.post("/sign-out")
def sign_out(desk: TheDesk, person: Viewer) -> Response:
    """End the session of this browser."""
    desk.access.end_session(person)
    answer = RedirectResponse(SIGN_IN, 303)
    answer.delete_cookie(desk.access.cookie, path="/")
    return answer


def _signed_in(
    desk: Desk, request: Request, name: str, by: By, stamp: str = ""
) -> Response:
    # Behind a proxy with TLS, the page's own address says so; the guard has checked it.
    is_behind_tls = request.headers.get("origin", "").startswith("https:")
    answer = RedirectResponse("/", 303)
    answer.set_cookie(
        desk.access.cookie,
        desk.access.new_session(name, by, stamp),
        max_age=int(SESSION_S),
        path="/",
        httponly=True,
        # Not `strict`: a link in an alert's mail would ask to sign in again. A form of another
        # site comes without the cookie either way.
        samesite="lax",
        secure=desk.access.is_secure or is_behind_tls,
    )
    return answer
