"""The report in a real browser: what a person does with it, and that it asks nobody for anything."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.projects import make_project, model
from tests.kit.samples import CLASSIFY
from tests.kit.standin import Request, Standin
from tests.kit.steps import LABELS
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.ledger import Ledger
from tierwise.project import Project
from tierwise.records import Batch, Document, Sensitivity
from tierwise.report.build import build_report
from tierwise.report.document_rows import document_rows
from tierwise.report.figures import ProjectFacts
from tierwise.report.page import render_page

DEAR_PRICE = "{input: 10, output: 20, source: test, date: 2026-11-01}"
LEVELS: tuple[Sensitivity, ...] = ("internal", "internal", "confidential")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the second of two real runs: 60 documents each, every fifth one escalated, one never answered."""
    root = tmp_path_factory.mktemp("ui")

    def small(request: Request) -> str:
        number = int(request.document.split()[1])
        return json.dumps(
            {
                "label": "billing",
                "evidence": "my invoice" if number % 5 else "words of its own",
            }
        )

    def large(request: Request) -> str:
        stuck = request.document.split()[1] == "10"
        return json.dumps(
            {
                "label": "billing",
                "evidence": "words of its own" if stuck else "my invoice",
            }
        )

    def answer(request: Request) -> str:
        return small(request) if request.model == "small" else large(request)

    with Standin() as server:
        server.answer(answer)
        project = make_project(
            root,
            model("small", server.url),
            model("large", server.url, strength=20, price=DEAR_PRICE),
        )
        with Engine(Project(project), env={}) as engine:
            for start in (0, 60):
                run = engine.start_run("inbox", tags={"team": "claims"})
                engine.run_batch(run, CLASSIFY, Batch(documents(start)), LABELS)
                engine.finish_run(run, "completed")
        out = root / "report.html"
        done = Terminal()("report", "-o", out, cwd=project)
        assert done.code == 0, done.err
        (root / "many.html").write_text(many(project))
    return out


def many(project: Path) -> str:
    """The same page with 10,000 documents: the 60 over and over, under names of their own."""
    with Ledger.open(root=project) as ledger:
        runs = [ledger.runs.resolve("latest")]
        found = document_rows(ledger, runs)
        sixty = found["documents"]
        found["documents"] = [
            [f"{i:05d}.txt", *sixty[i % len(sixty)][1:]] for i in range(10_000)
        ]
        return render_page(
            build_report(ledger, runs, ProjectFacts(), datetime.date.today()), found
        )


def documents(start: int) -> tuple[Document, ...]:
    return tuple(
        Document(
            id=f"mail-{number % 60:02d}.txt",
            text=f"Letter {number % 60} of {start}: my invoice is wrong",
            sensitivity=LEVELS[number % 3],
        )
        for number in range(start, start + 60)
    )


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Any]:
    """The report, opened; no request but for the file itself, and nothing on the console."""
    asked: list[str] = []
    said: list[str] = []
    context = browser.new_context(
        color_scheme=request.param, viewport={"width": 1280, "height": 900}
    )
    opened = context.new_page()
    opened.on("request", lambda sent: asked.append(sent.url))
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(report.as_uri())
    yield opened
    context.close()
    assert asked == [report.as_uri()]
    assert said == []


def found(page: Any) -> str:
    return str(page.locator("#found").inner_text())


def wait_for(page: Any, told: str) -> None:
    """Typing is acted on a moment later."""
    from playwright.sync_api import expect

    expect(page.locator("#found")).to_have_text(told)


def first(page: Any) -> str:
    return str(page.locator("#receipts tbody button.open").first.inner_text())


def test_search_and_filters_narrow_the_documents_down(page: Any) -> None:
    assert found(page) == "60 documents"
    page.get_by_label("Search").fill("mail-17")
    wait_for(page, "1 of 60 documents")
    page.get_by_label("Search").fill("nothing like it")
    page.wait_for_selector("text=No document matches")
    page.get_by_role("button", name="Clear").click()
    wait_for(page, "60 documents")
    page.get_by_label("escalated").check()
    assert found(page) == "12 of 60 documents"
    page.get_by_label("Status").select_option("deferred")
    assert found(page) == "1 of 60 documents"
    assert first(page) == "mail-10.txt"


