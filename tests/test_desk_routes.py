"""Every route of the desk refuses strangers, forms from elsewhere and people without the role.

The routes are those of the application itself, so that a new one is walked as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from tests.kit.desk import ServedDesk, desk_at
from tests.kit.projects import make_project, model

# What a person may do without a role: they sign in, and out.
FOR_ALL = {"/sign-in", "/sign-out"}
OPEN = {"/healthz", "/enter", "/sign-in"}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[ServedDesk]:
    root = make_project(tmp_path / "project", model("large", "http://127.0.0.1:1"))
    with desk_at(root) as served:
        yield served


def every_route(routes: list[BaseRoute]) -> list[APIRoute]:
    """Return the routes with those of the included routers; a mount would hide its own."""
    found: list[APIRoute] = []
    for route in routes:
        inner = getattr(route, "original_router", None)
        if isinstance(route, APIRoute):
            found.append(route)
        elif inner is not None:
            found += every_route(inner.routes)
        else:
            raise AssertionError(f"this walk knows no {type(route).__name__}")
    return found


def address(route: APIRoute) -> str:
    return re.sub(r"{[^}]*}", "x", route.path)


def walk(desk: ServedDesk) -> set[tuple[str, str]]:
    """Return the faults: the route, and the request that it should have refused."""
    faults: set[tuple[str, str]] = set()
    stranger = desk.browser()
    stranger.csrf = "x"
    viewer = desk.signed_in("viewer", "vic")
    admin = desk.signed_in("admin")
    other = desk.signed_in("admin")
    for browser in (viewer, admin, other):
        browser.get("/")

    def expect(path: str, request: str, status: int, *refused: int) -> None:
        if status not in refused:
            faults.add((path, f"{request}: {status}"))

    for route in every_route(desk.app.router.routes):
        path = address(route)
        if "GET" in (route.methods or ()):
            is_open = path in OPEN or path.startswith("/static/")
            if not is_open:
                expect(path, "read by a stranger", stranger.get(path).status_code, 401)
            evil = {"host": "evil.example"}
            expect(path, "other host", admin.get(path, headers=evil).status_code, 421)
        if "POST" not in (route.methods or ()):
            continue
        if path != "/sign-in":
            expect(path, "sent by a stranger", stranger.post(path).status_code, 401)
            own = {"origin": desk.url}
            tokens: tuple[dict[str, str], ...] = (
                {},
                {"csrf": ""},
                {"csrf": "x"},
                {"csrf": other.csrf},
                {"csrf": viewer.csrf},
            )
            for form in tokens:
                answer = admin.client.post(path, data=form, headers=own)
                expect(path, "without its token", answer.status_code, 403)
        for elsewhere in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": desk.url.replace("http:", "ftp:")},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ):
            answer = admin.post(path, headers=elsewhere)
            expect(path, f"from {elsewhere}", answer.status_code, 403)
        nowhere = admin.client.post(path, data={"csrf": admin.csrf})
        expect(path, "without an origin", nowhere.status_code, 403)
        if path not in FOR_ALL:
            expect(path, "sent by a viewer", viewer.post(path).status_code, 403)
    return faults


def test_every_route_refuses_those_who_may_not(desk: ServedDesk) -> None:
    posted = {
        address(route)
        for route in every_route(desk.app.router.routes)
        if "POST" in (route.methods or ())
    }
    assert {"/review/decide", "/labels/label", "/compare/verdict"} < posted
    assert walk(desk) == set()


def test_a_route_without_a_role_is_found(desk: ServedDesk) -> None:
    @desk.app.post("/added")
    def added() -> str:
        return "done"

    assert {path for path, _ in walk(desk)} == {"/added"}
