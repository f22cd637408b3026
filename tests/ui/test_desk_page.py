"""The desk's pages in Chromium: without a script, in both colours, on a narrow screen, live."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.desk import ServedDesk, desk_at
from tests.kit.ledgers import RUN, attempt, migrated_url
from tests.kit.projects import make_project, model
from tests.kit.reported_runs import LARGE, SMALL
from tierwise.desk.addresses import document_path
from tierwise.ledger import Ledger
from tierwise.records import Choice, Document, Outcome, Rejection, Route, Verdict

DAY_S = 86_400.0
LETTER = """Dear Sir or Madam,

on 3 November I ordered a wardrobe (order 4711). It came on the 12th with a
broken door, and two of the four legs were missing.

Please send the legs and a new door within two weeks, or give me my money
back. My bank details are the same as last time.

Kind regards,
Petra Lindgren
"""
ROUTE = Route(
    step="classify",
    rule="default",
    models=("small", "large"),
    reason="the cheapest certified model first",
    rejected=(Rejection("huge", "more expensive than small", "cost"),),
    choices=(Choice("small", Decimal("0.0001"), "certified: 97 of 100 right"),),
)
PAGES = (
    "/",
    "/runs",
    "/runs/live",
    document_path("live", "letters/lindgren.txt"),
    "/alerts",
)


async def record(
    ledger: Ledger, run_id: str, name: str, at: float, chance: float
) -> None:
    """Record one letter in two steps: most are accepted at once."""
    document = Document(id=f"letters/{name}.txt", text=LETTER, sensitivity="internal")
    for step in ("classify", "extract"):
        is_deferred = chance > 0.95
        models = (SMALL, LARGE) if chance > 0.8 else (SMALL,)
        for position, values in enumerate(models):
            is_last = position == len(models) - 1
            made = attempt(
                **values,
                step=step,
                document_id=document.id,
                document_hash=document.hash,
                started_at=at,
                kind="escalation" if position else "first",
            )
            await ledger.settle(run_id, made, None)
            is_good = is_last and not is_deferred
            verdict = Verdict(
                "grounding", is_good, "" if is_good else "no such words in it"
            )
            await ledger.record_verdicts(
                run_id, made.id, (Verdict("schema", True), verdict)
            )
        value = {
            "label": "complaint",
            "evidence": "It came on the 12th with a broken door",
        }
        if step == "extract":
            value = {
                "order": {"value": "4711", "quote": "order 4711"},
                "wants": {"value": "door", "quote": "a new door within two weeks"},
            }
        outcome = Outcome(
            step=step,
            status="deferred" if is_deferred else "accepted",
            value=None if is_deferred else value,
            cause="failed_checks" if is_deferred else None,
            model=str(models[-1]["model"]),
            sensitivity="internal",
            route=replace(ROUTE, step=step),
        )
        await ledger.record_outcome(run_id, document, outcome)


def put(story: Coroutine[Any, Any, None]) -> None:
    """Record something in a thread: Playwright has an event loop in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, story).result()


@contextmanager
def a_desk(folder: Path) -> Iterator[ServedDesk]:
    """A desk with runs of four weeks, and one under way."""
    root = make_project(
        folder / "post-office",
        model("small", "http://127.0.0.1:1"),
        model("large", "http://127.0.0.1:1", tier="proprietary", strength=50),
    )
    (root / ".tierwise").mkdir(mode=0o700)
    migrated_url("sqlite", root / ".tierwise")
    (root / "pyproject.toml").write_text('[tool.tierwise]\nkeep_text = "all"\n')
    chances = random.Random(7)
    now = time.time()
    with Ledger.open(root=root) as ledger:
        for number in range(14):
            at = now - DAY_S * (28 - 2 * number)
            flow = "support-inbox" if number % 3 else "claims"
            run = replace(RUN, id=f"run-{number:02}", flow=flow, started_at=at)
            ledger.start_run(
                replace(run, tags={"team": flow.split("-", maxsplit=1)[0]})
            )
            for letter in range(chances.randint(8, 16)):
                name = f"letter-{letter:02}"
                put(record(ledger, run.id, name, at, chances.random()))
            ledger.finish_run(run.id, "completed")
        letter = Document(
            id="letters/lindgren.txt", text=LETTER, sensitivity="internal"
        )
        ledger.retention.keep([letter])
    with desk_at(root) as desk:
        row = {
            "tier": "local",
            "model": "small",
            "expected": "0.4",
            "expected_unknown": 0,
        }
        numbers = {"documents": 40.0, "calls": 40.0}
        steps = ("classify", "extract")
        plan = {
            "documents": 40.0,
            "expected": "0.9",
            "expected_unknown": 0,
            "rows": [{**row, **numbers, "step": step} for step in steps],
        }
        live = replace(
            RUN, id="live", started_at=now - 90, plan=plan, budget_usd=Decimal(2)
        )
        desk.ledger.start_run(replace(live, tags={"team": "support"}))
        for name in ("lindgren", *(f"letter-{number:02}" for number in range(17))):
            put(record(desk.ledger, "live", name, now, chances.random()))
        yield desk


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedDesk]:
    with a_desk(tmp_path_factory.mktemp("desk")) as served:
        yield served


