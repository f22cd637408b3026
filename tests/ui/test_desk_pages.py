"""The desk's pages for people who decide, in a real browser: no mouse, a screen reader's tree."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.kit.desk import PASSWORD, ServedDesk, desk_at
from tests.kit.reviewed import waiting_project
from tests.kit.samples import documents, opened
from tierwise.audit.verify import verify_ledger
from tierwise.review.queue import find_item, reject

pytestmark = pytest.mark.timeout(900)
ITEMS = 200
CONFLICT = 50  # the number of the item that another person decides first
UNDONE = 60
# A person, by the keystroke-level model (Card, Moran and Newell 1980): a key, and a decision. The
# reading speed is that of silent reading of English (Brysbaert 2019), the page's time its limit.
KEY_S = 0.28
DECISION_S = 1.35
WORD_S = 60 / 238
PAGE_S = 0.3
SERIOUS = ("serious", "critical")


@dataclass
class Reviewer:
    """A person at a keyboard; `seconds` is simulated time."""

    page: Any
    seconds: float = 0.0
    done: dict[str, int] = field(default_factory=dict)

    def read(self) -> str:
        """Read the item, and return its name."""
        words = len(self.page.inner_text(".text").split())
        answer = len(self.page.inner_text(".meta").split())
        self.seconds += (words + answer) * WORD_S + DECISION_S
        return str(self.page.inner_text("h1"))

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)
            self.seconds += KEY_S

    def write(self, text: str) -> None:
        """Write a text in place of what the field has."""
        self.press("Control+a")
        self.page.keyboard.type(text)
        self.seconds += KEY_S * len(text)

    def leave(self, name: str, word: str) -> None:
        """Wait until the page shows another item."""
        # The heading is replaced in one step, so the notice of the new page is there with it.
        self.page.locator("h1", has_not_text=name).wait_for()
        self.seconds += PAGE_S
        self.done[word] = self.done.get(word, 0) + 1


def sign_in(page: Any, desk: ServedDesk, name: str = "ada") -> None:
    """Sign a reviewer in by name and password, by keyboard."""
    if name not in desk.access.people.accounts():
        desk.access.people.add(name, "reviewer", PASSWORD)
    page.goto(f"{desk.url}/sign-in")
    page.locator("input[name=name]").focus()
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.locator("nav").wait_for()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedDesk]:
    root = waiting_project(tmp_path_factory.mktemp("desk"), ITEMS)
    with desk_at(root) as served:
        yield served


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedDesk]:
    root = tmp_path_factory.mktemp("sampled")
    with opened(root) as office:
        office.made()
        office.run(documents(24))
    with desk_at(root) as served:
        served.ledger.retention.keep(documents(24))
        yield served


def faults(page: Any) -> list[str]:
    """Return what axe-core calls serious or critical, with the places."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{each['id']} ({each['impact']}): {node['html'][:200]}"
        for each in found
        if each["impact"] in SERIOUS
        for node in each["nodes"]
    ]


def picture(page: Any, images: Path | None, name: str) -> None:
    if images is not None:
        page.screenshot(path=images / f"{name}.png", full_page=True)


def test_nothing_serious_is_found_by_axe_in_any_state(
    browser: Any, desk: ServedDesk, sampled: ServedDesk, images: Path | None
) -> None:
    for scheme, width in (("light", 1240), ("dark", 1240), ("light", 390)):
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": 820}
        )
        page = context.new_page()
        sign_in(page, desk)
        suffix = f"{scheme}-{width}"
        paths = ["/review", "/review?older=9w", "/labels", "/compare"]
        for path in paths:
            page.goto(desk.url + path)
            assert faults(page) == [], (path, suffix)
        page.goto(desk.url + "/review")
        picture(page, images, f"desk-queue-{suffix}")
        page.locator("details.bulk summary").focus()
        page.keyboard.press("Enter")
        assert faults(page) == [], ("bulk", suffix)
        page.keyboard.press("j")
        page.locator("h1#item").wait_for()
        page.keyboard.press("?")
        assert faults(page) == [], ("item", suffix)
        page.keyboard.press("?")
        # An edit that fails its checks.
        page.keyboard.press("e")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.locator("#notice.fault").wait_for()
        assert faults(page) == [], ("refused", suffix)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
            suffix
        )
        picture(page, images, f"desk-item-{suffix}")

        sign_in(page, sampled)
        page.goto(sampled.url + "/labels")
        assert faults(page) == [], ("labels", suffix)
        picture(page, images, f"desk-labels-{suffix}")
        for mode in ("shown", "blind"):
            page.goto(f"{sampled.url}/labels/next?mode={mode}&step=classify")
            page.locator("h1#item").wait_for()
            assert faults(page) == [], (mode, suffix)
            picture(page, images, f"desk-label-{mode}-{suffix}")
        page.goto(sampled.url + "/compare")
        page.locator('form[action="/compare/new"] button').focus()
        page.keyboard.press("Enter")
        page.locator("h1#item").wait_for()
        assert faults(page) == [], ("pair", suffix)
        # The library does find what is wrong.
        page.evaluate("document.querySelector('main').append(new Image())")
        page.evaluate("document.querySelector('main img').src = '/icon.svg'")
        assert faults(page)
        picture(page, images, f"desk-pair-{suffix}")
        context.close()


