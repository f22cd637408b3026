"""`tierwise docs`: the pages in the terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.projects import ROOT
from tests.kit.terminal import Terminal

DOCS = ROOT / "docs"


def test_the_list_names_each_page_with_its_title(
    terminal: Terminal, tmp_path: Path
) -> None:
    done = terminal("docs", cwd=tmp_path)
    assert done.code == 0
    lines = [line.split(maxsplit=1) for line in done.out.splitlines() if line]
    titles = {line[0]: line[1] for line in lines}
    assert titles["money"] == "Budgets, rate limits and prices"
    assert titles["reference/rules"] == "The rules file"
    assert titles["changelog"] == "Changelog"
    pages = {
        path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")
    }
    assert pages <= set(titles)
    assert lines[0][0] == "index"


@pytest.mark.parametrize("name", ["money", "money.md", "money.md#limits"])
def test_a_page_is_named_as_links_name_it(
    terminal: Terminal, tmp_path: Path, name: str
) -> None:
    assert terminal("docs", name, cwd=tmp_path).out == (DOCS / "money.md").read_text()


def test_the_changelog_is_the_repositorys(terminal: Terminal, tmp_path: Path) -> None:
    printed = terminal("docs", "changelog", cwd=tmp_path).out
    assert printed == (ROOT / "CHANGELOG.md").read_text()


def test_a_misspelt_page_says_what_was_meant(
    terminal: Terminal, tmp_path: Path
) -> None:
    done = terminal("docs", "mony", cwd=tmp_path)
    assert done.code == 2
    assert "no page named 'mony'; did you mean 'money'?" in done.err
    # a file outside the pages is none of them
    assert terminal("docs", "../README", cwd=tmp_path).code == 2


def test_a_terminal_gets_the_page_laid_out_and_the_names_of_pages_in_links() -> None:
    reader, writer = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tierwise", "docs", "index"],
        stdout=writer,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "90"},
    )
    os.close(writer)
    chunks = []
    try:
        while chunk := os.read(reader, 65536):
            chunks.append(chunk)
    except OSError:  # Linux's word for the end of a terminal
        pass
    assert process.wait() == 0
    os.close(reader)
    printed = b"".join(chunks).decode()
    assert "\x1b[" in printed
    assert "## Where to start" not in printed
    assert "Where to start" in printed
    assert "tutorial.md" in printed
