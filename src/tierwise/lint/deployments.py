"""Deployments in prefect.yaml: each must name a flow that exists, and parameters that it takes."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tierwise.errors import ConfigError, unknown_name
from tierwise.lint.findings import Finding, finding_at, finding_from_error
from tierwise.lint.job_variables import job_variable_findings
from tierwise.text.yaml import Location, YamlData, read_yaml

_KIND = "deployment"


def deployment_findings(root: Path) -> Iterator[Finding]:
    """Yield the deployments that `tierwise up` could not create, or that could never run."""
    path = root / "prefect.yaml"
    if not path.exists():
        return
    try:
        source = read_yaml(path)
    except ConfigError as fault:
        yield finding_from_error(fault, root)
        return
    deployments = source.data.get("deployments") if _is_mapping(source.data) else None
    if not isinstance(deployments, list):
        return
    yield from job_variable_findings(source)
    for number, deployment in enumerate(deployments):
        if _is_mapping(deployment):
            yield from _findings(source, ("deployments", number), deployment, root)


def _findings(
    source: YamlData, place: Location, deployment: Mapping[str, Any], root: Path
) -> Iterator[Finding]:
    """Yield the faults of one deployment; an entry point that is no file of ours is not judged."""
    entrypoint = deployment.get("entrypoint")
    if not isinstance(entrypoint, str):
        return
    file, colon, name = entrypoint.rpartition(":")
    if not colon or not file.endswith(".py"):
        return
    at_entrypoint = (*place, "entrypoint")
    module = root / file
    if not module.is_file():
        present = sorted(
            other.relative_to(root).as_posix() for other in module.parent.glob("*.py")
        )
        # for a suggestion: an __init__.py makes the folder a package, and has no flow
        known = [other for other in present if not other.endswith("__init__.py")]
        message = (
            f"{unknown_name('file', file, known)} Remove the deployment, or mend it"
        )
        yield finding_at(source, at_entrypoint, "error", _KIND, message)
        return
    functions = _functions(module)
    if functions is None:
        return  # it cannot be parsed, which is a finding of its own
    function_name = name.rpartition(".")[2]
    if function_name not in functions:
        sentence = unknown_name("flow", function_name, _names_of_flows(functions))
        message = f"{file} has {sentence} Remove the deployment, or mend it"
        yield finding_at(source, at_entrypoint, "error", _KIND, message)
        return
    accepted = _parameters(functions[function_name])
    if accepted is None:
        return
    for location, parameters in _given(deployment, place):
        for parameter in parameters:
            if parameter in accepted:
                continue
            unknown = unknown_name("parameter", str(parameter), accepted)
            message = f"{function_name} takes {unknown}"
            yield finding_at(source, (*location, parameter), "error", _KIND, message)


def _given(
    deployment: Mapping[str, Any], place: Location
) -> Iterator[tuple[Location, Mapping[str, Any]]]:
    """Yield the parameters of a deployment, and those of its schedules, with their places."""
    parameters = deployment.get("parameters")
    if isinstance(parameters, Mapping):
        yield (*place, "parameters"), parameters
    schedules = deployment.get("schedules")
    if not isinstance(schedules, list):
        return
    for number, schedule in enumerate(schedules):
        own = schedule.get("parameters") if _is_mapping(schedule) else None
        if isinstance(own, Mapping):
            yield (*place, "schedules", number, "parameters"), own


_Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(module: Path) -> dict[str, _Function | None] | None:
    """Return the names that a module defines, with their functions; None where it has a fault."""
    try:
        tree = ast.parse(module.read_text(encoding="utf-8-sig"))
    except (SyntaxError, ValueError, OSError):
        return None
    # None for a name whose parameters the text does not show: a flow may be assigned or imported
    names: dict[str, _Function | None] = {}
    for node in tree.body:
        if isinstance(node, _Function):
            names[node.name] = node
        elif isinstance(node, ast.Assign):
            targets = [each.id for each in node.targets if isinstance(each, ast.Name)]
            names |= dict.fromkeys(targets)
        elif isinstance(node, ast.ImportFrom):
            names |= dict.fromkeys(alias.asname or alias.name for alias in node.names)
    return names


def _names_of_flows(functions: Mapping[str, _Function | None]) -> list[str]:
    """Return the functions that have a decorator, as a flow has."""
    names: list[str] = []
    for name, node in functions.items():
        if node is not None and node.decorator_list:
            names.append(name)
    return names


def _parameters(function: _Function | None) -> list[str] | None:
    """Return the parameters that a function takes by name; None where it may take any."""
    if function is None or function.args.kwarg:
        return None
    arguments = function.args
    return [each.arg for each in (*arguments.args, *arguments.kwonlyargs)]


def _is_mapping(data: object) -> bool:
    return isinstance(data, Mapping)
