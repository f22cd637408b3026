"""What flows ask of steps: the parameters of their calls, held against those that golden sets are measured with.

A certificate holds for one set of parameters. Flows are read, not run: what their text says in constants, names of
their module and defaults of their own parameters is known, and all else counts as fitting.
"""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from tierwise.errors import UnknownName
from tierwise.evidence.golden import GoldenSettings
from tierwise.lint.findings import Finding
from tierwise.records import canonical_hash
from tierwise.steps.step import Step

_OF_THE_TASK = {"only", "wait_for", "return_state", "deferred"}  # what no prompt sees
_PLAIN = {list, tuple, set, dict, sorted, str, int, float}  # what a call in a parameter may make


@dataclass(frozen=True)
class Asked:
    """A call of a step in a flow, and what golden/STEP.yaml says otherwise; nothing where they agree."""

    step: str
    path: Path
    line: int
    differences: tuple[str, ...]


class _Unknown(Exception):
    """What stands there is known in a run alone; the class itself stands for such a value."""


@dataclass(frozen=True)
class _Call:
    """A step, its output as the call wants it, with the parameters that it is given; `whole` where these are all."""

    step: Step
    returns: type[BaseModel] | None  # None where a run alone can tell
    line: int
    known: Mapping[str, Any]
    whole: bool


def drift_findings(asked: Sequence[Asked], certified: Collection[str]) -> Iterator[Finding]:
    """Calls that no certificate can count for.

    Where another call is what the golden set measures, that is told only of steps that are certified.
    """
    met = {call.step for call in asked if not call.differences}
    for call in asked:
        if call.differences and (call.step not in met or call.step in certified):
            message = (
                f"{call.step} gets {', '.join(call.differences)} here, unlike in golden/{call.step}.yaml, so no "
                "certificate of it counts for this call; give both the same, or make this a step of its own in tasks/"
            )
            yield Finding("warning", "drift", call.path, call.line, message)


def differences(call: _Call, measured: Step, settings: GoldenSettings) -> tuple[str, ...]:
    """What a call has otherwise than the golden set's settings, which measure the step `measured`."""
    own = call.known
    other = settings.parameters
    found = [] if _same_output(call, measured) else ["another output model"]
    for name in dict.fromkeys((*own, *other)):
        if name not in other:
            found.append(f"{name} as well")
        elif name not in own:
            found += [f"no {name}"] if call.whole else []
        elif own[name] is not _Unknown and canonical_hash(own[name]) != canonical_hash(other[name]):
            small = all(isinstance(value, str | int | float) for value in (own[name], other[name]))
            found.append(
                f"{name} {own[name]!r} in place of {other[name]!r}" if small else f"other {name}"
            )
    return tuple(found)


def _same_output(call: _Call, measured: Step) -> bool:
    if call.returns in (None, measured.returns):
        return True
    try:
        return replace(measured, returns=call.returns).base_schema == measured.base_schema
    except UnknownName:  # it lacks a field that the step needs
        return False


def calls_of(module: ModuleType, path: Path) -> Iterator[_Call]:
    """The calls of steps in a flow's module, in order of their lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    for function in functions:
        scope = _scope(function, vars(module))
        for node in sorted(
            (n for n in ast.walk(function) if isinstance(n, ast.Call)), key=lambda n: n.lineno
        ):
            if step := _step(node, scope):
                yield _call(node, step, scope)


def _scope(
    function: ast.FunctionDef | ast.AsyncFunctionDef, names: Mapping[str, Any]
) -> dict[str, Any]:
    """What names mean in a function: those of its module, and its own parameters by their defaults."""
    own = {
        node.id
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    pairs = [*zip(positional[len(positional) - len(given.defaults) :], given.defaults, strict=True)]
    pairs += [
        (arg, default)
        for arg, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
        if default
    ]
    defaults = {arg.arg: _tried(default, names) for arg, default in pairs}
    arguments = dict.fromkeys((arg.arg for arg in (*positional, *given.kwonlyargs)), _Unknown)
    return {**names, **arguments, **defaults, **dict.fromkeys(own, _Unknown)}


def _step(node: ast.Call, scope: Mapping[str, Any]) -> Step | None:
    """The step that a call is of: `STEP(…)`, `STEP.map(…)` or `STEP.submit(…)`."""
    target = node.func
    if isinstance(target, ast.Attribute) and target.attr in ("map", "submit"):
        target = target.value
    found = getattr(_tried(target, scope), "spec", None)
    return found if isinstance(found, Step) else None


def _call(node: ast.Call, step: Step, scope: Mapping[str, Any]) -> _Call:
    mapped = isinstance(node.func, ast.Attribute) and node.func.attr == "map"
    whole = all(word.arg for word in node.keywords)
    known = {
        word.arg: _spread(word.value, scope) if mapped else _tried(word.value, scope)
        for word in node.keywords
        if word.arg and word.arg not in _OF_THE_TASK
    }
    returns = known.pop("returns", step.returns if whole else _Unknown)
    fits = isinstance(returns, type) and issubclass(returns, BaseModel)
    return _Call(step, returns if fits else None, node.lineno, known, whole)


def _spread(node: ast.expr, scope: Mapping[str, Any]) -> Any:
    """What each call of a `.map` gets: a list that is not `unmapped` is dealt out, so nobody knows."""
    value = _tried(node, scope)
    kept = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("unmapped")
    return value if kept or not isinstance(value, list | tuple | set | dict) else _Unknown


def _tried(node: ast.expr, scope: Mapping[str, Any]) -> Any:
    """What an expression is, or _Unknown."""
    try:
        return _value(node, scope)
    except Exception:  # noqa: BLE001 - the project's own values, which may do anything when they are looked at
        return _Unknown


def _value(node: ast.expr, scope: Mapping[str, Any]) -> Any:
    """What an expression is, as far as it can be told without running the flow. Raises _Unknown and what values do."""

    def of(part: ast.expr) -> Any:
        found = _value(part, scope)
        if found is _Unknown:
            raise _Unknown
        return found

    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return scope[node.id] if node.id in scope else getattr(builtins, node.id)
        case ast.Attribute() if isinstance(owner := of(node.value), ModuleType | type):
            return getattr(owner, node.attr)
        case ast.List() | ast.Tuple() | ast.Set():
            return [of(item) for item in node.elts]
        case ast.Dict(keys=keys) if None not in keys:
            return {of(key): of(value) for key, value in zip(keys, node.values, strict=True) if key}
        case ast.Subscript():
            return of(node.value)[of(node.slice)]
        case ast.Call(keywords=[]):
            return _made(of(node.func), [of(argument) for argument in node.args])
    raise _Unknown


def _made(function: Any, arguments: list[Any]) -> Any:
    """What a harmless call gives: `unmapped(…)`, plain types, and class methods without arguments."""
    if getattr(function, "__name__", "") == "unmapped":
        return arguments[0]
    if function in _PLAIN or (
        inspect.ismethod(function) and isinstance(function.__self__, type) and not arguments
    ):
        return function(*arguments)
    raise _Unknown
