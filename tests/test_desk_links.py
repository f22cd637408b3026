"""The desk's pages lead to each other, messages are sentences, and an unread file is dismissed."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from tests.kit.desk import ServedDesk, desk_at
from tests.kit.ledgers import DOCUMENT, RUN
from tests.kit.projects import make_project, model
from tests.test_desk_review import form_of
from tests.test_queue import accepted, deferred
from tierwise.audit.verify import verify_ledger
from tierwise.desk.addresses import document_path, item_path
from tierwise.desk.alert_facts import current_alerts
from tierwise.desk.messages import said
from tierwise.ledger import Ledger

FLOW = "post\u202ebox \x1b[31m\n"  # a name that a page has to spell out
UNREAD = "scan \x07 1.pdf"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A failed run with an unread file, a deferred and an accepted document."""
    root = make_project(tmp_path / "project", model("large", "http://127.0.0.1:1"))
    with Ledger.open(root=root) as ledger:
        run = replace(RUN, flow=FLOW, started_at=time.time() - 200_000)
        ledger.start_run(run)

        async def story() -> None:
            unread = replace(DOCUMENT, id=UNREAD, text="")
            outcome = replace(deferred("unreadable", "read"), reason="a `password`")
            outcome = replace(outcome, sensitivity="internal")
            await ledger.record_outcome(run.id, unread, outcome)
            for name, made in (("a.txt", deferred()), ("b.txt", accepted())):
                document = replace(DOCUMENT, id=name, text=f"The text of {name}")
                outcome = replace(made, sensitivity="internal")
                await ledger.record_outcome(run.id, document, outcome, question="q")

        asyncio.run(story())
        with closing(sqlite3.connect(root / ".tierwise" / "ledger.db")) as database:
            database.execute("UPDATE outcomes SET recorded_at = recorded_at - 200000")
            database.commit()
        ledger.finish_run(run.id, "failed")
    return root


@pytest.fixture
def desk(root: Path) -> Iterator[ServedDesk]:
    with desk_at(root) as served:
        yield served


def links(html: str) -> set[str]:
    """The addresses of a page's links."""
    return {unescape(link) for link in re.findall(r'href="([^"]*)"', html)}


def test_run_document_and_item_lead_to_each_other(desk: ServedDesk) -> None:
    browser = desk.signed_in()
    for name in ("a.txt", UNREAD):
        step = "read" if name == UNREAD else "classify"
        page, item = document_path(RUN.id, name), item_path(RUN.id, name, step)
        assert page in links(browser.get(f"/runs/{RUN.id}").text)
        assert {item, f"/runs/{RUN.id}"} <= links(browser.get(page).text)
        assert {page, f"/runs/{RUN.id}"} <= links(browser.get(item).text)
    viewer = desk.signed_in("viewer")
    page = document_path(RUN.id, "a.txt")
    assert item_path(RUN.id, "a.txt", "classify") not in links(viewer.get(page).text)


def test_the_page_of_each_alert_and_of_each_cause_opens(desk: ServedDesk) -> None:
    browser = desk.signed_in()
    alerts = current_alerts(desk.app.state.desk, time.time())
    assert {alert.kind for alert in alerts} >= {"failed", "waiting", "reviews"}
    for alert in alerts:
        assert browser.get(alert.path).status_code == 200, alert
    causes = [
        link for link in links(browser.get(f"/runs/{RUN.id}").text) if "cause=" in link
    ]
    assert len(causes) == 2
    for link in causes:
        page = browser.get(link).text
        assert len(re.findall('<th scope="row">', page)) == 1


def test_what_waits_in_a_run_opens_the_items_of_that_run_alone(
    desk: ServedDesk,
) -> None:
    browser = desk.signed_in("reviewer")
    other = replace(RUN, id="another-run", flow=FLOW, started_at=time.time())
    desk.ledger.start_run(other)
    document = replace(DOCUMENT, id="c.txt", text="The text of c.txt")
    outcome = replace(deferred(), sensitivity="internal")
    asyncio.run(desk.ledger.record_outcome(other.id, document, outcome, question="q"))
    desk.ledger.finish_run(other.id, "completed")
    assert "c.txt" in browser.get("/review").text
    causes = [
        link for link in links(browser.get(f"/runs/{RUN.id}").text) if "cause=" in link
    ]
    assert len(causes) == 2
    for link in causes:
        page = browser.get(link)
        assert "c.txt</a>" not in page.text
        # The selection stays that run's after a decision and in what is selected next.
        assert f'value="{RUN.id}" selected' in page.text
        assert form_of(page, "/review/bulk")["of_run"] == RUN.id
    [own] = [
        link
        for link in links(browser.get("/runs/another-run").text)
        if "cause=" in link
    ]
    assert "c.txt</a>" in browser.get(own).text
    assert "a.txt</a>" not in browser.get(own).text


