"""The review queue's pages over a real socket, with plain forms: no script is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.kit.desk import Browser, ServedDesk, desk_at
from tests.kit.reviewed import waiting_project
from tierwise.audit.verify import verify_ledger


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return waiting_project(tmp_path_factory.mktemp("review"), 30)


@pytest.fixture(scope="module")
def desk(root: Path) -> Iterator[ServedDesk]:
    with desk_at(root) as served:
        yield served


@pytest.fixture(scope="module")
def ada(desk: ServedDesk) -> Browser:
    return desk.signed_in("reviewer", "ada")


@pytest.fixture(scope="module")
def bob(desk: ServedDesk) -> Browser:
    return desk.signed_in("reviewer", "bob")


def form_of(page: httpx.Response, action: str) -> dict[str, str]:
    """Return the fields of a form as a browser would send them, its buttons left out."""
    form = re.search(
        rf'<form method="post" action="{re.escape(action)}".*?</form>',
        page.text,
        re.DOTALL,
    )
    assert form, page.text[:2000]
    found: dict[str, str] = {}
    for tag in re.findall(r"<input[^>]*>", form[0]):
        if 'type="radio"' in tag or 'type="checkbox"' in tag:
            continue
        name = re.search(r'name="([^"]*)"', tag)
        value = re.search(r'value="([^"]*)"', tag)
        if name:
            found[unescape(name[1])] = unescape(value[1]) if value else ""
    for name, text in re.findall(
        r'<textarea[^>]*name="([^"]*)"[^>]*>\n?(.*?)</textarea>', form[0], re.DOTALL
    ):
        found[unescape(name)] = unescape(text)
    for name, options in re.findall(
        r'<select[^>]*name="([^"]*)"[^>]*>(.*?)</select>', form[0], re.DOTALL
    ):
        chosen = re.search(r"<option selected>([^<]*)<", options)
        found[unescape(name)] = unescape(chosen[1]) if chosen else ""
    return found


def first_item(browser: Browser, query: str = "") -> httpx.Response:
    """Open the queue's first item."""
    page = browser.get(f"/review{query}")
    assert page.status_code == 200, page.text
    link = re.search(r'class="start" href="([^"]*)"', page.text)
    assert link, page.text
    return browser.get(unescape(link[1]))


def send(
    browser: Browser, page: httpx.Response, word: str, **more: str
) -> httpx.Response:
    return browser.post(
        "/review/decide", {**form_of(page, "/review/decide"), "word": word, **more}
    )


def followed(browser: Browser, answer: httpx.Response) -> httpx.Response:
    assert answer.status_code == 303, answer.text
    return browser.get(answer.headers["location"])


def title(page: httpx.Response) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", page.text)
    assert found
    return unescape(found[1])


def status(desk: ServedDesk, document: str) -> str:
    run = desk.ledger.runs.resolve("latest")
    (row,) = desk.ledger.runs.outcomes(run.id, document)
    return row.outcome.status


def test_an_edit_is_validated_by_the_schema_and_the_checks(
    desk: ServedDesk, ada: Browser
) -> None:
    page = first_item(ada)
    document = title(page)
    assert "my invoice of May is wrong" in page.text
    wrong = send(ada, page, "edit", **{"field.label": "nonsense"})
    assert wrong.status_code == 422
    assert status(desk, document) == "deferred"
    refused = send(ada, page, "edit", **{"field.evidence": "not in the letter"})
    assert refused.status_code == 422
    # What the person wrote stays in the form.
    assert form_of(refused, "/review/decide")["field.evidence"] == "not in the letter"
    assert 'name="although"' in refused.text
    done = send(ada, refused, "edit", **{"field.evidence": "my invoice of May"})
    following = followed(ada, done)
    assert title(following) != document
    assert status(desk, document) == "accepted"
    # Evidence is marked in the text once an answer quotes it.
    run = desk.ledger.runs.resolve("latest")
    again = ada.get(f"/review/item?run={run.id}&document={document}&at=classify")
    assert "<mark" in again.text


def test_enter_in_a_field_saves_the_edit_and_approves_nothing(ada: Browser) -> None:
    """A browser then presses the first button of the form, shown or not."""
    page = first_item(ada).text
    form = page[page.index('action="/review/decide"') :]
    button = re.search(r"<button[^>]*>", form)
    assert button
    assert 'value="edit"' in button[0]


def test_a_failed_check_can_be_overruled(desk: ServedDesk, ada: Browser) -> None:
    page = first_item(ada)
    done = send(ada, page, "edit", although="1")
    assert done.status_code == 303
    assert status(desk, title(page)) == "accepted"


def test_the_second_of_two_sees_what_the_first_decided(
    desk: ServedDesk, ada: Browser, bob: Browser
) -> None:
    of_ada, of_bob = first_item(ada), first_item(bob)
    document = title(of_ada)
    assert title(of_bob) == document
    send(ada, of_ada, "reject", note="spam & more")
    refused = send(bob, of_bob, "approve")
    assert refused.status_code == 409
    assert 'role="alert"' in refused.text
    assert "rejected by ada: spam &amp; more" in refused.text
    assert status(desk, document) == "rejected"
    # The page has the new version: bob may decide now that he has read it.
    assert followed(bob, send(bob, refused, "approve"))
    assert status(desk, document) == "accepted"


