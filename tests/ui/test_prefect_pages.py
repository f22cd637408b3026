"""Prefect's own pages of a run, on a real server and in a real browser: what an operator finds there.

No page asks anybody but the server on this machine, and none has anything to complain about but its own icons.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.kit.inbox import House, made
from tests.kit.standin import Standin, unused_address
from tierwise.orchestrate.api_password import read_password

pytestmark = pytest.mark.timeout(600)  # the first test waits for a server and two runs
MISSING_ICONS = ("/favicon.ico", "/ico/undefined.svg")  # Prefect 3.8.8 lacks them
LIGHT = "localStorage.setItem('color-scheme', '\"light\"')"
PATIENCE_MS = 60_000
MENU = 256  # pixels at the left of every page


@dataclass(frozen=True)
class Shown:
    """A run on a server: where its pages are."""

    url: str
    flow_run_id: str
    run_id: str
    password: str

    @property
    def page(self) -> str:
        return f"{self.url}/runs/flow-run/{self.flow_run_id}"

    def artifact(self, key: str) -> str:
        """The page of this run's version of an artifact."""
        wanted = {
            "artifacts": {"key": {"any_": [key]}},
            "flow_runs": {"id": {"any_": [self.flow_run_id]}},
        }
        [found] = (
            httpx.post(
                f"{self.url}/api/artifacts/filter",
                json=wanted,
                auth=httpx.BasicAuth(*self.password.split(":")),
            )
            .raise_for_status()
            .json()
        )
        return f"{self.url}/artifacts/artifact/{found['id']}"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    """The second of two runs over the same inbox; what it would do was planned."""
    with Standin(latency_s=0.05) as provider:
        root = made(tmp_path_factory.mktemp("ui") / "house", provider)
        port = unused_address().rpartition(":")[2]
        house = House(root, f"http://127.0.0.1:{port}")
        job = ("support_inbox", "--source", "inbox", "--budget-usd", "2", "--fresh")
        try:
            house.tierwise("up", "--no-worker", "--port", port)
            house.tierwise("run", *job)
            house.tierwise("plan", *job)
            run = json.loads(house.tierwise("run", *job, "--json"))["run"]
            password = str(read_password(root))
            yield Shown(house.url, run["flow_run_id"], run["id"], password)
        finally:
            house.tierwise("down", "--now")


@pytest.fixture
def page(browser: Any, shown: Shown) -> Iterator[Any]:
    """A page that may ask nobody but the server, and must not complain."""
    asked: list[str] = []
    said: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script(LIGHT)
    # As the pages keep it once a person has typed it.
    word = base64.b64encode(shown.password.encode()).decode()
    context.add_init_script(f"localStorage.setItem('prefect-password', '{word}')")
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE_MS)
    opened.on("request", lambda sent: asked.append(sent.url))
    opened.on("websocket", lambda socket: asked.append(socket.url))
    opened.on(
        "console",
        lambda message: (
            said.append(f"{message.text} {message.location['url']}")
            if message.type == "error"
            else None
        ),
    )
    opened.on("pageerror", lambda error: said.append(str(error)))
    yield opened
    context.close()
    home = shown.url.partition("//")[2]
    assert [
        url for url in asked if not re.match(rf"(blob:)?(http|ws)://{home}/", url)
    ] == []
    assert [line for line in said if not line.endswith(MISSING_ICONS)] == []


@pytest.fixture
def see(page: Any) -> Callable[..., None]:
    """Waits until these texts are on the page."""

    def see(*texts: str) -> None:
        for text in texts:
            page.get_by_text(text).locator("visible=true").first.wait_for()

    return see


@pytest.fixture
def picture(page: Any, images: Path | None) -> Callable[[str], None]:
    """Keeps a picture of the page, where pictures are wanted."""

    def picture(name: str) -> None:
        if images:
            page.wait_for_timeout(1500)  # the timeline moves to its place
            seen = page.viewport_size
            clip = {
                "x": MENU,
                "y": 0,
                "width": seen["width"] - MENU,
                "height": seen["height"],
            }
            page.screenshot(path=images / f"watching-{name}.png", clip=clip)
            if name == "run":
                page.screenshot(
                    path=images / "readme-run.png", clip={**clip, "height": 500}
                )

    return picture


