"""The parameters of step calls in flows, compared with those that golden sets are measured with.

A certificate is valid for one set of parameters. Flows are parsed, not run: constants, names of the
module and defaults of the flow's own parameters have a value; everything else counts as fitting.
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
from tierwise.lint.findings import Finding
from tierwise.records import canonical_hash
from tierwise.steps.golden_settings import GoldenSettings
from tierwise.steps.step import Step

# parameters of the Prefect task that no prompt sees
TASK_PARAMETERS = {"only", "wait_for", "return_state", "deferred"}
# types that may be called while an expression is evaluated: they have no side effects
_HARMLESS_TYPES = {list, tuple, set, dict, sorted, str, int, float}

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class CallDrift:
    """A call of a step in a flow, with its differences from golden/STEP.yaml."""

    step: str
    path: Path
    line: int
    differences: tuple[str, ...]


class Unknown(Exception):
    """Raised for a value known only at run time; the class itself represents such a value."""


@dataclass(frozen=True)
class SpreadArgument:
    """A list that the `.map` of a plain Prefect task spreads over batches, as the text has it."""

    task: str
    line: int
    text: str


@dataclass(frozen=True)
class StepCall:
    """One call of a step as a flow's text has it."""

    step: Step
    # the output model of this call; None where only a run can tell
    returns: type[BaseModel] | None
    line: int
    parameters: Mapping[str, Any]
    complete: bool  # no `**parameters`, so these are all


def drift_findings(
    calls: Sequence[CallDrift], certified: Collection[str]
) -> Iterator[Finding]:
    """Yield the calls that no certificate counts for.

    Where another call of the same step agrees with the golden set, the step has to be certified for
    a difference to matter.
    """
    agreeing = {call.step for call in calls if not call.differences}
    for call in calls:
        matters = call.step not in agreeing or call.step in certified
        if call.differences and matters:
            message = (
                f"{call.step} gets {', '.join(call.differences)} here, unlike in "
                f"golden/{call.step}.yaml, so no certificate of it counts for this call; "
                "give both the same, or make this a step of its own in tasks/"
            )
            yield Finding("warning", "drift", call.path, call.line, message)


def call_differences(
    call: StepCall, measured: Step, settings: GoldenSettings
) -> tuple[str, ...]:
    """Describe where a call departs from the golden set's settings, which measure `measured`."""
    differences: list[str] = []
    if not _same_output(call, measured):
        differences.append("another output model")
    for name in dict.fromkeys((*call.parameters, *settings.parameters)):
        difference = _parameter_difference(call, settings.parameters, name)
        if difference:
            differences.append(difference)
    return tuple(differences)


def _parameter_difference(
    call: StepCall, measured: Mapping[str, Any], name: str
) -> str | None:
    """Describe how one parameter differs, or return None."""
    if name not in measured:
        return f"{name} as well"
    if name not in call.parameters:
        # `**parameters` may still bring it
        return f"no {name}" if call.complete else None
    given = call.parameters[name]
    wanted = measured[name]
    if given is Unknown or canonical_hash(given) == canonical_hash(wanted):
        return None
    scalar = isinstance(given, str | int | float) and isinstance(
        wanted, str | int | float
    )
    if scalar:
        return f"{name} {given!r} in place of {wanted!r}"
    return f"other {name}"


def _same_output(call: StepCall, measured: Step) -> bool:
    if call.returns is None or call.returns == measured.returns:
        return True
    try:
        with_call_output = replace(measured, returns=call.returns)
    except UnknownName:  # it lacks a field that the step needs
        return False
    return with_call_output.base_schema == measured.base_schema


def step_calls(module: ModuleType, path: Path) -> Iterator[StepCall]:
    """Yield the calls of steps in a flow's module, function by function, by line."""
    tree = ast.parse(path.read_text(encoding="utf-8-sig"))
    for function in tree.body:
        if not isinstance(function, _Function):
            continue
        names = _known_names(function, vars(module))
        calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
        for node in sorted(calls, key=lambda call: call.lineno):
            step = _called_step(node, names)
            if step is not None:
                yield _parse_call(node, step, names)


