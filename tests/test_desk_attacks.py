"""The desk as an attacker tries it, over a real socket. `test_desk_routes` walks every route."""

from __future__ import annotations

import hashlib
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.kit.desk import PASSWORD, ServedDesk, desk_at
from tests.kit.reviewed import waiting_project
from tests.test_desk_review import first_item, form_of
from tests.test_desk_routes import every_route
from tierwise.desk.tries import Tries
from tierwise.policy.desk_settings import ProxySettings

LOOPBACK = "127.0.0.1"
TRAVERSALS = (
    "../pyproject.toml",
    "..%2f..%2fpyproject.toml",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%2fetc%2fpasswd",
    "....//....//etc/passwd",
    "..%5c..%5cpyproject.toml",
    "%00",
    "file:%2f%2f%2fetc%2fpasswd",
)
# What a file of the project or of this machine would show.
LEAKS = ("root:x:", "[tool.tierwise]", "routing_rules/", "BEGIN PRIVATE")
NAMES = ("id", "document", "run", "path", "file", "page", "name", "at", "step", "find")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return waiting_project(tmp_path_factory.mktemp("attacked"), 4)


@pytest.fixture
def desk(root: Path) -> Iterator[ServedDesk]:
    with desk_at(root) as served:
        yield served


def cookie_of(desk: ServedDesk, browser: Any) -> dict[str, str]:
    return {desk.access.cookie: browser.client.cookies[desk.access.cookie]}


def test_a_copied_cookie_is_worth_nothing_after_sign_out(
    desk: ServedDesk, root: Path
) -> None:
    """Also by the link, at another desk of the project, and after a restart."""
    for role in ("reviewer", "admin"):
        browser = desk.signed_in(role)
        browser.get("/")
        copied = cookie_of(desk, browser)
        thief = desk.browser(cookies=copied)
        assert thief.get("/").status_code == 200
        other = desk.browser()
        if role == "admin":
            other.get(f"/enter?token={desk.access.link_token}")
        else:
            form = {"name": "some reviewer", "password": PASSWORD}
            assert other.post("/sign-in", form).status_code == 303
        assert browser.post("/sign-out").status_code == 303
        assert thief.get("/").status_code in (303, 401)
        # The other session of the same person goes on.
        assert other.get("/").status_code == 200
        with desk_at(root, cookie=desk.access.cookie) as again:
            assert again.browser(cookies=copied).get("/").status_code in (303, 401)
    ended = root / ".tierwise" / "desk" / "ended.json"
    assert ended.stat().st_mode & 0o077 == 0
    ended.write_text("{")
    assert desk.signed_in("reviewer").get("/").status_code == 200


def test_a_session_of_before_is_not_the_one_after_signing_in(desk: ServedDesk) -> None:
    """Session fixation: whatever the browser brought, it gets a session of its own."""
    victim = desk.signed_in("viewer", "vera")
    planted = cookie_of(desk, victim)
    desk.access.people.add("walt", "reviewer", PASSWORD)
    browser = desk.browser(cookies=planted)
    form = {"name": "walt", "password": PASSWORD}
    answer = browser.client.post("/sign-in", data=form, headers={"origin": desk.url})
    assert answer.status_code == 303
    assert planted[desk.access.cookie] not in answer.headers["set-cookie"]
    assert "vera" not in desk.browser(cookies=planted).get("/").text.replace(
        "vera · viewer", ""
    )


def test_a_token_of_before_a_new_password_is_refused_in_the_new_session(
    desk: ServedDesk,
) -> None:
    browser = desk.signed_in("reviewer", "rita")
    page = first_item(browser)
    old = form_of(page, "/review/decide")
    copied = cookie_of(desk, browser)
    desk.access.people.add("rita", "reviewer", f"{PASSWORD} 2")
    origin = {"origin": desk.url}
    stolen = desk.browser(cookies=copied)
    decided = stolen.client.post(
        "/review/decide", data={**old, "word": "reject"}, headers=origin
    )
    assert decided.status_code == 401
    form = {"name": "rita", "password": f"{PASSWORD} 2"}
    assert browser.post("/sign-in", form).status_code == 303
    replayed = browser.client.post(
        "/review/decide", data={**old, "word": "reject"}, headers=origin
    )
    assert replayed.status_code == 403


def test_a_lesser_role_counts_with_the_next_request(desk: ServedDesk) -> None:
    browser = desk.signed_in("reviewer", "rolf")
    form = {**form_of(first_item(browser), "/review/decide"), "word": "reject"}
    path = desk.access.people.path
    text = path.read_text()
    # By hand, so that the password and with it the session stay.
    path.write_text(
        re.sub(r'("name": "rolf",\s*"role": )"reviewer"', r'\1"viewer"', text)
    )
    assert browser.post("/review/decide", form).status_code == 403
    assert "rolf · viewer" in browser.get("/").text
    desk.access.people.remove("rolf")
    assert browser.post("/review/decide", form).status_code == 401


