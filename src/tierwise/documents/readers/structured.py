"""JSON and XML files: a document for each row of an array, or one for the whole file.

XML is read without entities, document types and the network.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from tierwise.documents.readers.decoding import decode
from tierwise.documents.readers.own import row_part
from tierwise.documents.readers.results import Extracted, Part
from tierwise.documents.readers.rows import row_document
from tierwise.documents.readers.settings import Request
from tierwise.errors import DocumentError

_DEEPEST = 6  # levels that are searched for rows
_MOST_NAMED = 5
_NAME_ROWS = 'name the rows\' place with rows_at, such as rows_at = "data.items"'
_ENTITIES = "it declares entities, which could fill the memory or fetch a file; save it without them"

Row = Mapping[str, Any]


# --- JSON ----------------------------------------------------------------------------------------


def read_json(data: bytes, request: Request) -> Extracted:
    """Return the rows of a JSON file, or its text where it has none.

    Raises DocumentError for a file that is not JSON, and where the rows are not at their place.
    """
    text, notes = decode(data)
    root = _load(text)
    rows = _json_rows(root, request)
    if rows is None:
        shown = orjson.dumps(root, option=orjson.OPT_INDENT_2).decode()
        return Extracted(shown, notes)
    return _row_parts(rows, request, notes)


def _load(text: str) -> Any:
    try:
        return json.loads(text.removeprefix("\ufeff"), parse_int=_number, strict=False)
    except RecursionError:
        raise DocumentError("its values are nested too deeply; flatten it") from None
    except ValueError as error:
        line = getattr(error, "lineno", 0)
        place = f"line {line}: " if line else ""
        hint = ""
        if _is_json_lines(text):
            hint = "; a file with one object a line has the ending .jsonl"
        raise DocumentError(f"{place}it is not valid JSON; correct it{hint}") from None


def _is_json_lines(text: str) -> bool:
    """Return True where the first line is an object by itself."""
    first_line = text.strip().partition("\n")[0]
    try:
        return isinstance(json.loads(first_line), dict)
    except (ValueError, RecursionError):
        return False


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) < 19 else digits


def _json_rows(root: Any, request: Request) -> Sequence[Any] | None:
    """Return the array with the rows; None where the file is one document."""
    settings = request.settings
    if settings.tables == "document":
        return None
    if settings.rows_at:
        found = _at(root, settings.rows_at)
        if isinstance(found, list):
            return found
        places = ", ".join(place for place, _ in _arrays(root))[:200]
        others = f" (arrays of objects are at: {places})" if places else ""
        raise DocumentError(
            f"it has no array at '{settings.rows_at}'{others}; correct rows_at"
        )
    wanted = request.text_column.strip().casefold()
    arrays = list(_arrays(root))
    with_text = [
        (place, rows)
        for place, rows in arrays
        if any(_has_key(row, wanted) for row in rows)
    ]
    if len(with_text) == 1:
        return with_text[0][1]
    if len(with_text) > 1:
        places = ", ".join(place or "." for place, _ in with_text[:_MOST_NAMED])
        raise DocumentError(
            f"it has several arrays with '{request.text_column}': {places}; {_NAME_ROWS}"
        )
    if _has_key(root, wanted):
        return [root]
    if settings.tables == "rows":
        raise DocumentError(
            f"it has no array of objects with '{request.text_column}'; {_NAME_ROWS}"
        )
    return None


def _has_key(value: Any, wanted: str) -> bool:
    """Return True for an object with this key, in any case."""
    if not isinstance(value, dict):
        return False
    return wanted in (key.strip().casefold() for key in value)


def _at(root: Any, path: str) -> Any:
    """Return the value at a path such as `data.items` or `/data/items`; None where there is none."""
    if path in (".", "/"):
        return root
    separator = "/" if path.startswith("/") else "."
    value = root
    for name in path.strip("/").split(separator):
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _arrays(
    value: Any, place: str = "", depth: int = 0
) -> Iterator[tuple[str, list[Any]]]:
    """Yield the arrays of objects with their paths, the outer ones alone."""
    if isinstance(value, list):
        if any(isinstance(item, dict) for item in value):
            yield place, value
    elif isinstance(value, dict) and depth < _DEEPEST:
        for name, inner in value.items():
            yield from _arrays(inner, f"{place}.{name}" if place else name, depth + 1)


def _row_parts(
    rows: Sequence[Any], request: Request, notes: Mapping[str, str]
) -> Extracted:
    if not rows:
        raise DocumentError("the file has no rows")
    parts: list[Part] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            kind = type(row).__name__
            problem = f"row {number}: it is not an object but a {kind}; correct it"
            parts.append(Part(key=f"#{number}", problem=problem))
            continue
        fields = {str(key): value for key, value in row.items()} | dict(notes)
        raw = row_document(fields, number, seen, request.text_column)
        parts.append(row_part(raw, place=f"row {number}"))
    return Extracted("", parts=tuple(parts), is_document=False)


# --- XML -----------------------------------------------------------------------------------------


def read_xml(data: bytes, request: Request) -> Extracted:
    """Return the rows of an XML file, or its text where it has none.

    A row is an element; its attributes and the elements in it are its fields. Raises DocumentError
    for a file that is not well-formed or declares entities.
    """
    root = _parse_xml(data)
    settings = request.settings
    if settings.tables != "document":
        rows = _xml_rows(root, request)
        if rows is not None:
            return _row_parts([_fields(row) for row in rows], request, {})
    lines: list[str] = []
    _outline(root, 0, lines)
    return Extracted("\n".join(lines))


def _parse_xml(data: bytes) -> Any:
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except etree.XMLSyntaxError as error:
        if b"<!ENTITY" in data:
            raise DocumentError(_ENTITIES) from None
        if error.code == etree.ErrorTypes.ERR_RESOURCE_LIMIT:
            raise DocumentError(
                "its elements are nested too deeply; flatten it"
            ) from None
        line = error.lineno or 1
        raise DocumentError(
            f"line {line}: it is not well-formed XML; correct it"
        ) from None
    declared = root.getroottree().docinfo.internalDTD
    has_entities = (
        declared is not None and next(declared.iterentities(), None) is not None
    )
    if has_entities or any(node.tag is etree.Entity for node in root.iter()):
        raise DocumentError(_ENTITIES)
    return root


def _xml_rows(root: Any, request: Request) -> list[Any] | None:
    """Return the elements that are rows; None where the file is one document."""
    settings = request.settings
    if settings.rows_at:
        found = _elements_at(root, settings.rows_at)
        if found:
            return found
        raise DocumentError(
            f"it has no elements at '{settings.rows_at}'; correct rows_at, such as orders.order"
        )
    wanted = request.text_column.strip().casefold()
    for parent in _elements(root):
        names = {_local(child) for child in parent}
        is_list = len(names) == 1 and len(parent) > 0
        if is_list and all(_has_field(child, wanted) for child in parent):
            return list(parent)
    if settings.tables == "rows":
        raise DocumentError(
            f"it has no list of elements with '{request.text_column}'; {_NAME_ROWS}"
        )
    return None


def _elements(root: Any) -> Iterator[Any]:
    """Yield the outer elements, level by level."""
    level = [root]
    for _ in range(_DEEPEST):
        yield from level
        level = [child for element in level for child in element]


def _elements_at(root: Any, path: str) -> list[Any]:
    """Return the elements at a path such as `orders.order`, with or without the root's name."""
    separator = "/" if path.startswith("/") else "."
    names = path.strip("/").split(separator)
    if names[0] == _local(root):
        names = names[1:] or names
    found = [root]
    for name in names:
        found = [
            child for element in found for child in element if _local(child) == name
        ]
    return found


