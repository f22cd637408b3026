"""The pages for contributors are true: the rooms, the folders that they name, and the figures of their code."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from docs import architecture
from tests.kit.pages import BLOCK
from tests.kit.projects import ROOT
from tests.kit.rooms import BANDS, ENGINE

DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))
PAGES = [ROOT / "CONTRIBUTING.md", architecture.PAGE, DOCS / "glossary.md", *DECISIONS]
FOLDERS = (
    "src/",
    "tests/",
    "docs/",
    "tasks/",
    "flows/",
    "prompts/",
    "golden/",
    "routing_rules/",
)
SYNONYMS = [
    "circuit breaker",
    "few-shot",
    "backoff",
    "heartbeat",
    "idempotency",
    "deduplication",
    "rate limiting",
    "confidence interval",
    "human in the loop",
    "LLM as a judge",
    "model cascade",
    "conformal",
    "learn then test",
    "PII redaction",
    "tamper-evident log",
    "on-premises",
    "provider batch API",
    "retry",
    "fallback",
    "escalation",
]


def test_the_architecture_page_is_what_the_imports_say() -> None:
    """When this fails: make docs-reference"""
    page = architecture.PAGE.read_text()
    assert page == architecture.written(page), "run `make docs-reference`"


def test_the_architecture_page_lists_every_room_once_in_its_band_and_in_order() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| ([a-z ]+) \| .", architecture.PAGE.read_text(), re.MULTILINE
    )
    assert rows == [(room, band) for band, rooms in BANDS.items() for room in rooms]


def test_every_room_of_the_table_is_a_folder_or_a_module_and_the_other_way_round() -> (
    None
):
    here = {path.name.removesuffix(".py") for path in ENGINE.iterdir() if is_room(path)}
    assert here == {room for rooms in BANDS.values() for room in rooms}


def is_room(path: Path) -> bool:
    """Return True for a package of the engine, and for a module at its root."""
    if path.is_dir():
        return (path / "__init__.py").exists()
    return path.suffix == ".py" and not path.name.startswith("__")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_for_contributors_names_exists(page: Path) -> None:
    named = re.findall(r"`([\w./-]+)`", page.read_text())
    paths = [name for name in named if name.startswith(FOLDERS)]
    assert [name for name in paths if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_for_contributors_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("word", SYNONYMS)
def test_the_glossary_leads_from_the_fields_word_to_a_page(word: str) -> None:
    rows = (DOCS / "glossary.md").read_text().splitlines()
    assert [row for row in rows if word.lower() in row.lower() and ".md)" in row]


def test_the_figures_about_bounds_are_those_that_the_page_prints() -> None:
    page = (DOCS / "decisions" / "exact-bounds.md").read_text()
    [code] = [match[2] for match in BLOCK.finditer(page) if match[1] == "python"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "exact-bounds.md", "exec"), {"__name__": "page"})
    shown = re.findall(
        r"^\| (?:exact|Wilson|normal).* \| ([\d.]+) \| ([\d.]+) \|$", page, re.MULTILINE
    )
    computed = [line.split()[1:] for line in printed.getvalue().splitlines()]
    assert [[float(figure) for figure in row] for row in shown] == [
        [float(figure) for figure in row] for row in computed
    ]


def test_every_decision_record_says_context_decision_and_consequences() -> None:
    for page in DECISIONS:
        if page.name != "index.md":
            text = page.read_text()
            parts = [
                text.find(f"**{part}.**")
                for part in ("Context", "Decision", "Consequences")
            ]
            assert -1 not in parts, page.name
            assert parts == sorted(parts), page.name
