"""The hash of a project's code that decides what is right: checks, measures, output models.

A certificate is proof for the code that it was measured with. Names alone would not notice a check
that now lets everything pass, so `code_hash` covers the source of functions and classes and all of
the project that they refer to. Comments, docstrings and layout do not count.

- The project's functions and classes: their source, defaults, closures, and the globals they use.
- The project's modules: their whole source, and the project's modules that they import.
- Plain values: the value. A file named by a `Path`: its content.
- Code of Python and of installed packages: its name. tierwise's own checks and measures: their
  name and version
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import hashlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from tierwise.records import canonical_hash

# Raise the version of a built-in check or measure when it judges any answer differently: the
# certificates that were measured with the earlier one are void then, and no others. Those that
# are not named here have the first version.
BUILT_IN_VERSION = 1
RAISED_VERSIONS = {
    "tierwise.steps.checks.fields_are_quoted": 2,
    "tierwise.steps.checks.numbers_are_in_the_document": 2,
    "tierwise.steps.correctness.is_equivalent": 2,
    "tierwise.steps.correctness.mentions": 2,
    "tierwise.steps.correctness.same_fields": 2,
}

_PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    Decimal,
    Fraction,
    UUID,
    date,
    time,
    timedelta,
    range,
    slice,
    type(...),
)
_DESCRIBED = (
    *_PLAIN,
    enum.Enum,
    re.Pattern,
    Path,
    Mapping,
    AbstractSet,
    Sequence,
    ModuleType,
    type,
    FunctionType,
    MethodType,
    functools.partial,
)
# Containers that are made empty are filled while the program runs: caches, not data.
_EMPTY_MAKERS = {"dict", "list", "set", "defaultdict", "OrderedDict", "Counter"}
_WITH_DOCSTRING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
_MOST_BYTES = 50_000_000  # of a file that code refers to


def code_hash(*values: object) -> str:
    """Return the SHA-256 (hex) of functions, classes or values with the code they depend on."""
    reader = _Reader()
    for value in values:
        reader.read(value)
    return canonical_hash(reader.parts)


def built_in_version(name: str) -> int:
    """Return the version of a built-in check or measure, or of the function that one returned."""
    return RAISED_VERSIONS.get(name.partition(".<locals>")[0], BUILT_IN_VERSION)


def _installed_folders() -> tuple[Path, ...]:
    """Return the folders of Python's own modules and of installed packages."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    folders = {Path(sysconfig.get_path(name)).resolve() for name in names}
    return tuple(folders)


_INSTALLED = _installed_folders()


