"""A document's outcomes as Markdown in which every value stays text, whatever it holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tierwise.records import Document

_TICKS = re.compile("`+")
_DEEPEST = 6


def page(document: Document) -> str:
    """The readable page of one document: what it is, its steps, and the value of each step.

    Its front matter says how sensitive all this is, so that it still is when the page is read as a document.
    """
    facts = {"language": document.language or "unknown", **document.metadata}
    lines = ["---", f"sensitivity: {document.strictest}", "---", ""]
    lines += [f"# {span(document.id)}", "", *_fields(facts, 0), ""]
    lines += ["| step | status | model | reason |", "|---|---|---|---|"]
    for outcome in document.outcomes.values():
        cells = (outcome.step, outcome.status, outcome.model, outcome.reason)
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    for outcome in document.outcomes.values():
        if outcome.value is not None:
            lines += ["", f"## {span(outcome.step)}", "", *_block(outcome.value, 0)]
    return "\n".join(lines) + "\n"


def _block(value: Any, depth: int) -> Iterator[str]:
    """A value as lines: fields for a dict, items for a list, the text itself for a text."""
    if isinstance(value, dict | list) and value and depth < _DEEPEST:
        yield from _fields(value, depth) if isinstance(value, dict) else _items(value, depth)
    else:
        yield from _fence(value if isinstance(value, str) else _json(value), depth)


def _fields(fields: dict[str, Any], depth: int) -> Iterator[str]:
    for name, value in fields.items():
        yield from _entry(f"{'  ' * depth}- {span(str(name))}:", value, depth)


def _items(items: list[Any], depth: int) -> Iterator[str]:
    for number, item in enumerate(items, 1):
        yield from _entry(f"{'  ' * depth}- {number}:", item, depth)


def _entry(start: str, value: Any, depth: int) -> Iterator[str]:
    """One line for a short value, a block below it for another."""
    nested = isinstance(value, dict | list) and bool(value)
    if nested or (isinstance(value, str) and "\n" in value):
        yield from (start, "", *_block(value, depth + 1), "")
    else:
        yield f"{start} {span(value if isinstance(value, str) else _json(value))}"


def _fence(text: str, depth: int) -> Iterator[str]:
    """A text in a fence that is longer than any run of backticks in it, so that nothing closes it early."""
    indent = "  " * depth
    fence = "`" * max(3, _longest_run(text) + 1)
    yield f"{indent}{fence}text"
    yield from (
        f"{indent}{line}" for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    )
    yield f"{indent}{fence}"


def span(text: str) -> str:
    """A text on one line as code, in which Markdown and HTML mean nothing."""
    if not text.strip() or not text.isprintable():
        text = json.dumps(text)
    ticks = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith(("`", " ")) or text.endswith(("`", " ")) else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _cell(text: str | None) -> str:
    """A text in a table, where a bar would end the cell even in code."""
    return span(text).replace("|", r"\|") if text else ""


def _longest_run(text: str) -> int:
    return max(map(len, _TICKS.findall(text)), default=0)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
