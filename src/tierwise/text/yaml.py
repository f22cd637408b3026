"""The only door to YAML: read into validated models and written back, with file and line in errors.

Reading takes the fast parser, which knows no lines. The text is parsed again, with lines, when an
error needs one.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tierwise.errors import ConfigError, unknown_name
from tierwise.text.files import write_atomically

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

M = TypeVar("M", bound="BaseModel")
Location = tuple[int | str, ...]

# Order of reports, 1 if not named: a misspelt setting explains a missing one, so it comes first,
# and "not an object" explains least.
_REPORT_ORDER = {"extra_forbidden": 0, "model_type": 2}
# Directives, tags, anchors and tabs: the parsers may differ on them, so the fast one is skipped.
_UNUSUAL = re.compile(r"^%|(?:^|[\s\[{,])[!&*]|<<|\t", re.MULTILINE)
_QUOTED = re.compile(r"'([^']*)'")
_UNCHANGEABLE = "the file's form is not one that we change"


class YamlData:
    """Plain data from YAML together with the line of every key and item."""

    def __init__(
        self,
        path: Path | str,
        node: Any,
        *,
        first_line: int = 1,
        text: str | None = None,
    ) -> None:
        """Take a parsed node. With `text`, the node has no lines: they are parsed when needed."""
        self.path = path
        self.first_line = first_line
        self._given = node
        self._text = text
        self.data = _plain(node)

    @cached_property
    def _node(self) -> Any:
        """The node with lines, where the text has any."""
        from ruamel.yaml.error import YAMLError

        if self._text is None:
            return self._given
        try:
            return _load_with_lines(self._text)
        except YAMLError:  # the fast parser accepts a little more
            return self._given

    def line(self, location: Location) -> int:
        """Return the line of the deepest part of a location that the file has."""
        node = self._node
        line = self.first_line
        for key in location:
            positions = getattr(getattr(node, "lc", None), "data", None)
            if not positions or key not in positions:
                break
            line = positions[key][0] + self.first_line
            node = node[key]
        return line

    def column(self, location: Location) -> int:
        """Return the column, from 0, at which the value of a location begins."""
        *outer, last = location
        _, column = _at(self._node, outer).lc.data[last][:2]
        return int(column)

    def error(self, message: str, location: Location = ()) -> ConfigError:
        """Return a ConfigError at this place of the file."""
        return ConfigError(message, path=self.path, line=self.line(location))

    def validate(self, model: type[M]) -> M:
        """Return the data as `model`. Raises ConfigError for the first thing that does not fit."""
        value, faults = self.fitted(model)
        if value is not None:
            return value
        message = faults[0].message
        if len(faults) > 1:
            message += f" (and {len(faults) - 1} more)"
        raise ConfigError(message, path=self.path, line=faults[0].line)

    def fitted(self, model: type[M]) -> tuple[M | None, list[ConfigError]]:
        """Return the data as `model`; or None and all faults, the most telling first."""
        from pydantic import ValidationError

        try:
            return model.model_validate(self.data), []
        except ValidationError as error:
            details = sorted(
                _without_echoes(error.errors(include_url=False)),
                key=lambda detail: _REPORT_ORDER.get(detail["type"], 1),
            )
            return None, [self._fault(detail, model) for detail in details]

    def _fault(self, detail: ErrorDetails, model: type[BaseModel]) -> ConfigError:
        location = self._location_in_file(detail["loc"])
        around = location[:-1]
        if detail["type"] == "model_type":  # settings are missing here, not one of them
            around = location
        message = _sentence(detail, _fields_at(model, around))
        if location:
            place = " → ".join(str(part) for part in location)
            message = f"{place}: {message}"
        return self.error(message, location)

    def _location_in_file(self, location: Location) -> Location:
        """Return a location without the names of a union's members, which Pydantic adds."""
        data = self.data
        parts = []
        for position, key in enumerate(location):
            is_last = position == len(location) - 1
            if _has_key(data, key):
                data = data[key]
                parts.append(key)
            elif is_last and isinstance(data, dict):  # a missing or an unknown setting
                parts.append(key)
        return tuple(parts)