def _has_field(element: Any, wanted: str) -> bool:
    names = [_local(child) for child in element]
    names += [key.rpartition("}")[2] for key, _ in element.items()]
    return wanted in [name.casefold() for name in names]


def _fields(element: Any) -> Row:
    """Return an element's attributes and children as fields; equal names are joined."""
    fields: dict[str, Any] = {}
    for key, value in element.items():
        fields[key.rpartition("}")[2]] = value
    for child in element:
        lines: list[str] = []
        if len(child):
            for inner in child:
                _outline(inner, 0, lines)
        text = "\n".join([_text(child), *lines]).strip()
        name = _local(child)
        fields[name] = f"{fields[name]}\n{text}" if name in fields else text
    return fields


def _outline(element: Any, depth: int, lines: list[str]) -> None:
    """Add a line for an element, such as `  Amount (currency: EUR): 12.00`, then its children.

    Text between the children follows at its place.
    """
    indent = "  " * depth
    attributes = [
        f"{key.rpartition('}')[2]}: {value}" for key, value in element.items()
    ]
    about = f" ({', '.join(attributes)})" if attributes else ""
    text = " ".join((element.text or "").split())
    lines.append(f"{indent}{_local(element)}{about}: {text}".rstrip())
    for child in element:
        _outline(child, depth + 1, lines)
        tail = " ".join((child.tail or "").split())
        if tail:
            lines.append(f"{indent}  {tail}")


def _text(element: Any) -> str:
    """Return an element's own text, with that between its children."""
    pieces = [element.text or "", *(child.tail or "" for child in element)]
    return " ".join("".join(pieces).split()) if len(element) else pieces[0].strip()


def _local(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""