def test_ten_thousand_wrong_passwords_are_five_tries(
    desk: ServedDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also many at once: a try counts before its password is checked."""
    checked: list[str] = []
    scrypt = hashlib.scrypt

    def counted(password: bytes, **settings: Any) -> bytes:
        checked.append(password.decode())
        return scrypt(password, **settings)

    desk.access.people.add("nina", "viewer", PASSWORD)
    monkeypatch.setattr(hashlib, "scrypt", counted)
    desk.access.people.check("nina", "warm")
    checked.clear()

    def attack(number: int) -> int:
        browser = desk.browser()
        form = {"name": "nina", "password": f"guess {number}"}
        return browser.post("/sign-in", form).status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = Counter(pool.map(attack, range(40)))
    assert set(statuses) == {401, 429}
    assert statuses[401] == len(checked) <= 5
    # The rest of the ten thousand against the counter itself.
    tries = desk.app.state.desk.tries
    assert sum(tries.begin("nina", LOOPBACK) for _ in range(10_000)) <= 5
    # The right password waits as well, and other people do not.
    right = {"name": "nina", "password": PASSWORD}
    assert desk.browser().post("/sign-in", right).status_code == 429
    assert desk.signed_in("viewer", "olaf").get("/").status_code == 200


def test_one_address_cannot_try_many_names() -> None:
    tries = Tries()
    begun = [tries.begin(f"name {number}", "192.0.2.1") for number in range(200)]
    assert sum(begun) < 100
    assert tries.begin("ann", "192.0.2.2")
    with tries.turn() as first, tries.turn() as second:
        assert first
        assert second


def test_an_unknown_name_costs_as_much_as_a_wrong_password(
    desk: ServedDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs: list[tuple[Any, ...]] = []
    scrypt = hashlib.scrypt

    def noted(password: bytes, **settings: Any) -> bytes:
        costs.append(tuple(settings[name] for name in ("n", "r", "p", "dklen")))
        return scrypt(password, **settings)

    desk.access.people.add("paul", "viewer", PASSWORD)
    monkeypatch.setattr(hashlib, "scrypt", noted)
    answers = []
    for name in ("paul", "nobody at all"):
        answer = desk.browser().post("/sign-in", {"name": name, "password": "x"})
        answers.append((answer.status_code, answer.text.replace(name, "")))
    assert len(costs) == 2
    assert costs[0] == costs[1]
    clock = re.compile(r"as of [^<]*")
    pages = {(status, clock.sub("", page)) for status, page in answers}
    assert len(pages) == 1


def test_very_long_inputs_are_refused_or_found_nowhere(desk: ServedDesk) -> None:
    browser = desk.signed_in("reviewer")
    item = form_of(first_item(browser), "/review/decide")
    long = "x" * 50_000
    for name, value in (("note", long), ("request", long), ("at", long), ("run", long)):
        form = {**item, "word": "comment", "note": "a note", name: value}
        assert 400 <= browser.post("/review/decide", form).status_code < 500, name
    for seen in ("9" * 30, "9" * 5000, "-1", "1@nan", "1@", "x"):
        form = {**item, "word": "reject", "seen": seen, "request": seen[:9]}
        if seen not in ("1@nan", "1@"):
            assert 400 <= browser.post("/review/decide", form).status_code < 500, seen
        many = {"word": "rejected", "seen": seen, "shown_at": "inf"}
        assert browser.post("/review/bulk", many).status_code < 500, seen
    for form in ({"alert": long}, {"alert": long, "request": long}):
        assert browser.post("/alerts/acknowledge", form).status_code == 404
    for path in (
        f"/runs/{long}",
        f"/runs?flow={long}",
        f"/review?step={long}",
        f"/review?older={'9' * 5000}w",
        f"/review/item?run={long}&document=x&at=y",
        f"/healthz?challenge={long}",
        f"/?days={'9' * 5000}",
    ):
        assert browser.get(path).status_code < 500, path[:40]
    stranger = desk.browser()
    large = {"name": "x" * 100_000, "password": "x"}
    assert stranger.post("/sign-in", large).status_code == 413
    assert desk.ledger.reviews.last_number() == 0


def test_no_route_gives_a_file_away(desk: ServedDesk) -> None:
    """Page pictures and downloads included: whatever has an id or a name in its address."""
    browser = desk.signed_in()
    asked = 0
    for route in every_route(desk.app.router.routes):
        if "GET" not in (route.methods or ()):
            continue
        for evil in TRAVERSALS:
            path = re.sub(r"{[^}]*}", evil, route.path)
            queries = [""]
            if route.dependant.query_params or "{" not in route.path:
                queries += ["?" + "&".join(f"{name}={evil}" for name in NAMES)]
            for query in queries:
                answer = browser.client.get(path + query)
                asked += 1
                assert answer.status_code < 500, path + query
                assert not any(leak in answer.text for leak in LEAKS), path + query
    assert asked > len(TRAVERSALS)


@pytest.mark.parametrize(
    "target",
    [
        "/healthz%3F/../runs",
        "/static/%2e%2e/runs",
        "//evil.example/healthz",
        "/healthz/../runs",
        "/%2e/runs",
        "/enter%23/runs",
        "http://evil.example/runs",
        "/runs#/healthz",
        "/runs;/healthz",
    ],
)
def test_no_spelling_of_an_address_passes_the_guard(
    desk: ServedDesk, target: str
) -> None:
    """As it is sent, not as a client would tidy it up."""
    host = desk.url.removeprefix("http://")
    port = int(host.rpartition(":")[2])
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((LOOPBACK, port), 20) as connection:
        connection.sendall(request.encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    status = int(answer.split(b" ", 2)[1])
    assert status in (303, 400, 401, 404), answer[:300]
    assert b"<th" not in answer


def test_two_hosts_or_none_are_refused(desk: ServedDesk) -> None:
    """DNS rebinding, and a request that two programs would read differently."""
    host = desk.url.removeprefix("http://")
    port = int(host.rpartition(":")[2])
    heads = (
        "Host: evil.example",
        f"Host: {host}\r\nHost: evil.example",
        f"Host: evil.example\r\nX-Forwarded-Host: {host}",
        f"Host: {host}.evil.example",
        f"Host: evil.example@{host}",
        "X: y",
    )
    for head in heads:
        request = f"GET /healthz HTTP/1.1\r\n{head}\r\nConnection: close\r\n\r\n"
        with socket.create_connection((LOOPBACK, port), 20) as connection:
            connection.sendall(request.encode())
            status = int(connection.recv(65536).split(b" ", 2)[1])
        assert status in (400, 421), head


def test_a_proxys_header_is_a_name_or_nothing(root: Path) -> None:
    proxy = ProxySettings(header="X-User", addresses=(LOOPBACK,), role="viewer")
    with desk_at(root, proxy=proxy, link_user=None) as desk:
        desk.access.people.add("Zoë", "reviewer", PASSWORD)
        browser = desk.browser()
        utf8 = [(b"x-user", "Zoë".encode())]
        assert "Zoë · reviewer" in browser.client.get("/", headers=utf8).text
        for name in (b"x" * 500, b"", "\u202eann".encode()):
            answer = browser.client.get("/", headers=[(b"x-user", name)])
            assert answer.status_code != 200, name
        desk.access.people.remove("Zoë")


def test_every_page_of_texts_is_kept_by_no_cache_and_shown_in_no_frame(
    desk: ServedDesk,
) -> None:
    browser = desk.signed_in()
    page = first_item(browser)
    run = desk.ledger.runs.resolve("latest").id
    answers = [
        page,
        browser.get(f"/runs/{run}"),
        browser.get(f"/runs/{run}/document?id=001.txt"),
        browser.get("/metrics"),
        browser.post("/review/undo", {"action": "none"}),
        browser.post("/review/decide", {}),
        browser.client.get("/review/item", headers={"host": "evil.example"}),
    ]
    for answer in answers:
        headers = answer.headers
        assert headers["cache-control"] == "no-store", answer.url
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        policy = headers["content-security-policy"]
        for word in ("unsafe", "*", "data:", "http:", "blob:"):
            assert word not in policy, word


def test_a_cookie_behind_a_proxy_with_tls_is_for_tls_alone(root: Path) -> None:
    with desk_at(root) as plain:
        hosts = plain.access.hosts | {"desk.example.com"}
        plain.access.people.add("sue", "viewer", PASSWORD)
    form = {"name": "sue", "password": PASSWORD}
    with desk_at(root, hosts=hosts) as desk:
        for scheme, is_secure in (("https", True), ("http", False)):
            headers = {"host": "desk.example.com"}
            headers["origin"] = f"{scheme}://desk.example.com"
            answer = desk.browser().client.post("/sign-in", data=form, headers=headers)
            assert answer.status_code == 303
            assert ("secure" in answer.headers["set-cookie"].lower()) == is_secure


def test_a_flood_of_sign_ins_leaves_the_desk_to_the_others(desk: ServedDesk) -> None:
    reader = desk.signed_in("viewer", "tina")

    def attack(number: int) -> int:
        form = {"name": f"name {number}", "password": "x"}
        return desk.browser().post("/sign-in", form).status_code

    with ThreadPoolExecutor(24) as pool:
        flood = [pool.submit(attack, number) for number in range(80)]
        time.sleep(0.1)
        assert reader.get("/runs").status_code == 200
        statuses = Counter(each.result() for each in flood)
    assert set(statuses) <= {401, 429}
    assert statuses[429] >= 20