def _without_echoes(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out lists that are too short only because their items are faulty."""
    places = [detail["loc"] for detail in details]
    kept = []
    for detail in details:
        location = detail["loc"]
        inside = [place for place in places if place[:-1] == location]
        if detail["type"] != "too_short" or not inside:
            kept.append(detail)
    return kept


def read_yaml(path: Path | str) -> YamlData:
    """Read a YAML file. Raises ConfigError when it is missing, unreadable, empty or not YAML."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        message = "this file is missing; `tierwise doctor` shows what a project needs"
        raise ConfigError(message, path=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", path=path) from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path | str, *, first_line: int = 1) -> YamlData:
    """Parse YAML text that is in `path` from `first_line` on."""
    from ruamel.yaml.error import MarkedYAMLError

    # None: empty, unusual or wrong, so that the slow parser has to look.
    fast = _load_fast(text)
    if fast is not None:
        return YamlData(path, fast, first_line=first_line, text=text)
    try:
        node = _load_with_lines(text)
        data = None if node is None else YamlData(path, node, first_line=first_line)
    except MarkedYAMLError as error:
        line = first_line
        if error.problem_mark:
            line += error.problem_mark.line
        message = f"not valid YAML: {error.problem or error.context}"
        raise ConfigError(message, path=path, line=line) from None
    # odd text also brings ValueError, AttributeError, RecursionError
    except Exception as error:  # noqa: BLE001
        raise ConfigError(f"not valid YAML: {error}", path=path) from None
    if data is None:
        raise ConfigError("the file is empty", path=path, line=first_line)
    return data


def _load_fast(text: str) -> Any:
    """Return a text's plain data; None where the slow parser has to look at it.

    Six times as fast as with lines.
    """
    from ruamel.yaml import YAML

    if _UNUSUAL.search(text):
        return None
    try:
        return YAML(typ="safe").load(text)
    except Exception:  # noqa: BLE001 - the slow parser says what is wrong, and where
        return None


def _load_with_lines(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="rt", pure=True).load(text)


def write_yaml(path: Path | str, data: Any, *, header: str) -> None:
    """Write plain data as YAML, all or nothing.

    Comments at the top of an existing file stay, in place of `header`. Raises ConfigError when the
    file cannot be written.
    """
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt", pure=True)
    yaml.width = 120
    # equal values are spelt out, not linked
    yaml.representer.ignore_aliases = lambda _: True
    path = Path(path)
    body = io.StringIO()
    yaml.dump(data, body)
    _replace(path, (_top_comments(path) or header) + body.getvalue())


def replace_value(path: Path, location: Location, value: Mapping[str, Any]) -> None:
    """Replace the value at a location with a mapping on one line; all other lines stay.

    Raises ConfigError with the line to write by hand where the file's form does not allow it.
    """
    source = read_yaml(path)
    *outer, key = location
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    number = source.line(location) - 1
    before = lines[:number]
    line = lines[number]
    rest = lines[number + 1 :]
    indent = line[: len(line) - len(line.lstrip())]
    written = f"{key}: {_one_line(value)}"
    # the old value continues as long as lines are indented further
    old = list(takewhile(lambda line: line.startswith(f"{indent} "), rest))
    text = "".join([*before, f"{indent}{written}\n", *rest[len(old) :]])

    # Replacing lines is right only where the file's form is plain. So what the new text reads as is
    # compared with what is wanted.
    wanted = deepcopy(source.data)
    parent = _at(wanted, outer)
    parent[key] = dict(value)
    starts_with_key = line.lstrip().startswith(f"{key}:")
    if not starts_with_key or parse_yaml(text, path).data != wanted:
        raise source.error(f"write this by hand, {_UNCHANGEABLE}: {written}", location)
    _replace(path, text)


def add_item(path: Path, key: str, item: str) -> None:
    """Append an item, as it is written, to the list at the end of a file; all other lines stay.

    Raises ConfigError with what to write by hand where the file's form does not allow it.
    """
    source = read_yaml(path)
    added = parse_yaml(item, path).data
    content = _mapping(source)
    items = content.get(key) or []
    indent = 0
    if items:
        indent = source.column((key, 0)) - len("- ")
    existing = path.read_text(encoding="utf-8").rstrip("\n")
    text = f"{existing}\n\n{textwrap.indent(item, ' ' * indent)}"
    if not _reads_as(text, {**content, key: [*items, *added]}):
        message = f"write this under `{key}` by hand, {_UNCHANGEABLE}:\n{item}"
        raise source.error(message, (key,))
    _replace(path, text)


def add_entry(path: Path, key: str, entry: Mapping[str, Any]) -> None:
    """Add to a mapping that is on one line, `key: {…}`; all else stays as it is.

    Raises ConfigError with what to write by hand where the file's form does not allow it.
    """
    source = read_yaml(path)
    written = _one_line(entry)[1:-1]  # without its braces
    open_mapping = re.compile(rf"^({key}: \{{.*?)\}}", re.MULTILINE)
    existing = path.read_text(encoding="utf-8")
    text = open_mapping.sub(rf"\1, {written}}}", existing, count=1)
    content = _mapping(source)
    entries = content.get(key) or {}
    if not _reads_as(text, {**content, key: {**entries, **entry}}):
        raise source.error(
            f"write this under `{key}` by hand, {_UNCHANGEABLE}: {written}"
        )
    _replace(path, text)


def _at(node: Any, location: list[int | str]) -> Any:
    for key in location:
        node = node[key]
    return node


def _has_key(data: Any, key: int | str) -> bool:
    if isinstance(data, dict):
        return key in data
    return isinstance(data, list) and isinstance(key, int)


def _mapping(source: YamlData) -> dict[str, Any]:
    if isinstance(source.data, dict):
        return source.data
    return {}


def _reads_as(text: str, wanted: Any) -> bool:
    try:
        return bool(parse_yaml(text, "").data == wanted)
    except ConfigError:
        return False


def _one_line(value: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 4096
    # ruamel declares the type of its default, None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    yaml.dump(dict(value), text)
    return text.getvalue().strip()


def _replace(path: Path, text: str) -> None:
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", path=path) from None


def _top_comments(path: Path) -> str:
    """Return the comment and blank lines at the top of a file."""
    if not path.exists():
        return ""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(
        takewhile(lambda line: line.startswith("#") or not line.strip(), lines)
    )


def _plain(node: Any) -> Any:
    """Return ruamel's annotated nodes as plain dicts, lists and scalars."""
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if isinstance(node, bool) or node is None:
        return node
    for scalar in (int, float, str):
        if isinstance(node, scalar):
            return scalar(node)
    return node


def _sentence(detail: ErrorDetails, fields: list[str]) -> str:
    """Return one Pydantic error as a sentence with the remedy; `fields` are those allowed there."""
    if detail["type"] == "extra_forbidden":
        if not fields:
            return "not a known setting"
        return unknown_name("setting", str(detail["loc"][-1]), fields)
    if detail["type"] == "model_type":
        if not fields:
            return "expects settings"
        return f"expects settings (`name: value`), such as {', '.join(fields[:3])}"
    message = detail["msg"].removeprefix("Value error, ")
    value = detail.get("input")
    if isinstance(value, str | int | float | bool):
        message += f" (found {value!r})"
    nearest = _nearest_literal(detail, value)
    if nearest:
        message += f"; did you mean '{nearest}'?"
    return message


def _nearest_literal(detail: ErrorDetails, value: Any) -> str | None:
    """Return the allowed value that is like a misspelt one, where there is a fixed choice."""
    if detail["type"] != "literal_error" or not isinstance(value, str):
        return None
    # pydantic lists the choices as text: 'a', 'b' or 'c'
    context = detail.get("ctx", {})
    allowed = _QUOTED.findall(context.get("expected", ""))
    nearest = get_close_matches(value, allowed, n=1)
    return nearest[0] if nearest else None


def _fields_at(model: Any, location: Location) -> list[str]:
    """Return the names of the settings allowed at a location, by the models' annotations."""
    from typing import get_args, get_origin

    from pydantic import BaseModel

    if isinstance(model, type) and issubclass(model, BaseModel):
        annotations = {
            info.alias or name: info.annotation
            for name, info in model.model_fields.items()
        }
        if not location:
            return list(annotations)
        return _fields_at(annotations.get(str(location[0])), location[1:])
    # a collection takes a key or an index of the location; a union or Annotated takes nothing
    inner = location
    if get_origin(model) in (dict, list, tuple, Mapping):
        inner = location[1:]
    for argument in get_args(model):
        fields = _fields_at(argument, inner)
        if fields:
            return fields
    return []
