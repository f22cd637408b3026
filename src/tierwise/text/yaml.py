"""The only door to YAML: a file becomes a validated model and back, and every error names file and line."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping
from copy import deepcopy
from difflib import get_close_matches
from functools import cached_property, reduce
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

# a misspelt setting explains a missing one, so it is told first; that a word is no object says least
_WORTH = {"extra_forbidden": 0, "model_type": 2}
_ODD = re.compile(
    r"^%|(?:^|[\s\[{,])[!&*]|<<|\t", re.MULTILINE
)  # directives, tags, anchors, tabs: read with care
_QUOTED = re.compile(r"'([^']*)'")


class YamlData:
    """Plain data from YAML together with the line of every key and item."""

    def __init__(
        self, path: Path | str, node: Any, *, first_line: int = 1, text: str | None = None
    ) -> None:
        """With `text`, the node has no lines: the text is read once more when the first one is asked for."""
        self.path = path
        self.first_line = first_line
        self._given = node
        self._text = text
        self.data = _plain(node)

    @cached_property
    def _node(self) -> Any:
        from ruamel.yaml.error import YAMLError

        try:
            return self._given if self._text is None else _with_lines(self._text)
        except YAMLError:  # the quick way takes a little more
            return self._given

    def line(self, location: Location) -> int:
        """The line of the deepest part of a location that the file has."""
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
        """The column, from 0, at which what stands at a location of the file begins."""
        *outer, last = location
        return int(reduce(lambda node, key: node[key], outer, self._node).lc.data[last][1])

    def error(self, message: str, location: Location = ()) -> ConfigError:
        """A ConfigError at this place of the file."""
        return ConfigError(message, path=self.path, line=self.line(location))

    def validate(self, model: type[M]) -> M:
        """The data as `model`. Raises ConfigError for the first thing that does not fit."""
        value, faults = self.fitted(model)
        if value is None:
            more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
            raise ConfigError(faults[0].message + more, path=self.path, line=faults[0].line)
        return value

    def fitted(self, model: type[M]) -> tuple[M | None, list[ConfigError]]:
        """The data as `model`; or None and all that does not fit, what explains most first."""
        from pydantic import ValidationError

        try:
            return model.model_validate(self.data), []
        except ValidationError as error:
            found = sorted(error.errors(include_url=False), key=lambda e: _WORTH.get(e["type"], 1))
            return None, [self._fault(e, model) for e in found]

    def _fault(self, found: ErrorDetails, model: type[BaseModel]) -> ConfigError:
        location = self._written(found["loc"])
        place = " → ".join(str(part) for part in location)
        at = location if found["type"] == "model_type" else location[:-1]
        return self.error(
            f"{place + ': ' if place else ''}{_sentence(found, _fields_at(model, at))}", location
        )

    def _written(self, location: Location) -> Location:
        """A location without what Pydantic adds to it: the names of a union's members."""
        data = self.data
        written = []
        for position, key in enumerate(location):
            inside = (
                key in data
                if isinstance(data, dict)
                else isinstance(data, list) and isinstance(key, int)
            )
            if inside:
                data = data[key]
            if inside or (position == len(location) - 1 and isinstance(data, dict)):
                written.append(key)
        return tuple(written)


