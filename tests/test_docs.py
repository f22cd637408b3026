"""The documentation cannot drift: its code runs, its commands exist, and every command is documented."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.kit.pages import BLOCK
from tests.kit.projects import ROOT
from tierwise.cli.commands import COMMANDS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """All code blocks of a language: where they stand, and their text."""
    return [
        (
            f"{page.name}:{page.read_text()[: match.start()].count(chr(10)) + 1}",
            match[2],
        )
        for page in PAGES
        for match in BLOCK.finditer(page.read_text())
        if match[1] == language
    ]


def commands() -> set[str]:
    """Return the names of all commands."""
    return {row.name for row in COMMANDS}


@pytest.mark.parametrize(("place", "code"), blocks("python"))
def test_python_in_the_documentation_is_valid(place: str, code: str) -> None:
    ast.parse(code, filename=place)


def test_the_developers_guides_modules_run(tmp_path: Path) -> None:
    """The flow and the step of the guide are complete: they import and have the names that the guide says."""
    guide = dict(
        enumerate(
            code
            for place, code in blocks("python")
            if place.startswith("developers.md")
        )
    )
    names: list[set[str]] = []
    for code in guide.values():
        space: dict[str, object] = {"__name__": "guide"}
        exec(compile(code, "developers.md", "exec"), space)
        names.append(set(space))
    assert "digest" in names[0]
    assert "read_letters" in names[1]
    assert {"tone", "Tone", "reason_is_given"} <= names[2]


def test_the_guides_prompt_and_model_load(tmp_path: Path) -> None:
    from tierwise.policy.catalog import load_catalog
    from tierwise.records import Document
    from tierwise.steps.prompts import load_prompts

    [(_, prompt)] = blocks("jinja")
    (tmp_path / "tone.md.j2").write_text(prompt)
    messages = load_prompts(tmp_path)["tone"].render(
        Document(id="a", text="hi"), {"labels": ["glad", "cross"]}
    )
    assert "glad, cross" in messages[0].content

    entry = next(
        code for place, code in blocks("yaml") if place.startswith("developers.md")
    )
    indented = "".join(f"  {line}\n" for line in entry.splitlines())
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(
        f"version: 1\ntiers:\n  local: {{description: x, stays_in_house: true}}\nmodels:\n{indented}"
    )
    assert load_catalog(catalog).model("my-server").structured_output == "grammar"


def test_the_readmes_rules_are_part_of_the_shipped_ones() -> None:
    shipped = " ".join((ROOT / "routing_rules" / "rules.yaml").read_text().split())
    [(_, shown)] = [
        (place, code) for place, code in blocks("yaml") if place.startswith("README.md")
    ]
    for line in shown.splitlines():
        part = line.partition("#")[0].strip()
        assert part in shipped, part


def test_every_command_is_documented_and_every_documented_command_exists() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    fenced = "\n".join(match[2] for match in BLOCK.finditer(text))
    code = re.findall(r"`[^`\n]+`", text) + re.findall(
        r"^.*bin/tierwise.*$|^tierwise .*$", fenced, re.MULTILINE
    )
    mentioned = set(re.findall(r"\btierwise ([a-z]+)\b", " ".join(code)))
    known = commands()
    assert known
    assert known <= mentioned, f"not documented: {known - mentioned}"
    assert mentioned <= known, (
        f"documented, but there is no such command: {mentioned - known}"
    )


def test_the_commands_by_symptom_exist_with_their_options() -> None:
    """Each command of the page is one of ours or of Prefect's, and knows its options."""
    from prefect.cli import _app as prefect_program

    from tierwise.cli.program import load

    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    lines = [line for match in BLOCK.finditer(page) for line in match[2].splitlines()]
    rows = {row.name: row for row in COMMANDS}
    seen = set()
    for line in lines:
        program, *words = line.split()
        if program == "tierwise":
            params = load(rows[words[0]]).params
            known = {option for each in params for option in each.opts}
            assert {word for word in words if word.startswith("--")} <= known, line
            seen.add(words[0])
        if program == "prefect":
            # Global options come before the command.
            words = [word for word in words if word != "--no-prompt"]
            chain, _, unknown = prefect_program._app.parse_commands(words)
            assert chain, line
            is_group = not prefect_program._app[chain[0]].default_command
            assert len(chain) > 1 or not is_group, f"{line}: {unknown}"
            seen.add(" ".join(chain))
    assert {"up", "status", "flow-run cancel"} <= seen


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(
        re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    )
    assert (
        set(
            re.findall(
                r"(?:^|`)make ([a-z-]+)", (ROOT / "README.md").read_text(), re.MULTILINE
            )
        )
        <= targets
    )


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