def test_task_runs_are_named_for_their_documents_and_tagged_with_what_happened(
    page: Any, shown: Shown, see: Callable[..., None], picture: Callable[[str], None]
) -> None:
    page.goto(shown.page)
    page.locator(".p-tab", has_text="Task Runs").click()
    see(
        "9 Task runs",
        "NeedsAttention",
        "classify · documents 51-100",
        "draft · documents 101-122 of 122",
    )
    see("tier:local", "tier:clarifai", "tier:proprietary", "escalated", "deferred")
    page.locator("canvas").first.wait_for()
    picture("run")


def test_the_log_tells_of_each_batch_and_each_document_that_waits_without_stack_traces(
    page: Any, shown: Shown, see: Callable[..., None], picture: Callable[[str], None]
) -> None:
    """Although the terminal that started the run was quiet."""
    page.set_viewport_size({"width": 1280, "height": 1000})
    page.goto(shown.page)
    see(
        "classify: 49 accepted, 7 escalated, 1 deferred",
        "classify deferred mail-050.md: qwen-1.5b: grounding:",
    )
    assert "Traceback" not in page.inner_text("body")
    picture("log")


def test_the_run_lists_its_artifacts(
    page: Any, shown: Shown, see: Callable[..., None], picture: Callable[[str], None]
) -> None:
    # Prefect's page draws only the artifacts that fit on the screen.
    page.set_viewport_size({"width": 1280, "height": 1250})
    page.goto(shown.page)
    page.locator(".p-tab", has_text="Artifacts").click()
    see("support-inbox-summary", "support-inbox-attention", "support-inbox-plan")
    see(
        "classify, share of documents",
        "summarize, share of documents",
        "draft, share of documents",
    )
    picture("artifacts")


def test_the_summary_tells_what_each_model_did_in_each_step(
    page: Any, shown: Shown, see: Callable[..., None], picture: Callable[[str], None]
) -> None:
    """Pass rates with their exact interval; the search finds rows; what waits is by the model that was asked last."""
    page.set_viewport_size({"width": 1600, "height": 800})
    page.goto(shown.artifact("support-inbox-summary"))
    see(
        "122 documents, 7 deferred, 371 calls",
        "88% (80–93%)",
        "ministral-3-14b",
        "none was asked",
    )
    picture("summary")
    heads = page.get_by_role("columnheader").all_inner_texts()
    rows = [
        dict(zip(heads, row.locator("td").all_inner_texts(), strict=True))
        for row in page.locator("tbody tr").all()
    ]
    waiting = {
        (row["step"], row["model"]): row["deferred"]
        for row in rows
        if row["deferred"] != "0"
    }
    assert waiting == {
        ("classify", "ministral-3-14b"): "2",
        ("draft", "qwen-1.5b"): "3",
        ("read", "none was asked"): "2",
    }
    assert {row["escalations"] for row in rows if row["step"] == "classify"} == {
        "15",
        "0",
    }
    page.get_by_placeholder("Search...").fill("claude")
    page.locator("tbody tr", has_text="ministral").first.wait_for(state="detached")
    assert page.locator("tbody tr").count() == 1


def test_what_waits_is_listed_by_kind_with_what_to_do_and_names_stay_text(
    page: Any, shown: Shown, see: Callable[..., None], picture: Callable[[str], None]
) -> None:
    page.set_viewport_size({"width": 1280, "height": 1150})
    page.goto(shown.artifact("support-inbox-attention"))
    see(
        "7 of 122 documents wait",
        "Could not be read, or only in part: 2",
        "No allowed model answered well: 2",
    )
    see(
        "For a person's review: 3",
        f"tierwise review {shown.run_id}",
        f"tierwise report {shown.run_id} --open",
    )
    see("<b>[x](javascript:alert(1)).txt")
    assert page.locator("a[href^='javascript']").count() == 0
    picture("attention")


def test_the_plan_stands_beside_what_came_of_it(
    page: Any, shown: Shown, see: Callable[..., None], picture: Callable[[str], None]
) -> None:
    page.goto(shown.artifact("support-inbox-plan"))
    see("Planned → what came of it", "120 → 120", "122 → 122")
    picture("plan")


def test_the_versions_of_the_summary_are_the_trend(
    page: Any, shown: Shown, see: Callable[..., None]
) -> None:
    """One for each run, under one key."""
    page.goto(f"{shown.url}/artifacts/key/support-inbox-summary")
    see("Created support-inbox-summary")
    assert page.locator("a[href*='/runs/flow-run/']").count() == 2
