"""A desk that runs takes up changed files of its project, and says so where they do not load."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.kit.desk import ServedDesk, desk_at
from tests.kit.projects import make_project, model
from tierwise.desk.project_watch import ProjectWatch
from tierwise.project import Project

RULES = "routing_rules/rules.yaml"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    models = (model(name, "http://127.0.0.1:1") for name in ("small", "large"))
    return make_project(tmp_path / "project", *models)


@pytest.fixture
def desk(root: Path) -> Iterator[ServedDesk]:
    with desk_at(root) as served:
        yield served


def banner(html: str) -> str:
    found = re.search('<div class="banner".*?</div>', html, re.DOTALL)
    return found[0] if found else ""


def test_changed_rules_are_in_use_at_the_next_page(
    desk: ServedDesk, root: Path
) -> None:
    browser = desk.signed_in()
    assert "No answers are sampled" in browser.get("/labels").text
    rules = root / RULES
    before = rules.read_text()
    rules.write_text(before + "\nshadow: {share: 0.05}\n")
    page = browser.get("/labels").text
    assert "No answers are sampled" not in page
    assert banner(page) == ""
    rules.write_text(before)
    assert "No answers are sampled" in browser.get("/labels").text


def test_rules_that_do_not_load_leave_the_old_ones_in_use_and_a_banner(
    desk: ServedDesk, root: Path
) -> None:
    browser = desk.signed_in()
    rules = root / RULES
    before = rules.read_text()
    rules.write_text(before + "\nshadow: {share: 0.05}\n")
    browser.get("/labels")
    for broken in ("shadow: {share: 7}\n", ": [", "no_such_key: 1\n"):
        rules.write_text(f"{before}\n{broken}")
        for path in ("/", "/labels", "/review", "/alerts", "/runs", "/compare"):
            page = browser.get(path)
            assert page.status_code == 200
            assert "rules.yaml" in banner(page.text), (broken, path)
        assert "No answers are sampled" not in browser.get("/labels").text
    # A stranger learns nothing of it.
    assert "rules.yaml" not in desk.browser().get("/sign-in").text
    rules.unlink()
    assert banner(browser.get("/labels").text)
    rules.write_text(before)
    page = browser.get("/labels").text
    assert banner(page) == ""
    assert "No answers are sampled" in page


def test_settings_of_the_start_and_modules_need_another_start(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = root / "tasks" / "of_the_desk.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text("LABEL = 1\n")
    module = ModuleType("tasks.of_the_desk")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    watch = ProjectWatch(Project(root))
    assert not watch.look()
    assert watch.state.is_fresh
    path.write_text("LABEL = 22\n")
    assert not watch.look()
    assert watch.state.stale == ("tasks/of_the_desk.py",)
    settings = root / "pyproject.toml"
    before = settings.read_text() if settings.exists() else ""
    settings.write_text(f"{before}\n[tool.tierwise.desk]\nlabellers = 2\n")
    assert watch.look()
    assert watch.state.restart == ("[tool.tierwise.desk]",)
    assert watch.project.settings.desk.labellers == 2


def test_a_file_of_the_same_size_and_another_time_is_read(root: Path) -> None:
    watch = ProjectWatch(Project(root))
    catalog = root / "routing_rules" / "catalog.yaml"
    text = catalog.read_text()
    catalog.write_text(text.replace("hosted", "posted"))
    deadline = time.monotonic() + 10
    # The clock of a file system may be coarse.
    while not watch.look() and time.monotonic() < deadline:
        catalog.touch()
    assert watch.project.catalog.tiers["clarifai"].description == "posted"


def test_files_that_never_loaded_are_named_from_the_start(root: Path) -> None:
    (root / RULES).write_text(": [")
    with desk_at(root) as desk:
        assert "rules.yaml" in banner(desk.signed_in().get("/").text)