def test_an_unread_files_pages_say_that_it_could_not_be_read(desk: ServedDesk) -> None:
    browser = desk.signed_in("reviewer", "rita")
    pages = (document_path(RUN.id, UNREAD), item_path(RUN.id, UNREAD, "read"))

    def texts() -> list[str]:
        return [text_section(browser.get(page).text) for page in pages]

    for text in texts():
        assert "could not be read" in text
        assert "password" in text
        assert "source" not in text
    # A dismissed one never had a text either.
    form = form_of(browser.get(pages[1]), "/review/decide")
    browser.post("/review/decide", {**form, "word": "reject"})
    for text in texts():
        assert "could not be read" in text
    gone = text_section(browser.get(document_path(RUN.id, "a.txt")).text)
    assert "could not be read" not in gone


def text_section(html: str) -> str:
    """Return the part of a page that has the document's text."""
    found = re.search(r'<h2 id="(?:h-text|text-title)">.*?</section>', html, re.DOTALL)
    assert found
    return found[0]


def test_a_selection_of_any_characters_comes_back_from_a_form(desk: ServedDesk) -> None:
    """Hidden fields have the selection: spelt out, it would select something else."""
    browser = desk.signed_in("reviewer")
    [reviews] = [
        alert
        for alert in current_alerts(desk.app.state.desk, time.time())
        if alert.kind == "reviews"
    ]
    page = browser.get(reviews.path)
    assert len(re.findall('<th scope="row">', page.text)) == 2
    form = {**form_of(page, "/review/bulk"), "word": "rejected"}
    done = browser.post("/review/bulk", form)
    assert done.status_code == 303, done.text
    assert "Nothing waits" in browser.get("/review").text
    assert "Nothing waits" in browser.get(reviews.path).text


def test_an_unread_file_is_dismissed_with_a_note_and_never_approved(
    desk: ServedDesk,
) -> None:
    browser = desk.signed_in("reviewer", "rita")
    page = browser.get(item_path(RUN.id, UNREAD, "read"))
    assert 'value="approve"' not in page.text
    assert "data-focus" not in page.text
    form = {**form_of(page, "/review/decide"), "note": "blank"}
    for word in ("approve", "edit"):
        answer = browser.post("/review/decide", {**form, "word": word, "request": word})
        assert answer.status_code == 422
    done = browser.post("/review/decide", {**form, "word": "reject"})
    assert done.status_code == 303
    assert "1.pdf</a>" not in browser.get("/review").text
    [decision] = desk.ledger.reviews.history(RUN.id, UNREAD, "read")
    assert (decision.decision, decision.note) == ("rejected", "blank")
    undo = form_of(browser.get("/review"), "/review/undo")
    assert browser.post("/review/undo", undo).status_code == 303
    assert "1.pdf</a>" in browser.get("/review").text
    assert not verify_ledger(desk.ledger.seals).faults


def test_the_keys_of_a_page_are_those_that_it_has(desk: ServedDesk) -> None:
    browser = desk.signed_in("reviewer")
    viewer = desk.signed_in("viewer")
    paths = ["/review", item_path(RUN.id, "a.txt", "classify")]
    paths += [item_path(RUN.id, UNREAD, "read")]
    for path in paths:
        for person in (browser, viewer):
            html = person.get(path).text
            _, _, keys = html.partition('<details class="keys"')
            listed = set(re.findall("<dt><kbd>([^<]*)</kbd>", keys)) - {"Esc"}
            has = set(re.findall(r'data-(?:key|focus)="([^"]*)"', html)) - {"?"}
            assert listed == has, path


def test_messages_are_sentences_and_commands_are_code() -> None:
    assert said("see `tierwise runs`") == "See <code>tierwise runs</code>."
    assert said("a.txt: rejected") == "a.txt: rejected."
    assert said("`<b>`") == "`&lt;b&gt;`."
    assert said("`tierwise <b>`") == "`tierwise &lt;b&gt;`."
    assert said("") == ""


def test_a_wrong_address_says_more_than_its_title(desk: ServedDesk) -> None:
    html = desk.signed_in().get("/no/such/page").text
    title = re.search("<h1>([^<]*)</h1>", html)
    why = re.search("</h1>\\s*<p>([^<]*)</p>", html)
    assert title
    assert why
    assert why[1].rstrip(".").lower() != title[1].lower()