def conflict(person: Reviewer, desk: ServedDesk, name: str) -> None:
    """Let another person be faster, by the command line; read what that one decided, go on."""
    run = desk.ledger.runs.resolve("latest")
    reject(desk.ledger, find_item(desk.ledger, run.id, name), by="bob")
    person.press("a")
    notice = person.page.locator("#notice.fault")
    notice.wait_for()
    assert "rejected by bob" in notice.inner_text()
    assert notice.get_attribute("role") == "alert"
    person.press("j")
    person.leave(name, "conflict")


def decide(person: Reviewer, number: int) -> str:
    """Decide about one item, mostly by one key."""
    if number % 10 == 3:
        person.press("e", "Tab")
        person.write("my invoice of May is wrong")
        person.press("Tab", "Enter")
        return "edit"
    if number % 25 == 7:
        person.press("r")
        return "reject"
    if number % 40 == 9:
        person.press("s")
        return "again"
    person.press("a")
    return "approve"


def test_two_hundred_items_within_an_hour_without_a_mouse(
    browser: Any, desk: ServedDesk
) -> None:
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    sign_in(page, desk)
    page.goto(desk.url + "/review")
    page.keyboard.press("j")
    page.locator("h1#item").wait_for()
    person = Reviewer(page)
    run = desk.ledger.runs.resolve("latest")
    for number in range(ITEMS):
        name = person.read()
        # A screen reader goes on from the heading of the new item.
        assert page.evaluate("document.activeElement.id") == "item"
        if number == CONFLICT:
            conflict(person, desk, name)
            continue
        if number == UNDONE:
            person.press("r")
            person.leave(name, "reject")
            person.press("u")
            page.locator("h1", has_text=name).wait_for()
            assert "taken back" in page.inner_text("#notice")
            person.read()
        word = decide(person, number)
        if number == ITEMS - 1:
            page.locator("h1", has_text="Reviews").wait_for()
            break
        person.leave(name, word)
    assert "Nothing waits" in page.inner_text("main")
    assert person.seconds < 3600, f"{person.seconds:.0f} s"
    assert not errors
    decisions = [
        each
        for row in desk.ledger.runs.outcomes(run.id)
        for each in desk.ledger.reviews.history(run.id, row.document_id, "classify")
    ]
    words = [each.decision for each in decisions if each.reviewer == "ada"]
    assert len(words) == ITEMS - 1 + 2  # one was bob's; one was rejected and taken back
    assert words.count("edited") == ITEMS // 10
    assert not verify_ledger(desk.ledger.seals).faults
    minutes = person.seconds / 60
    sys.stdout.write(
        f"{ITEMS} items in {minutes:.0f} simulated minutes: {person.done}\n"
    )
    context.close()


def test_all_of_it_works_without_a_script(
    browser: Any, sampled: ServedDesk, tmp_path: Path
) -> None:
    project = waiting_project(tmp_path, 4)
    with desk_at(project) as desk:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        sign_in(page, desk)
        page.goto(desk.url + "/review")
        page.locator("a.start").focus()
        page.keyboard.press("Enter")
        page.locator("h1#item").wait_for()
        name = page.inner_text("h1")
        for word in ("approve", "reject", "again"):
            page.locator(f'button[value="{word}"]').focus()
            page.keyboard.press("Enter")
            page.locator("h1", has_not_text=name).wait_for()
            assert name in page.inner_text("#notice")
            name = page.inner_text("h1")
        page.locator("form.undo button").focus()
        page.keyboard.press("Enter")
        page.locator("#notice", has_text="taken back").wait_for()
        context.close()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    sign_in(page, sampled)
    page.goto(f"{sampled.url}/labels/next?mode=shown&step=classify")
    name = page.inner_text("h1")
    page.locator('button[value="neither"]').first.focus()
    page.keyboard.press("Enter")
    page.locator("h1", has_not_text=name).wait_for()
    context.close()