def test_a_header_sorts_both_ways_and_says_so(page: Any) -> None:
    head = page.get_by_role("columnheader", name="Calls").last
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert first(page) == "mail-00.txt"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert first(page) == "mail-01.txt"


def test_pages_of_fifty_go_on_and_back(page: Any) -> None:
    assert page.locator("#receipts tbody tr").count() == 50
    page.get_by_role("button", name="Next").click()
    assert page.locator("#receipts tbody tr").count() == 10
    assert page.get_by_role("button", name="Next").is_disabled()
    page.get_by_role("button", name="Previous").click()
    assert first(page) == "mail-00.txt"


def test_a_receipt_opens_by_keyboard_and_tells_the_whole_way(page: Any) -> None:
    """Route, each call with its checks, and the answer; Enter closes it again."""
    button = page.get_by_role("button", name="mail-00.txt")
    button.focus()
    page.keyboard.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"
    receipt = page.locator("tr.receipt").inner_text()
    for part in (
        "classify accepted by large",
        "escalation",
        "✗ grounding",
        "✓ grounding",
        '"label": "billing"',
    ):
        assert part in receipt
    page.keyboard.press("Enter")
    assert page.locator("tr.receipt").count() == 0


def test_a_confidential_documents_receipt_withholds_what_may_quote_it(
    page: Any,
) -> None:
    page.get_by_role("button", name="mail-05.txt").click()
    receipt = page.locator("tr.receipt").inner_text()
    assert "withheld: it may quote a confidential document" in receipt
    assert "grounding" in receipt
    assert "my invoice" not in receipt


def test_the_keyboard_reaches_the_content_first(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_landmarks_and_headers_are_named(page: Any) -> None:
    """What a screen reader lists: one main, named regions, a scope for every header cell, a name for every drawing."""
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("navigation", name="Sections").count() == 1
    assert page.get_by_role("region", name="Needs attention").count() == 1
    assert page.locator("th:not([scope])").count() == 0
    assert page.locator("svg:not([aria-label]):not([aria-labelledby])").count() == 0
    assert page.locator("figure svg title").count() > 2


def test_both_themes_are_readable(page: Any, images: Path | None) -> None:
    """Text has a contrast of at least 4.5 with what it stands on (WCAG AA), soft text, links and states too."""
    ratios = page.evaluate(CONTRAST)
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}
    if images:
        dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        page.get_by_role("button", name="mail-00.txt").click()
        part = {"x": 0, "y": 0, "width": 1280, "height": 2300}
        page.screenshot(
            path=images / f"report-{'dark' if dark else 'light'}.png",
            full_page=True,
            clip=part,
        )
        if not dark:
            top = {"x": 0, "y": 0, "width": 1280, "height": 584}
            page.screenshot(path=images / "readme-report.png", full_page=True, clip=top)


def test_ten_thousand_documents_are_found_and_paged(browser: Any, report: Path) -> None:
    """Only one page of them is ever drawn."""
    opened = browser.new_page()
    opened.goto((report.parent / "many.html").as_uri())
    assert found(opened) == "10,000 documents"
    assert opened.locator("#receipts tbody tr").count() == 50
    assert opened.locator("#page").inner_text() == "Page 1 of 200"
    opened.get_by_label("Search").fill("0999")
    wait_for(opened, "11 of 10,000 documents")
    opened.get_by_label("Search").fill("grounding")
    wait_for(opened, "2,000 of 10,000 documents")
    opened.close()


def test_it_prints_without_controls(page: Any) -> None:
    page.emulate_media(media="print", color_scheme="light")
    assert not page.locator(".filters").is_visible()
    assert not page.locator("header nav").is_visible()
    assert page.get_by_role("heading", name="Documents").is_visible()


CONTRAST = """() => {
  const probe = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const channel = (v) => (v /= 255, v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (colour) => {
    probe.fillStyle = colour; probe.fillRect(0, 0, 1, 1);
    const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  };
  const root = getComputedStyle(document.documentElement);
  const ratios = {};
  for (const ink of ["ink", "soft", "accent", "warn", "bad"]) {
    for (const ground of ["paper", "raised"]) {
      const lights = [ink, ground].map((name) => light(root.getPropertyValue("--" + name).trim()));
      const [a, b] = lights.sort((x, y) => y - x);
      ratios[`${ink} on ${ground}`] = (a + 0.05) / (b + 0.05);
    }
  }
  return ratios;
}"""
