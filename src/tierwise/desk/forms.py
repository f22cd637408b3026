"""An answer as a form: fields made from a step's JSON schema, and the answer in a form sent back.

A field that no plain input can show, such as a list of objects, is edited as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tierwise.errors import Misuse
from tierwise.records import Outcome

Kind = Literal["choice", "text", "long", "number", "lines", "json"]
_PREFIX = "field."
_LONG = 60  # characters; longer texts get several lines
_NOTHING = ""  # the choice of null


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an answer. `entered` is what its input shows."""

    name: str
    kind: Kind
    entered: str
    options: tuple[str, ...] = ()
    is_optional: bool = False
    hint: str = ""
    kept_of: str = ""  # the source of a field that is kept while others are open

    @property
    def input_name(self) -> str:
        """The name of its input."""
        return _PREFIX + self.name


def fields_of(
    schema: Mapping[str, Any],
    value: Any,
    entered: Mapping[str, str] | None = None,
) -> list[Field]:
    """Return the fields of an answer with a schema, filled with a value.

    `entered` is a form that was sent and refused: what the person wrote stays.
    """
    properties = schema.get("properties", {})
    answer = value if isinstance(value, Mapping) else {}
    fields = []
    for name, raw in properties.items():
        node, is_optional = _resolved(schema, raw)
        kind = _kind(node, answer.get(name))
        text = _as_text(kind, answer.get(name))
        if entered is not None and _PREFIX + name in entered:
            text = entered[_PREFIX + name]
        fields.append(
            Field(
                name=name,
                kind=kind,
                entered=text,
                options=_options(node),
                is_optional=is_optional,
                hint=str(node.get("description") or raw.get("description") or ""),
            )
        )
    return fields


def open_first(fields: Sequence[Field], outcome: Outcome) -> list[Field]:
    """Return the fields of an outcome, the open ones first, the kept ones with their source."""
    if not outcome.open_fields:
        return list(fields)
    shown: list[Field] = []
    for each in fields:
        source = outcome.sources.get(each.name)
        shown.append(replace(each, kept_of=source.model if source else ""))
    # a stable order: False before True
    return sorted(shown, key=lambda each: bool(each.kept_of))


def answer_of(schema: Mapping[str, Any], form: Mapping[str, str]) -> dict[str, Any]:
    """Return the answer in a form. Raises Misuse for a field that cannot be read.

    Whether it fits the schema is checked by the caller, as for any answer.
    """
    answer: dict[str, Any] = {}
    for name, raw in schema.get("properties", {}).items():
        text = form.get(_PREFIX + name)
        if text is None:
            continue
        node, is_optional = _resolved(schema, raw)
        # Browsers send the lines of a text with both characters.
        answer[name] = _read(name, node, text.replace("\r\n", "\n"), is_optional)
    return answer


def _resolved(
    schema: Mapping[str, Any], node: Mapping[str, Any]
) -> tuple[Mapping[str, Any], bool]:
    """Return the schema of a field without references, and whether null is allowed."""
    while "$ref" in node:
        name = str(node["$ref"]).rpartition("/")[2]
        node = schema.get("$defs", {}).get(name, {})
    options = node.get("anyOf") or node.get("oneOf")
    if not options:
        kinds = node.get("type")
        if isinstance(kinds, list):
            rest = [kind for kind in kinds if kind != "null"]
            return {**node, "type": rest[0] if len(rest) == 1 else None}, (
                "null" in kinds
            )
        return node, False
    others = [option for option in options if option.get("type") != "null"]
    is_optional = len(others) < len(options)
    if len(others) != 1:
        return {}, is_optional
    inner, _ = _resolved(schema, others[0])
    return inner, is_optional


def _kind(node: Mapping[str, Any], value: Any) -> Kind:
    if _options(node):
        return "choice"
    kind = node.get("type")
    if kind == "string":
        text = value if isinstance(value, str) else ""
        is_long = len(text) > _LONG or "\n" in text
        return "long" if is_long else "text"
    if kind in ("integer", "number"):
        return "number"
    if kind == "array" and node.get("items", {}).get("type") == "string":
        lines = value if isinstance(value, list) else []
        if all(isinstance(line, str) and "\n" not in line for line in lines):
            return "lines"
    return "json"


def _options(node: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the values to choose from as text; none where anything may be written."""
    if node.get("type") == "boolean":
        return ("true", "false")
    if "const" in node:
        return (_option(node["const"]),)
    values = node.get("enum")
    if not isinstance(values, Sequence):
        return ()
    return tuple(_option(value) for value in values)


def _option(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_text(kind: Kind, value: Any) -> str:
    if value is None:
        return ""
    if kind == "lines":
        return "\n".join(value)
    if kind == "json":
        return json.dumps(value, indent=2, ensure_ascii=False)
    return _option(value)


def _read(name: str, node: Mapping[str, Any], text: str, is_optional: bool) -> Any:
    """Return the value of a field. Raises Misuse where it is not of its kind."""
    options = _options(node)
    kind = node.get("type")
    if is_optional and text == _NOTHING:
        return None
    if options:
        return _chosen(node, text)
    if kind == "string":
        return text
    if kind in ("integer", "number"):
        return _number(name, kind, text)
    if kind == "array" and not text.lstrip().startswith("["):
        return [line.strip() for line in text.split("\n") if line.strip()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Misuse(f"{name}: this is no JSON: {error}") from None


def _chosen(node: Mapping[str, Any], text: str) -> Any:
    """Return the value that an option names; what is none of them is left to the schema."""
    if node.get("type") == "boolean":
        return {"true": True, "false": False}.get(text, text)
    values = [node["const"]] if "const" in node else node["enum"]
    for value in values:
        if _option(value) == text:
            return value
    return text


def _number(name: str, kind: str, text: str) -> int | float:
    try:
        return int(text) if kind == "integer" else float(text)
    except ValueError:
        raise Misuse(f"{name}: '{text}' is no number") from None
