"""The documentation as a site: it builds strictly, leads to every page, loads nothing from elsewhere, and is true."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from docs.reference import HERE, pages
from tests.kit.pages import BLOCK
from tests.kit.projects import ROOT
from tests.kit.site import built_site
from tierwise.policy.catalog import load_catalog
from tierwise.policy.rules import load_rules
from tierwise.project import Project
from tierwise.steps.golden_settings import load_settings
from tierwise.steps.prompts import load_prompts

DOCS = ROOT / "docs"
SOURCES = sorted(path.relative_to(DOCS) for path in DOCS.rglob("*.md"))
REFERENCE = [source for source in SOURCES if source.parent.name == "reference"]
LOADED = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "object": "data",
}
ELSEWHERE = re.compile(r"(?:https?:)?//", re.IGNORECASE)


class Page(HTMLParser):
    """What a page of the site loads by itself, and where its links lead."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag in LOADED and values.get(LOADED[tag]):
            self.loads.append(str(values[LOADED[tag]]))
        if tag == "a" and values.get("href"):
            self.links.append(str(values["href"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_site(tmp_path_factory)


def code(page: str, language: str) -> list[str]:
    """The code blocks of a page."""
    return [
        match[2]
        for match in BLOCK.finditer((DOCS / page).read_text())
        if match[1] == language
    ]


# ---- the site -----------------------------------------------------------------------------------


def test_every_page_is_built_and_the_start_page_leads_to_it(site: Path) -> None:
    links = {link.partition("#")[0] for link in Page(site / "index.html").links}
    for source in SOURCES:
        page = source.with_suffix(".html")
        assert (site / page).exists(), source
        assert page == Path("index.html") or str(page) in links, (
            f"{source} is not in the navigation"
        )


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages_of_site = list(site.rglob("*.html"))
    assert len(pages_of_site) > len(SOURCES)  # and one that says "not found"
    for path in pages_of_site:
        assert [found for found in Page(path).loads if ELSEWHERE.match(found)] == [], (
            path
        )


def test_no_style_sheet_loads_anything_from_another_host(site: Path) -> None:
    sheets = list(site.rglob("*.css"))
    assert sheets
    for path in sheets:
        text = path.read_text()
        addresses = re.findall(r"url\(\s*[\"']?([^)\"']+)", text) + re.findall(
            r"@import\s+[\"']([^\"']+)", text
        )
        assert [found for found in addresses if ELSEWHERE.match(found)] == [], path


def test_the_search_index_holds_every_page(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {
        entry["location"].partition("#")[0] or "index.html" for entry in index["docs"]
    }
    assert {str(source.with_suffix(".html")) for source in SOURCES} <= found


def test_nothing_but_pages_and_pictures_gets_into_the_site(site: Path) -> None:
    assert list(site.rglob("*.py")) == []
    assert list(site.rglob("*.pyc")) == []


# ---- the reference ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [source.name for source in REFERENCE])
def test_the_reference_is_what_the_code_says(name: str) -> None:
    """When this fails: make docs-reference"""
    assert (HERE / name).read_text() == pages()[name], "run `make docs-reference`"


def test_every_page_of_the_reference_is_written_from_the_code() -> None:
    assert {path.name for path in HERE.iterdir()} == set(pages())


def test_the_references_rules_load(tmp_path: Path) -> None:
    [rules] = code("reference/rules.md", "yaml")
    path = tmp_path / "rules.yaml"
    path.write_text(rules)
    assert (
        len(load_rules(path, Project(ROOT).catalog, {"classify", "draft"}).routes) == 3
    )


def test_the_references_catalog_loads(tmp_path: Path) -> None:
    [catalog] = code("reference/catalog.md", "yaml")
    path = tmp_path / "catalog.yaml"
    path.write_text(catalog)
    loaded = load_catalog(path)
    assert (
        loaded.unavailable(loaded.model("my-server-shown"), {}) is None
    )  # its host counts as in the house


def test_the_references_other_settings_load(tmp_path: Path) -> None:
    [toml], [head, golden] = (
        code("reference/settings.md", "toml"),
        code("reference/settings.md", "yaml"),
    )
    (tmp_path / "pyproject.toml").write_text(toml)
    (tmp_path / "tone.md.j2").write_text(
        f"---\n{head}---\n{{% block system %}}{{% endblock %}}{{% block user %}}{{% endblock %}}"
    )
    (tmp_path / "golden.yaml").write_text(golden)
    assert (
        Project(tmp_path).settings.keep_text
        == tomllib.loads(toml)["tool"]["tierwise"]["keep_text"]
    )
    assert load_prompts(tmp_path)["tone"].head.step == "tone"
    assert load_settings(tmp_path / "golden.yaml").rubric


def test_every_variable_of_ours_is_in_the_reference() -> None:
    engine = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    names = set(re.findall(r"\bTIERWISE_[A-Z_]+\b", engine))
    assert "TIERWISE_LEDGER_URL" in names
    page = (DOCS / "reference" / "settings.md").read_text()
    assert {name for name in names if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("source", [str(source) for source in REFERENCE])
def test_python_in_the_reference_is_valid(source: str) -> None:
    for block in code(source, "python"):
        ast.parse(block, filename=source)


# ---- what pages claim ---------------------------------------------------------------------------


def test_the_arithmetic_of_the_worked_example_is_right() -> None:
    sums = re.findall(
        r"([\d.(][\d.+×/() ]*[\d)]) = ([\d.]+)$",
        (DOCS / "routing.md").read_text(),
        re.MULTILINE,
    )
    assert len(sums) == 5
    for left, right in sums:
        exact = eval(left.replace("×", "*"))
        assert f"{exact:.{len(right.partition('.')[2])}f}" == right, (
            f"{left} is {exact}"
        )
