"""The documentation in a real browser, from a server of files: what it loads, and that its search finds."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.kit.site import built_site

CHROMIUM = (
    os.environ.get("TIERWISE_CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
)
pytestmark = [
    pytest.mark.ui,
    pytest.mark.skipif(
        CHROMIUM is None, reason="there is no chromium here: apt-get install chromium"
    ),
]


class Files(http.server.SimpleHTTPRequestHandler):
    """A server of files that does not talk."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    handler = functools.partial(Files, directory=str(built_site(tmp_path_factory)))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield opened
        opened.close()


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Any]:
    """The start page, opened; nobody but its own server is asked for anything, and the console stays empty."""
    asked: list[str] = []
    said: list[str] = []
    context = browser.new_context(
        color_scheme=request.param, viewport={"width": 1280, "height": 900}
    )
    opened = context.new_page()
    opened.on("request", lambda sent: asked.append(sent.url))
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.goto(f"{address}/index.html")
    yield opened
    context.close()
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:"))] == []
    assert said == []


def test_the_search_finds_a_page_and_opens_it(page: Any) -> None:
    page.click(".md-search__input")
    page.keyboard.type("pg_restore")
    page.click(".md-search-result__item a >> nth=0")
    page.wait_for_url("**/operations.html*")
    assert "pg_restore" in page.inner_text("article")


def test_the_page_follows_the_systems_colours(
    page: Any, request: pytest.FixtureRequest
) -> None:
    dark = "dark" in request.node.name
    assert page.get_attribute("body", "data-md-color-scheme") == (
        "slate" if dark else "default"
    )


def test_a_narrow_window_needs_no_sideways_scrolling(page: Any, address: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    for name in ("index", "reference/rules", "operations"):
        page.goto(f"{address}/{name}.html")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