class _Reader:
    """Collects the parts that a hash covers, each object once."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        # by id, with the object itself, so that the id stays its own
        self._seen: dict[int, object] = {}
        self._open: set[int] = set()  # containers that are being read
        self._modules: set[str] = set()
        self._globals: set[tuple[str, str]] = set()  # module and name
        # by module: the statement that binds each global name
        self._statements: dict[str, Mapping[str, ast.stmt]] = {}

    def read(self, value: object) -> None:
        """Add a value and everything that it depends on."""
        # before the plain types: a member of a StrEnum is a text as well
        if isinstance(value, enum.Enum):
            self._add("enum", f"{_name(type(value))}.{value.name}")
            self.read(value.value)
        elif isinstance(value, _PLAIN):
            self._add(type(value).__name__, repr(value))
        elif isinstance(value, re.Pattern):
            self._add("pattern", repr((value.pattern, value.flags)))
        elif isinstance(value, Path):
            self._read_file(value)
        elif isinstance(value, Mapping | AbstractSet | Sequence):
            self._read_container(value)
        elif id(value) in self._seen:
            self._add("again", getattr(value, "__qualname__", _name(type(value))))
        else:
            self._seen[id(value)] = value
            self._read_code_or_object(value)

    def _read_container(
        self, value: Mapping[Any, Any] | AbstractSet[Any] | Sequence[Any]
    ) -> None:
        if id(value) in self._open:
            self._add("cycle", type(value).__name__)
            return
        self._open.add(id(value))
        if isinstance(value, Mapping):
            self._read_mapping(value)
        elif isinstance(value, AbstractSet):
            members = sorted(code_hash(member) for member in value)
            self._add("set", canonical_hash(members))
        else:
            self._add("sequence", str(len(value)))
            for item in value:
                self.read(item)
        self._open.discard(id(value))

    def _read_code_or_object(self, value: object) -> None:
        if isinstance(value, ModuleType):
            self._read_module(value.__name__)
        elif isinstance(value, type):
            self._read_class(value)
        elif isinstance(value, FunctionType):
            self._read_function(value)
        elif isinstance(value, MethodType):
            self.read(value.__func__)
            self.read(value.__self__)
        elif isinstance(value, functools.partial):
            self._add("partial", "")
            self.read(value.func)
            self.read(value.args)
            self.read(value.keywords)
        elif inspect.unwrap(value) is not value:  # type: ignore[arg-type]
            self.read(inspect.unwrap(value))  # type: ignore[arg-type]
        elif isinstance(value, staticmethod | classmethod):
            self.read(value.__func__)
        elif isinstance(value, property):
            self.read([value.fget, value.fset])
        else:
            self._read_object(value)

    def _read_object(self, value: object) -> None:
        """Add an object's class, and its fields where they are its definition, not its state."""
        self._add("object", _name(type(value)))
        self.read(type(value))
        fields = _definition(value)
        if fields is not None:
            self._read_mapping(fields)

    def _read_mapping(self, values: Mapping[Any, Any]) -> None:
        self._add("mapping", str(len(values)))
        # by the keys' hashes, as keys of several types have no order of their own
        for key in sorted(values, key=code_hash):
            self.read(key)
            self.read(values[key])

    def _read_file(self, path: Path) -> None:
        """Add a file's name and content: data that a check reads is part of the check."""
        self._add("path", path.name)
        if path.is_file() and path.stat().st_size <= _MOST_BYTES:
            content = path.read_bytes()
            self._add("file", hashlib.sha256(content).hexdigest())

    def _read_function(self, function: FunctionType) -> None:
        wrapped = inspect.unwrap(function)
        if wrapped is not function:
            self.read(wrapped)
        if not _is_of_project(function.__module__):
            self._add_name_of_foreign_code(function.__module__, function.__qualname__)
        else:
            tree = _source_tree(function)
            if tree is None:
                self._read_bytecode(function.__code__)
                names: Iterator[str] = iter(_code_names(function.__code__))
            else:
                self._add("source", _normalised(tree))
                names = _names_in(tree, function.__module__)
                if function.__name__ == "<lambda>":
                    # its lines may hold other code, which names more
                    names = iter(_code_names(function.__code__))
            self._read_globals(function.__globals__, names)
        self.read(function.__defaults__)
        self.read(function.__kwdefaults__)
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # a function that refers to itself before it is defined
                continue
            self.read(content)

    def _read_class(self, cls: type) -> None:
        if not _is_of_project(cls.__module__):
            self._add_name_of_foreign_code(cls.__module__, cls.__qualname__)
            return
        for base in cls.__bases__:
            self.read(base)
        tree = _source_tree(cls)
        module = sys.modules.get(cls.__module__)
        if tree is not None:
            self._add("source", _normalised(tree))
            self._read_globals(
                vars(module) if module else {}, _names_in(tree, cls.__module__)
            )
        elif issubclass(cls, BaseModel):
            self._add("model", canonical_hash(cls.model_json_schema()))
        else:
            self._add("class", cls.__qualname__)

    def _read_module(self, name: str) -> None:
        """Add a module's whole source, and the modules of the project that it imports.

        It need not be imported yet: importing it here might do things.
        """
        if name in self._modules:
            return
        self._modules.add(name)
        tree = _module_tree(name) if _is_of_project(name) else None
        if tree is None:
            self._add("module", name)
            for function, version in sorted(RAISED_VERSIONS.items()):
                if function.startswith(f"{name}."):
                    self._add("version", f"{function} {version}")
            return
        self._add("source", _normalised(tree))
        for imported in sorted(set(_imported_modules(tree, name))):
            self._read_module(imported)

    def _read_globals(self, values: Mapping[str, Any], names: Iterator[str]) -> None:
        """Add the module's globals that code refers to, in the order of their names."""
        module_name = str(values.get("__name__", ""))
        for name in sorted(set(names)):
            if name.startswith("import:"):
                self._read_module(name.removeprefix("import:"))
                continue
            if name not in values or (module_name, name) in self._globals:
                continue
            self._globals.add((module_name, name))
            value = values[name]
            statement = self._statement_of(module_name, name)
            if statement is not None and _makes_empty_container(statement):
                self._add("cache", name)
                continue
            self._add("global", name)
            if statement is not None and _is_stateful(value):
                # Its state changes while the program runs; the statement that makes it does not.
                self._add("statement", _normalised(statement))
                self._read_globals(values, _names_in(statement, module_name))
                continue
            self.read(value)

    def _statement_of(self, module_name: str, name: str) -> ast.stmt | None:
        """Return the statement that binds a global name in a module of the project."""
        if not _is_of_project(module_name):
            return None
        if module_name not in self._statements:
            self._statements[module_name] = _binding_statements(module_name)
        return self._statements[module_name].get(name)

    def _read_bytecode(self, code: CodeType) -> None:
        """Add a function without a source, such as one made by `exec`."""
        self._add("bytecode", code.co_code.hex())
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                self._read_bytecode(constant)
            else:
                self.read(constant)

    def _add_name_of_foreign_code(self, module: str, name: str) -> None:
        qualified = f"{module}.{name}"
        self._add("code", qualified)
        # tierwise's own source is not hashed: a version stands for it, raised where verdicts change
        package = module.partition(".")[0]
        if package == "tierwise":
            version = built_in_version(qualified)
            self._add("version", str(version))

    def _add(self, kind: str, text: str) -> None:
        self.parts.append(f"{kind}:{text}")


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _definition(value: object) -> Mapping[str, Any] | None:
    """Return the fields of an object that is a value; None for one with a changing state."""
    if isinstance(value, BaseModel):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: getattr(value, field.name)
            for field in dataclasses.fields(value)
        }
    is_callable_of_project = callable(value) and _is_of_project(type(value).__module__)
    if is_callable_of_project and hasattr(value, "__dict__"):
        return dict(vars(value))
    return None