def spread_arguments(module: ModuleType, path: Path) -> Iterator[SpreadArgument]:
    """Yield the lists that the project's own tasks get without `unmapped` beside batches.

    Prefect maps every list: a task run gets one item of it, and lengths that differ are an error.
    """
    tree = ast.parse(path.read_text(encoding="utf-8-sig"))
    for function in tree.body:
        if not isinstance(function, _Function):
            continue
        names = _known_names(function, vars(module))
        mapped = _names_of_mapped(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and _is_map_of_plain_task(node, names):
                yield from _spread_in(node, names, mapped)


def _spread_in(
    node: ast.Call, names: Mapping[str, Any], mapped: Collection[str]
) -> Iterator[SpreadArgument]:
    """Yield the lists among the arguments of a `.map` that has batches among them, too."""
    named = [word.value for word in node.keywords if word.arg not in TASK_PARAMETERS]
    arguments = [*node.args, *named]
    # without batches, a list is mapped on purpose
    if not any(_is_mapped(argument, mapped) for argument in arguments):
        return
    task = ast.unparse(node.func).removesuffix(".map")
    for argument in arguments:
        is_wrapped = isinstance(argument, ast.Call) and _name_of(argument) == "unmapped"
        if is_wrapped:
            continue
        value = _evaluate(argument, names)
        if isinstance(value, list | tuple | set | dict):
            yield SpreadArgument(task, node.lineno, ast.unparse(argument))


def _names_of_mapped(function: _Function) -> set[str]:
    """Return the names in a function that batches, or the futures of batches, are assigned to."""
    mapped: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and _is_mapped(node.value, mapped):
            targets = [each for each in node.targets if isinstance(each, ast.Name)]
            mapped.update(target.id for target in targets)
    return mapped


def _is_mapped(node: ast.expr, mapped: Collection[str]) -> bool:
    """Return True for batches: those that are read, and what `.map` returns."""
    if isinstance(node, ast.Name):
        return node.id in mapped
    if not isinstance(node, ast.Call):
        return False
    return _name_of(node) in {"map", "read_documents", "documents_from"}


def _name_of(node: ast.Call) -> str:
    """Return the last name of what is called: `map` for `STEP.map(…)`."""
    return ast.unparse(node.func).rpartition(".")[2]


def _is_map_of_plain_task(node: ast.Call, names: Mapping[str, Any]) -> bool:
    """Return True for `TASK.map(…)` of a Prefect task that is not one of tierwise's own."""
    if not isinstance(node.func, ast.Attribute) or node.func.attr != "map":
        return False
    target = _evaluate(node.func.value, names)
    modules = {each.__module__ for each in type(target).__mro__}
    packages = {module.partition(".")[0] for module in modules}
    # only the room that runs flows imports Prefect, so its class is known by its name
    is_task = "prefect.tasks" in modules
    return is_task and "tierwise" not in packages


def _known_names(
    function: _Function, module_names: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the value of each name in a function: the module's, then the parameters' defaults."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]

    # defaults belong to the last positional parameters
    with_default = positional[len(positional) - len(arguments.defaults) :]
    defaults: dict[str, Any] = {}
    for argument, default in zip(with_default, arguments.defaults, strict=True):
        defaults[argument.arg] = _evaluate(default, module_names)
    for argument, keyword_default in zip(
        arguments.kwonlyargs, arguments.kw_defaults, strict=True
    ):
        # None: a keyword-only parameter without a default
        if keyword_default is not None:
            defaults[argument.arg] = _evaluate(keyword_default, module_names)

    names = dict(module_names)
    for argument in (*positional, *arguments.kwonlyargs):
        names[argument.arg] = defaults.get(argument.arg, Unknown)
    # an assigned name has another value at each place, so none is taken for it
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names[node.id] = Unknown
    return names


def _called_step(node: ast.Call, names: Mapping[str, Any]) -> Step | None:
    """Return the step of `STEP(…)`, `STEP.map(…)` or `STEP.submit(…)`, or None."""
    target = node.func
    if isinstance(target, ast.Attribute) and target.attr in ("map", "submit"):
        target = target.value
    called = _evaluate(target, names)
    spec = getattr(called, "spec", None)
    if not isinstance(spec, Step):
        return None
    return spec


def _parse_call(node: ast.Call, step: Step, names: Mapping[str, Any]) -> StepCall:
    complete = True
    parameters: dict[str, Any] = {}
    for keyword in node.keywords:
        if keyword.arg is None:  # **parameters
            complete = False
        elif keyword.arg not in TASK_PARAMETERS:
            parameters[keyword.arg] = _evaluate(keyword.value, names)
    # with `**parameters`, the output model may be among what the text does not show
    default = step.returns if complete else Unknown
    returns = parameters.pop("returns", default)
    if not (isinstance(returns, type) and issubclass(returns, BaseModel)):
        returns = None
    return StepCall(step, returns, node.lineno, parameters, complete)


def _evaluate(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Return the value of an expression, or `Unknown`."""
    try:
        return _evaluate_known(node, names)
    except Exception:  # noqa: BLE001 - the project's own values may raise anything when looked at
        return Unknown


def _evaluate_known(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Return the value of an expression without running the flow. Raises Unknown, and anything."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id] if node.id in names else getattr(builtins, node.id)
    if isinstance(node, ast.Attribute):
        owner = _evaluate_part(node.value, names)
        # attributes of other objects may be properties, which run code
        if not isinstance(owner, ModuleType | type):
            raise Unknown
        return getattr(owner, node.attr)
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_evaluate_part(item, names) for item in node.elts]
    if isinstance(node, ast.Dict):
        return _evaluate_dict(node, names)
    if isinstance(node, ast.Subscript):
        container = _evaluate_part(node.value, names)
        return container[_evaluate_part(node.slice, names)]
    if isinstance(node, ast.Call) and not node.keywords:
        function = _evaluate_part(node.func, names)
        arguments = [_evaluate_part(argument, names) for argument in node.args]
        return _call_harmless(function, arguments)
    raise Unknown


def _evaluate_part(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """Return the value of a part of an expression. Raises Unknown where only a run can tell."""
    value = _evaluate_known(node, names)
    if value is Unknown:
        raise Unknown
    return value


def _evaluate_dict(node: ast.Dict, names: Mapping[str, Any]) -> dict[Any, Any]:
    values: dict[Any, Any] = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:  # {**others}
            raise Unknown
        values[_evaluate_part(key, names)] = _evaluate_part(value, names)
    return values


def _call_harmless(function: Any, arguments: list[Any]) -> Any:
    """Call a function without side effects. Raises Unknown for any other one."""
    if getattr(function, "__name__", "") == "unmapped":
        return arguments[0]
    # a class method without arguments is taken for a reading one, such as `Labels.names()`
    class_method = inspect.ismethod(function) and isinstance(function.__self__, type)
    if function in _HARMLESS_TYPES or (class_method and not arguments):
        return function(*arguments)
    raise Unknown