def read_yaml(path: Path | str) -> YamlData:
    """Read a YAML file. Raises ConfigError when it is missing, unreadable, empty or not YAML."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            "this file is missing; `tierwise doctor` shows what a project needs", path=path
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", path=path) from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path | str, *, first_line: int = 1) -> YamlData:
    """Parse YAML text that stands in `path` from `first_line` on."""
    from ruamel.yaml.error import MarkedYAMLError

    if (quick := _quickly(text)) is not None:
        return YamlData(path, quick, first_line=first_line, text=text)
    try:
        node = _with_lines(text)
        data = None if node is None else YamlData(path, node, first_line=first_line)
    except MarkedYAMLError as error:
        line = (error.problem_mark.line if error.problem_mark else 0) + first_line
        raise ConfigError(
            f"not valid YAML: {error.problem or error.context}", path=path, line=line
        ) from None
    except Exception as error:  # noqa: BLE001 - odd text also brings ValueError, AttributeError, RecursionError
        raise ConfigError(f"not valid YAML: {error}", path=path) from None
    if data is None:
        raise ConfigError("the file is empty", path=path, line=first_line)
    return data


def _quickly(text: str) -> Any:
    """The plain data of a text, six times as fast as with lines; None where the careful way has to look at it."""
    from ruamel.yaml import YAML

    if _ODD.search(text):
        return None
    try:
        return YAML(typ="safe").load(text)
    except Exception:  # noqa: BLE001 - the careful way says what is wrong, and where
        return None


def _with_lines(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="rt", pure=True).load(text)


def write_yaml(path: Path | str, data: Any, *, header: str) -> None:
    """Write plain data as YAML, all or nothing. Comments at the top of an older file stay in place of `header`.

    Raises ConfigError when the file cannot be written.
    """
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt", pure=True)
    yaml.width = 120
    yaml.representer.ignore_aliases = lambda _: True  # equal values are spelt out, not linked
    path = Path(path)
    text = io.StringIO()
    yaml.dump(data, text)
    _replace(path, (_top_comments(path) or header) + text.getvalue())


def replace_value(path: Path, location: Location, value: Mapping[str, Any]) -> None:
    """Put a mapping, on one line, in the place of what a key of a file holds; all other lines stay as they are.

    Raises ConfigError with the line to write by hand where the file's form does not allow it.
    """
    source = read_yaml(path)
    key = location[-1]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    at = source.line(location) - 1
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    written = f"{key}: {_one_line(value)}"
    more = len(list(takewhile(lambda line: line.startswith(f"{indent} "), lines[at + 1 :])))
    text = "".join([*lines[:at], f"{indent}{written}\n", *lines[at + 1 + more :]])
    wanted = deepcopy(source.data)
    reduce(lambda node, part: node[part], location[:-1], wanted)[key] = dict(value)
    if not lines[at].lstrip().startswith(f"{key}:") or parse_yaml(text, path).data != wanted:
        raise source.error(
            f"write this by hand, the file's form is not one that we change: {written}", location
        )
    _replace(path, text)


def add_item(path: Path, key: str, item: str) -> None:
    """Put an item, as it is written, at the end of the list that a file ends with; all other lines stay as they are.

    Raises ConfigError with what to write by hand where the file's form does not allow it.
    """
    source = read_yaml(path)
    added = parse_yaml(item, path).data
    held: dict[str, Any] = source.data if isinstance(source.data, dict) else {}
    listed = held.get(key) or []
    indent = source.column((key, 0)) - 2 if listed else 0  # after the dash and its blank
    text = (
        path.read_text(encoding="utf-8").rstrip("\n") + "\n\n" + textwrap.indent(item, " " * indent)
    )
    if not _reads_as(text, {**held, key: [*listed, *added]}):
        raise source.error(
            f"write this under `{key}` by hand, the file's form is not one that we change:\n{item}",
            (key,),
        )
    _replace(path, text)


def add_entry(path: Path, key: str, entry: Mapping[str, Any]) -> None:
    """Add to a mapping that stands on one line, `key: {…}`; all else stays as it is.

    Raises ConfigError with what to write by hand where the file's form does not allow it.
    """
    source = read_yaml(path)
    written = _one_line(entry)[1:-1]
    before_it = re.compile(rf"^({key}: \{{.*?)\}}", re.MULTILINE)
    text = before_it.sub(rf"\1, {written}}}", path.read_text(encoding="utf-8"), count=1)
    held: dict[str, Any] = source.data if isinstance(source.data, dict) else {}
    if not _reads_as(text, {**held, key: {**(held.get(key) or {}), **entry}}):
        raise source.error(
            f"write this under `{key}` by hand, the file's form is not one that we change: {written}"
        )
    _replace(path, text)


def _reads_as(text: str, wanted: Any) -> bool:
    try:
        return bool(parse_yaml(text, "").data == wanted)
    except ConfigError:
        return False


def _one_line(value: Mapping[str, Any]) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    text = io.StringIO()
    yaml.default_flow_style = True
    yaml.width = 4096
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment] # what it is declared as is its default
    yaml.dump(dict(value), text)
    return text.getvalue().strip()


def _replace(path: Path, text: str) -> None:
    """Write a file at once or not at all. Raises ConfigError."""
    try:
        write_atomically(path, text)
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", path=path) from None


def _top_comments(path: Path) -> str:
    """The comment lines that a file begins with."""
    if not path.exists():
        return ""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(takewhile(lambda line: line.startswith("#") or not line.strip(), lines))


def _plain(node: Any) -> Any:
    """The annotated nodes as plain dicts, lists and scalars."""
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


def _sentence(error: ErrorDetails, known: list[str]) -> str:
    """One Pydantic error as a sentence with the remedy."""
    if error["type"] == "extra_forbidden":
        return (
            unknown_name("setting", str(error["loc"][-1]), known)
            if known
            else "not a known setting"
        )
    if error["type"] == "model_type":
        return (
            f"expects settings (`name: value`), such as {', '.join(known[:3])}"
            if known
            else "expects settings"
        )
    value = error.get("input")
    shown = f" (found {value!r})" if isinstance(value, str | int | float | bool) else ""
    allowed = (
        _QUOTED.findall(error.get("ctx", {}).get("expected", ""))
        if error["type"] == "literal_error"
        else []
    )
    near = get_close_matches(value, allowed, n=1) if isinstance(value, str) else []
    return (
        error["msg"].removeprefix("Value error, ")
        + shown
        + (f"; did you mean '{near[0]}'?" if near else "")
    )


def _fields_at(model: Any, location: Location) -> list[str]:
    """Names of the settings allowed at a location, as far as the annotations tell."""
    from collections.abc import Mapping
    from typing import get_args, get_origin

    from pydantic import BaseModel

    if isinstance(model, type) and issubclass(model, BaseModel):
        if not location:
            return [info.alias or name for name, info in model.model_fields.items()]
        named = {info.alias or name: info.annotation for name, info in model.model_fields.items()}
        return _fields_at(named.get(str(location[0])), location[1:])
    inner = location[1:] if get_origin(model) in (dict, list, tuple, Mapping) else location
    return next(
        (known for argument in get_args(model) if (known := _fields_at(argument, inner))), []
    )