def _is_stateful(value: object) -> bool:
    """Return True for an object whose fields are not its definition, such as a connection."""
    is_described = isinstance(value, _DESCRIBED)
    if is_described or hasattr(value, "__wrapped__"):
        return False
    return _definition(value) is None


def _is_of_project(module_name: str) -> bool:
    """Return True for a module that is neither tierwise's, Python's nor an installed package's."""
    package = module_name.partition(".")[0]
    if package in ("tierwise", "builtins") or package in sys.stdlib_module_names:
        # a script's own functions are in `__main__`, which no list of Python's names has
        return False
    file = _module_file(module_name)
    if file is None:
        return package == "__main__"
    if "site-packages" in file.parts or "dist-packages" in file.parts:
        return False
    return not any(file.is_relative_to(folder) for folder in _INSTALLED)


def _spec_origin(module_name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec.origin if spec else None


def _module_file(module_name: str) -> Path | None:
    """Return the path of a module's source; None where there is none."""
    module = sys.modules.get(module_name)
    origin = getattr(module, "__file__", None) or _spec_origin(module_name)
    if origin is None or not origin.endswith(".py"):
        return None
    return Path(origin).resolve()


def _module_tree(module_name: str) -> ast.Module | None:
    file = _module_file(module_name)
    if file is None:
        return None
    try:
        return ast.parse(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, SyntaxError):
        return None


def _source_tree(value: type | FunctionType) -> ast.Module | None:
    """Return the syntax tree of a function or class; None where its source is not to be had."""
    try:
        source = textwrap.dedent(inspect.getsource(value))
    except (OSError, TypeError):
        return None
    try:
        return ast.parse(source)
    except SyntaxError:
        # A lambda inside a longer expression: take the text of its lines as it is.
        text = ast.Assign([ast.Name("lambda")], ast.Constant(source.strip()), lineno=1)
        return ast.Module(body=[text], type_ignores=[])


def _normalised(tree: ast.AST) -> str:
    """Return code as text without comments, docstrings and layout."""
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node) is not None:
            # a body may not be empty, as that of a function with a docstring alone would be
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _names_in(tree: ast.AST, module: str) -> Iterator[str]:
    """Yield the names that code refers to; a module imported inside it as `import:name`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for name in _imported_modules(node, module):
                yield f"import:{name}"


def _code_names(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _code_names(constant)
    return names


def _imported_modules(tree: ast.AST, importer: str) -> Iterator[str]:
    """Yield the modules that code imports, also those that `from package import module` names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            if node.level:
                parents = importer.split(".")[: -node.level]
                package = ".".join([*parents, *([node.module] if node.module else [])])
            if not package:
                continue
            yield package
            for alias in node.names:
                name = f"{package}.{alias.name}"
                if _module_file(name) is not None:
                    yield name


def _binding_statements(module_name: str) -> Mapping[str, ast.stmt]:
    """Return the statements of a module that bind its global names, by name."""
    tree = _module_tree(module_name)
    statements: dict[str, ast.stmt] = {}
    for statement in tree.body if tree else ():
        targets: list[ast.expr] = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            if isinstance(target, ast.Name):
                statements[target.id] = statement
    return statements


def _makes_empty_container(statement: ast.stmt) -> bool:
    """Return True for `NAME = {}` and its like: it is filled while the program runs."""
    value = getattr(statement, "value", None)
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.List):
        return not value.elts
    if isinstance(value, ast.Call):
        maker = value.func
        name = maker.attr if isinstance(maker, ast.Attribute) else None
        if isinstance(maker, ast.Name):
            name = maker.id
        return name in _EMPTY_MAKERS and not value.keywords and len(value.args) <= 1
    return False
