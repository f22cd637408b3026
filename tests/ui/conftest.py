"""A browser for the tests that look at pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = (
    os.environ.get("TIERWISE_CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder; without a browser they are skipped."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ui)
            if CHROMIUM is None:
                item.add_marker(
                    pytest.mark.skip(
                        reason="there is no chromium here: apt-get install chromium"
                    )
                )


@pytest.fixture(scope="session")
def images() -> Path | None:
    """A folder for pictures of the pages, where TIERWISE_IMAGES names one."""
    return (
        Path(os.environ["TIERWISE_IMAGES"]) if "TIERWISE_IMAGES" in os.environ else None
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield opened
        opened.close()