def test_a_form_that_is_sent_twice_counts_once_and_undo_brings_the_item_back(
    desk: ServedDesk, ada: Browser, bob: Browser
) -> None:
    page = first_item(ada)
    document = title(page)
    send(ada, page, "reject")
    send(ada, page, "reject")
    run = desk.ledger.runs.resolve("latest")
    history = desk.ledger.reviews.history(run.id, document, "classify")
    assert [each.decision for each in history] == ["rejected"]
    now = ada.get("/review")
    undo = form_of(now, "/review/undo")
    assert bob.post("/review/undo", undo).status_code == 403
    back = followed(ada, ada.post("/review/undo", undo))
    assert title(back) == document
    ada.post("/review/undo", undo)
    assert status(desk, document) == "deferred"
    history = desk.ledger.reviews.history(run.id, document, "classify")
    assert [each.decision for each in history] == ["rejected", "reopened"]


def test_comments_and_sending_again(desk: ServedDesk, ada: Browser) -> None:
    page = first_item(ada)
    document = title(page)
    empty = send(ada, page, "comment")
    assert empty.status_code == 422
    same = followed(ada, send(ada, page, "comment", note="<b>ask</b> the sender"))
    assert title(same) == document
    assert "&lt;b&gt;ask&lt;/b&gt; the sender" in same.text
    following = followed(ada, send(ada, same, "again"))
    assert title(following) != document
    assert status(desk, document) == "deferred"
    assert f"{document}</a>" not in ada.get("/review").text


def test_undo_names_the_decision_that_it_takes_back(
    desk: ServedDesk, ada: Browser
) -> None:
    """A comment is no decision: after one, the decision before it is what undo takes back."""
    page = first_item(ada)
    decided = title(page)
    other = followed(ada, send(ada, page, "reject"))
    same = followed(ada, send(ada, other, "comment", note="ask the sender"))
    assert title(same) != decided
    for shown in (same, ada.get("/review")):
        for words in undo_words(shown):
            assert decided in words
            assert "rejected" in words
            assert title(same) not in words
    back = followed(ada, ada.post("/review/undo", form_of(same, "/review/undo")))
    assert title(back) == decided
    assert status(desk, decided) == "deferred"


def undo_words(page: httpx.Response) -> tuple[str, str]:
    """Return the words of a page's undo button, and of its line in the list of keys."""
    button = re.search(r'accesskey="u">([^<]*)<', page.text)
    line = re.search(r"<dt><kbd>u</kbd></dt><dd>([^<]*)</dd>", page.text)
    assert button
    assert line
    return unescape(button[1]), unescape(line[1])


def test_all_of_a_selection_is_one_action_with_one_undo(
    desk: ServedDesk, ada: Browser, bob: Browser
) -> None:
    page = ada.get("/review?step=classify&tag=team%3Dclaims")
    waiting = len(re.findall('<th scope="row">', page.text))
    assert waiting > 3
    # One is decided between the page and its button.
    item = first_item(bob)
    send(bob, item, "reject", note="mine")
    form = {**form_of(page, "/review/bulk"), "word": "rejected"}
    done = ada.post("/review/bulk", form)
    ada.post("/review/bulk", form)
    told = followed(ada, done)
    assert f"{waiting - 1} items" in told.text
    assert '<th scope="row">' not in told.text
    action = parse_qs(urlsplit(done.headers["location"]).query)["done"][0]
    assert len(desk.ledger.reviews.action(action)) == waiting - 1
    button = re.search(r'accesskey="u">([^<]*)<', told.text)
    assert button
    assert f"{waiting - 1} items" in button[1]
    back = followed(ada, ada.post("/review/undo", form_of(told, "/review/undo")))
    assert len(re.findall('<th scope="row">', back.text)) == waiting - 1
    assert status(desk, title(item)) == "rejected"
    assert ada.post("/review/bulk", {**form, "word": "nonsense"}).status_code == 400
    # An action about items without any answer decides nothing, and says so.
    assert 'role="status"' in ada.get("/review?done=0&without=3").text


def test_selections_that_fit_nothing_or_are_none(ada: Browser) -> None:
    assert "Nothing waits" in ada.get("/review?older=9w").text
    assert "Nothing waits" in ada.get("/review?step=other").text
    for query in ("older=soon", "order=random"):
        assert ada.get(f"/review?{query}").status_code == 400
    assert ada.get("/review?order=value").status_code == 200
    assert ada.get("/review/item?run=x&document=y&at=z").status_code == 404


def test_viewers_decide_nothing(desk: ServedDesk, ada: Browser) -> None:
    viewer = desk.signed_in("viewer", "vic")
    page = first_item(viewer)
    assert "/review/decide" not in page.text
    form = form_of(first_item(ada), "/review/decide")
    for path in ("/review/decide", "/review/bulk", "/review/undo"):
        answer = viewer.post(path, {**form, "csrf": viewer.csrf, "word": "reject"})
        assert answer.status_code == 403, path


def test_a_confidential_text_is_shown_and_decided_by_those_who_may_read_it(
    tmp_path: Path,
) -> None:
    project = waiting_project(tmp_path, 2, "restricted")
    with desk_at(project) as desk:
        reviewer = desk.signed_in("reviewer", "rob")
        page = first_item(reviewer)
        assert "my invoice" not in page.text
        assert "words of its own" not in page.text
        assert "/review/decide" not in page.text
        admin = desk.signed_in("admin")
        shown = first_item(admin)
        assert "my invoice" in shown.text
        form = {**form_of(shown, "/review/decide"), "word": "reject"}
        assert (
            reviewer.post("/review/decide", {**form, "csrf": reviewer.csrf}).status_code
            == 403
        )
        listed = reviewer.get("/review")
        many = {**form_of(listed, "/review/bulk"), "word": "rejected"}
        assert reviewer.post("/review/bulk", many).status_code == 400
        assert status(desk, title(shown)) == "deferred"


def test_all_of_it_is_in_the_audit_trail(desk: ServedDesk) -> None:
    """The last test of this module: what the others did verifies."""
    result = verify_ledger(desk.ledger.seals)
    assert result.records
    assert not result.faults
