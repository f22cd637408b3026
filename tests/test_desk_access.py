"""Who gets into the desk, and what each may do: asked over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.desk import PASSWORD, ServedDesk, desk_at
from tests.kit.projects import make_project, model
from tierwise.desk.people import People
from tierwise.desk.server import access_for
from tierwise.errors import Misuse
from tierwise.policy.desk_settings import DeskSettings, ProxySettings

PAGES = ("/", "/metrics")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("desk") / "project"
    return make_project(place, model("large", "http://127.0.0.1:1"))


@pytest.fixture(scope="module")
def desk(root: Path) -> Iterator[ServedDesk]:
    with desk_at(root) as served:
        yield served


def test_a_stranger_gets_no_page(desk: ServedDesk) -> None:
    stranger = desk.browser()
    for path in (*PAGES, "/runs/r1", "/nothing", "/static/../x"):
        answer = stranger.get(path)
        assert answer.status_code == 401, path
        assert desk.project.root.name not in answer.text
    assert stranger.get("/healthz").text == "ok\n"


def test_the_link_signs_in_and_its_token_stays_in_no_address(desk: ServedDesk) -> None:
    browser = desk.browser()
    answer = browser.get(f"/enter?token={desk.access.link_token}")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert desk.access.link_token not in answer.headers["set-cookie"]
    page = browser.get("/")
    assert page.status_code == 200
    assert desk.access.link_token not in page.text


@pytest.mark.parametrize("token", ["", "x", "ä", "\x00", "A" * 199])
def test_a_wrong_link_signs_nobody_in(desk: ServedDesk, token: str) -> None:
    browser = desk.browser()
    answer = browser.client.get("/enter", params={"token": token})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert browser.get("/").status_code == 401


def test_a_changed_or_old_session_is_none(desk: ServedDesk) -> None:
    name = desk.access.cookie
    good = desk.access.new_session("a", "link")
    payload, _, signature = good.partition(".")
    forged = [
        f"{payload}x.{signature}",
        f"{payload}.{signature}x",
        payload,
        ".",
        "",
        "é",
    ]
    old = desk.access.__class__(
        **{**desk.access.__dict__, "clock": lambda: 0.0}
    ).new_session("a", "link")
    for value in (*forged, old):
        answer = desk.browser().client.get(
            "/", headers={"cookie": f"{name}={value}".encode()}
        )
        assert answer.status_code == 401, value
    good_answer = desk.browser().client.get("/", headers={"cookie": f"{name}={good}"})
    assert good_answer.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1.evil.example", "localhost:1", ""]
)
def test_another_host_name_is_refused(desk: ServedDesk, host: str) -> None:
    """A page that points its own name to this machine (DNS rebinding) reads nothing."""
    browser = desk.signed_in()
    for path in ("/", "/healthz", "/sign-in"):
        assert browser.client.get(path, headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_from_elsewhere_is_refused(
    desk: ServedDesk, headers: dict[str, str]
) -> None:
    browser = desk.signed_in()
    assert browser.post("/sign-out", headers=headers).status_code == 403
    signing_in = {"name": "a", "password": PASSWORD}
    assert browser.post("/sign-in", signing_in, headers).status_code == 403
    assert browser.get("/").status_code == 200


def test_a_form_needs_its_sessions_token(desk: ServedDesk) -> None:
    browser = desk.signed_in()
    other = desk.signed_in()
    other.get("/")
    origin = {"origin": desk.url}
    for form in ({}, {"csrf": ""}, {"csrf": "x"}, {"csrf": other.csrf}):
        answer = browser.client.post("/sign-out", data=form, headers=origin)
        assert answer.status_code == 403, form
    assert browser.post("/sign-out").status_code == 303
    assert browser.get("/").status_code == 401


def test_a_form_is_small_and_of_a_known_kind(desk: ServedDesk) -> None:
    browser = desk.signed_in()
    browser.get("/")
    headers = {"origin": desk.url, "x-csrf-token": browser.csrf}
    kinds = {"text/plain": 415, "multipart/form-data; boundary=x": 415}
    for kind, status in kinds.items():
        answer = browser.client.post(
            "/sign-out", content=b"csrf=1", headers={**headers, "content-type": kind}
        )
        assert answer.status_code == status
    large = b"a=" + b"b" * 3_000_000
    form = {**headers, "content-type": "application/x-www-form-urlencoded"}
    assert (
        browser.client.post("/sign-out", content=large, headers=form).status_code == 413
    )
    many = b"&".join([b"a=1"] * 6000)
    assert (
        browser.client.post("/sign-out", content=many, headers=form).status_code == 413
    )
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert browser.client.request(method, "/").status_code == 405


def test_every_answer_has_the_headers(desk: ServedDesk) -> None:
    signed_in = desk.signed_in()
    stranger = desk.browser()
    answers = [stranger.get(path) for path in ("/", "/sign-in", "/healthz", "/enter")]
    answers += [signed_in.get(path) for path in ("/", "/nothing")]
    answers.append(stranger.client.get("/", headers={"host": "evil.example"}))
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert "server" not in answer.headers
        assert "<script>" not in answer.text
        assert " style=" not in answer.text


def test_passwords_are_hashed_and_a_new_one_ends_old_sessions(desk: ServedDesk) -> None:
    people = desk.access.people
    browser = desk.signed_in("viewer", "eve")
    assert PASSWORD not in people.path.read_text()
    assert people.path.stat().st_mode & 0o077 == 0
    assert browser.get("/").status_code == 200
    people.add("eve", "viewer", "another long password")
    assert browser.get("/").status_code in (303, 401)
    wrong = desk.browser()
    for form in (
        {"name": "eve", "password": PASSWORD},
        {"name": "nobody", "password": PASSWORD},
        {"name": "", "password": ""},
        {"name": "eve", "password": "x" * 5000},
    ):
        assert wrong.post("/sign-in", form).status_code == 401
        assert "set-cookie" not in wrong.get("/sign-in").headers
    people.remove("eve")


def test_wrong_passwords_are_counted(desk: ServedDesk) -> None:
    browser = desk.browser()
    form = {"name": "mallory", "password": "x"}
    statuses = [browser.post("/sign-in", form).status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]


def test_a_desk_that_others_reach_needs_people_or_a_proxy(
    root: Path, tmp_path: Path
) -> None:
    empty = make_project(tmp_path / "project", model("large", "http://127.0.0.1:1"))
    settings = DeskSettings()
    for host in ("0.0.0.0", "::", "192.0.2.1", "desk.example"):
        with pytest.raises(Misuse):
            access_for(empty, settings, host, 4280)
    for host in ("127.0.0.1", "::1", "localhost"):
        assert access_for(empty, settings, host, 4280).link_user
    People.of(empty).add("ann", "reviewer", PASSWORD)
    access = access_for(empty, settings, "192.0.2.1", 4280)
    # Others reach it, so no link signs anyone in.
    assert access.link_user is None
    assert not access.is_link_token(access.link_token)
    proxy = ProxySettings(header="X-User", addresses=("192.0.2.9",))
    People.of(empty).remove("ann")
    assert access_for(empty, DeskSettings(proxy=proxy), "192.0.2.1", 4280).proxy


def test_the_proxys_header_counts_from_the_proxy_alone(root: Path) -> None:
    proxy = ProxySettings(header="X-User", addresses=("127.0.0.1",), role="viewer")
    other = ProxySettings(header="X-User", addresses=("192.0.2.9",), role="viewer")
    with desk_at(root, proxy=proxy, link_user=None) as desk:
        browser = desk.browser()
        assert browser.get("/").status_code in (303, 401)
        page = browser.get("/", headers={"x-user": "ann"})
        assert page.status_code == 200
        assert "ann · viewer" in page.text
        two = [("x-user", "ann"), ("x-user", "root")]
        assert browser.client.get("/", headers=two).status_code != 200
        # A form of a signed-in person still needs token and origin.
        answer = browser.client.post("/sign-out", headers={"x-user": "ann"})
        assert answer.status_code == 403
    with desk_at(root, proxy=other, link_user=None) as desk:
        answer = desk.browser().get("/", headers={"x-user": "ann"})
        assert answer.status_code != 200


def test_roles_are_those_of_the_file(desk: ServedDesk) -> None:
    viewer = desk.signed_in("viewer")
    assert "some viewer · viewer" in viewer.get("/").text
    desk.access.people.add("some viewer", "reviewer", PASSWORD)
    # The password was set anew, so the person signs in again.
    assert viewer.get("/").status_code in (303, 401)