@contextmanager
def opened(browser: Any, desk: ServedDesk, **settings: Any) -> Iterator[Any]:
    """Sign in, and return a page that notes errors and every address that it loads."""
    context = browser.new_context(**settings)
    page = context.new_page()
    faults: list[str] = []
    loaded: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(f"{desk.url}/enter?token={desk.access.link_token}")
    assert page.url == f"{desk.url}/"
    yield page
    # A page that is asked for after signing out is refused.
    assert [fault for fault in faults if "401" not in fault] == []
    assert all(url.startswith(f"{desk.url}/") for url in loaded)
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_fits_its_screen(
    browser: Any, desk: ServedDesk, scheme: str, width: int, images: Path | None
) -> None:
    size = {"width": width, "height": 900}
    with opened(browser, desk, viewport=size, color_scheme=scheme) as page:
        for path in PAGES:
            page.goto(desk.url + path)
            assert page.locator("h1").count() == 1
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, path
            if images is not None:
                name = path.strip("/").partition("?")[0].replace("/", "-") or "overview"
                kind = "" if width == 1280 else "-narrow"
                file = images / f"desk-{name}{kind}-{scheme}.png"
                page.screenshot(path=str(file), full_page=True)


LONG_MODELS = tuple(
    f"accounts/some-provider/models/a-model-with-a-long-name-{number}b-instruct"
    for number in (8, 70)
)
LONG_REASON = "the evidence 'we never got the parcel that was sent' is not in the text"


@pytest.fixture
def desk_of_long_names(tmp_path: Path) -> Iterator[ServedDesk]:
    """A desk with a document whose models have long names, and gave answers to compare."""
    models = (model(name, "http://127.0.0.1:1") for name in ("small", "large"))
    root = make_project(tmp_path / "project", *models)
    document = Document(id="a.txt", text=LETTER, sensitivity="internal")

    async def story(ledger: Ledger) -> None:
        for name in LONG_MODELS:
            made = attempt(
                **{**SMALL, "model": name},
                document_hash=document.hash,
                text="an answer",
                prompt="a_prompt_with_a_long_name v12",
            )
            await ledger.settle("long", made, None)
            verdicts = (Verdict("a_check_of_ones_own", False, LONG_REASON),)
            await ledger.record_verdicts("long", made.id, verdicts)
        outcome = Outcome(step="classify", status="deferred", cause="failed_checks")
        outcome = replace(outcome, sensitivity="internal")
        await ledger.record_outcome("long", document, outcome)

    with Ledger.open(root=root) as ledger:
        ledger.start_run(replace(RUN, id="long"))
        put(story(ledger))
        ledger.retention.keep([document])
    with desk_at(root) as served:
        yield served


@pytest.mark.parametrize("width", [1280, 390])
def test_long_names_fit_the_screen(
    browser: Any, desk_of_long_names: ServedDesk, width: int, images: Path | None
) -> None:
    desk = desk_of_long_names
    with opened(browser, desk, viewport={"width": width, "height": 900}) as page:
        for name, path in (
            ("compare", "/compare"),
            ("document", document_path("long", "a.txt")),
        ):
            page.goto(desk.url + path)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, path
            if images is not None:
                page.screenshot(path=str(images / f"long-{name}-{width}.png"))
        # On a wide screen the attempts' table is whole: nothing of its last column is cut.
        if width > 1000:
            is_whole = page.evaluate(
                "[...document.querySelectorAll('.outcome .scroll')]"
                ".every((each) => each.scrollWidth <= each.clientWidth)"
            )
            assert is_whole


def test_the_quotes_are_marked_in_the_text(browser: Any, desk: ServedDesk) -> None:
    with opened(browser, desk) as page:
        page.goto(desk.url + PAGES[3])
        marks = page.locator("mark").all_inner_texts()
        assert "order 4711" in marks
        assert "a new door within two weeks" in marks


def test_the_overview_is_live_with_a_script_and_whole_without(
    browser: Any, desk: ServedDesk
) -> None:
    with opened(browser, desk) as page:
        page.goto(desk.url)
        page.get_by_text("18 of 40").wait_for()
        put(record(desk.ledger, "live", "another", time.time(), 0.1))
        # Nothing is pressed: the page asks again by itself.
        page.get_by_text("19 of 40").wait_for(timeout=30_000)
    with opened(browser, desk, java_script_enabled=False) as page:
        page.goto(desk.url)
        page.get_by_text("19 of 40").wait_for()
        assert page.locator("meta[http-equiv=refresh]").count() == 1
        page.get_by_role("link", name="Runs").click()
        page.get_by_role("link", name="run-00").click()
        page.get_by_role("link", name="letters/letter-01.txt").click()
        page.get_by_role("heading", name="letters/letter-01.txt").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.goto(desk.url)
        assert page.locator("nav").count() == 0
