"""No decision rests on the wording of a sentence: reasons are for people, code looks at causes and kinds."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ENGINE = Path(__file__).parent.parent / "src" / "tierwise"
SENTENCES = {"reason", "error_text", "why", "basis"}
LOOKING = {
    *(
        "startswith",
        "endswith",
        "find",
        "index",
        "partition",
        "rpartition",
        "split",
        "rsplit",
    ),
    *(
        "removeprefix",
        "removesuffix",
        "count",
        "like",
        "ilike",
        "contains",
        "match",
        "search",
    ),
    *("fullmatch", "findall", "finditer"),
}


def is_sentence(node: ast.AST) -> bool:
    """Return True for `x.reason`, a variable named `reason`, and `str(error)`."""
    if isinstance(node, ast.Attribute):
        return node.attr in SENTENCES
    if isinstance(node, ast.Name):
        return node.id in SENTENCES
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "str":
        return bool(node.args) and ast.unparse(node.args[0]) in (
            "error",
            "cause",
            "fault",
        )
    return False


def is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value != ""
    )


def looks_at_prose(source: str) -> list[int]:
    """Return the lines that look at the text of a reason."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            looked_at = (node.func.value, *node.args)
            if node.func.attr in LOOKING and any(
                is_sentence(part) for part in looked_at
            ):
                lines.append(node.lineno)
        elif isinstance(node, ast.Compare):
            sides = (node.left, *node.comparators)
            if any(is_sentence(side) for side in sides) and any(
                is_text(side) for side in sides
            ):
                lines.append(node.lineno)
    return lines


# These look at messages of SQLite and Jinja2, which carry no code for what they mean.
FOREIGN_MESSAGES = {"ledger/database.py", "steps/prompts.py"}
NO_ENGINE_CODE = {"migrations", "starter"}
FILES = [
    path
    for path in sorted(ENGINE.rglob("*.py"))
    if not NO_ENGINE_CODE & set(path.parts)
    and path.relative_to(ENGINE).as_posix() not in FOREIGN_MESSAGES
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ENGINE)))
def test_no_code_looks_at_the_text_of_a_reason(path: Path) -> None:
    """Any sentence may be changed without changing what the program does."""
    assert looks_at_prose(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        'outcome.reason.startswith("budget")',
        'before = rejection.reason.partition(": ")',
        'if "guard" in row.reason: pass',
        'kind = "review" if reason == "waits for a person" else ""',
        'OutcomeRecord.reason.like("budget%")',
        're.match("budget", outcome.reason)',
        'str(error).removeprefix("small: ")',
    ],
)
def test_a_look_at_a_reason_is_found(line: str) -> None:
    """The check above can fail."""
    assert looks_at_prose(line) == [1]
