"""A document's outcomes as Markdown in which every value stays text, whatever it holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tierwise.records import Document, Outcome
from tierwise.text.amounts import plural

_BACKTICKS = re.compile("`+")
_MOST_NESTED = 6  # deeper values are written as JSON


def document_page(document: Document) -> str:
    """Return the readable page of one document: its metadata, its steps, and each step's value.

    Its front matter declares its sensitivity, so that it still counts when the page is read as a
    document.
    """
    facts = {"language": document.language or "unknown", **document.metadata}
    lines = ["---", f"sensitivity: {document.strictest}", "---", ""]
    lines += [f"# {code_span(document.id)}", "", *_fields(facts, 0), ""]
    if document.members:
        members = [member.id for member in document.members]
        lines += [f"Group of {plural(len(members), 'document')}:", ""]
        lines += [*_items(members, 0), ""]
    lines += ["| step | status | model | reason |", "|---|---|---|---|"]
    for outcome in document.outcomes.values():
        cells = (outcome.step, outcome.status, outcome.model, outcome.reason)
        row = " | ".join(_table_cell(cell) for cell in cells)
        lines.append(f"| {row} |")
    for outcome in document.outcomes.values():
        if outcome.value is not None:
            lines += [
                "",
                f"## {code_span(outcome.step)}",
                "",
                *_block(outcome.value, 0),
            ]
        lines += _sources(outcome)
    return "\n".join(lines) + "\n"


def _sources(outcome: Outcome) -> Iterator[str]:
    """Yield which model or person gave which field, and which fields are open."""
    for name in outcome.open_fields:
        yield from ("", f"- {code_span(name)} is open")
    if outcome.sources:
        yield ""
    for name, source in outcome.sources.items():
        yield f"- {code_span(name)} is from {code_span(source.model)}"


def code_span(text: str) -> str:
    """Return a text on one line as code, in which Markdown and HTML mean nothing."""
    if not text.strip() or not text.isprintable():
        text = json.dumps(text)
    ticks = "`" * (_longest_backticks(text) + 1)
    # A space keeps a backtick at the edge apart; Markdown takes one space off at each end.
    at_edge = ("`", " ")
    pad = " " if text.startswith(at_edge) or text.endswith(at_edge) else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _block(value: Any, depth: int) -> Iterator[str]:
    """Yield the lines of a value: fields for a dict, items for a list, a fence for a text."""
    if _is_nested(value) and depth < _MOST_NESTED:
        if isinstance(value, dict):
            yield from _fields(value, depth)
        else:
            yield from _items(value, depth)
    else:
        yield from _fence(_as_text(value), depth)


def _fields(fields: dict[str, Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for name, value in fields.items():
        label = code_span(str(name))
        yield from _entry(f"{indent}- {label}:", value, depth)


def _items(items: list[Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    for number, item in enumerate(items, 1):
        yield from _entry(f"{indent}- {number}:", item, depth)


def _entry(start: str, value: Any, depth: int) -> Iterator[str]:
    """Yield one line for a short value, or a block below the line for any other."""
    is_multiline = isinstance(value, str) and "\n" in value
    if _is_nested(value) or is_multiline:
        yield from (start, "", *_block(value, depth + 1), "")
    else:
        yield f"{start} {code_span(_as_text(value))}"


def _fence(text: str, depth: int) -> Iterator[str]:
    """Yield a text in a fence that no backticks in it can close early."""
    indent = "  " * depth
    fence = "`" * max(3, _longest_backticks(text) + 1)
    yield f"{indent}{fence}text"
    unified = text.replace("\r\n", "\n").replace("\r", "\n")
    for line in unified.split("\n"):
        yield f"{indent}{line}"
    yield f"{indent}{fence}"


def _table_cell(text: str | None) -> str:
    """Return a text for a table, where a bar would end the cell even in code."""
    if not text:
        return ""
    return code_span(text).replace("|", r"\|")


def _longest_backticks(text: str) -> int:
    if "`" not in text:
        return 0
    runs = _BACKTICKS.findall(text)
    return max((len(run) for run in runs), default=0)


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
