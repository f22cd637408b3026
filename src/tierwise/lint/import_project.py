"""Import of a project's own code in a separate process, described as JSON on standard output.

Run as `python -m tierwise.lint.import_project ROOT`. A module that cannot be imported, exits or
prints does no harm there, and the next check imports it afresh.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

from tierwise.errors import ConfigError, TierwiseError
from tierwise.lint.call_parameters import (
    StepCall,
    call_differences,
    spread_arguments,
    step_calls,
)
from tierwise.lint.call_prompts import (
    call_findings,
    prompt_without_document,
    spread_finding,
)
from tierwise.lint.findings import Finding, finding_from_error
from tierwise.policy.certificates import Current
from tierwise.policy.own_model import HOSTED, fault_of, tier_of, unset_variables
from tierwise.policy.variables import fill_variables
from tierwise.project import Project, import_fault
from tierwise.steps.golden_settings import GoldenSettings, load_settings
from tierwise.steps.own_work import HttpWork
from tierwise.steps.prompts import read_prompts
from tierwise.steps.step import Step


def describe_project(root: Path) -> dict[str, Any]:
    """Describe the steps in tasks/, their calls in flows, and modules that fail to import.

    `checks` are the names of the checks of all steps, also of those that a flow makes itself.
    """
    description = _Description(Project(root))
    for path in _modules(root / "tasks"):
        description.add_tasks(path)
    for path in _modules(root / "flows"):
        description.add_flow(path)
    description.try_calls()
    return description.as_json()


class _Description:
    """What is known of a project so far. An error in one file leaves the others to be described."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._root = project.root
        self._steps: list[Step] = []  # in tasks/
        self._calls: list[tuple[Path, StepCall]] = []
        self._described_steps: list[dict[str, Any]] = []
        self._described_calls: list[dict[str, Any]] = []
        self._checks: set[str] = set()
        self._faults: list[dict[str, Any]] = []
        self._findings: list[Finding] = []

    def add_tasks(self, path: Path) -> None:
        """Import a module in tasks/ and describe its steps."""
        module = self._attempt(path, importlib.import_module, f"tasks.{path.stem}")
        for step in _steps_in(module):
            # an error here is the golden set's: the step is described all the same
            settings_file = _settings_file(self._project, step)
            current = None
            if step.own is None:
                current = self._attempt(
                    settings_file, _current_evidence, self._project, step
                )
            self._steps.append(step)
            self._described_steps.append(_describe_step(step, path, current))
            self._findings += _service_findings(self._project, step, path)
            if step.own is None:
                self._findings += _golden_row_findings(self._project, step)
            self._checks.update(check.name for check in step.checks)

    def add_flow(self, path: Path) -> None:
        """Import a module in flows/ and describe its calls of steps."""
        if not self._attempt(path, self._project.load_flow, path.stem):
            return
        module = sys.modules[f"flows.{path.stem}"]
        calls = list(step_calls(module, path))
        self._calls += [(path, call) for call in calls]
        self._described_calls += _describe_calls(self._project, path, calls)
        for spread in spread_arguments(module, path):
            self._findings.append(spread_finding(path, spread))
        # a flow may define steps of its own
        for step in _steps_in(module):
            self._checks.update(check.name for check in step.checks)

    def try_calls(self) -> None:
        """Find what is wrong with the calls, once all modules are imported."""

        def all_findings() -> list[Finding]:
            # a list, so that errors are raised inside of the attempt
            return list(_step_findings(self._root, self._steps, self._calls))

        findings = self._attempt(self._root / "flows", all_findings)
        self._findings += findings or []

    def as_json(self) -> dict[str, Any]:
        """Return the description as plain data."""
        return {
            "steps": self._described_steps,
            "faults": self._faults,
            "calls": self._described_calls,
            "checks": sorted(self._checks),
            "findings": [_describe_finding(finding) for finding in self._findings],
        }

    def _attempt(self, path: Path, action: Callable[..., Any], *arguments: Any) -> Any:
        """Return the action's result, or None with its error among the faults of `path`."""
        try:
            return action(*arguments)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything
            self._faults.append(_describe_fault(error, path, self._root))
            return None


def _step_findings(
    root: Path, in_tasks: Sequence[Step], calls: Sequence[tuple[Path, StepCall]]
) -> Iterator[Finding]:
    """Yield what is wrong with steps, their prompts and their calls in flows."""
    sound_prompts, _ = read_prompts(root / "prompts")  # faults are reported elsewhere
    prompts = {prompt.name: prompt for prompt in sound_prompts}
    called = [call.step for _, call in calls]
    # a flow may define a step of its own
    steps = {step.name: step for step in (*in_tasks, *called)}
    for step in steps.values():
        prompt = prompts.get(step.prompt)
        without_document = prompt and prompt_without_document(prompt)
        if without_document:
            yield without_document
    yield from call_findings(calls, steps.values(), prompts, root)


def _describe_finding(finding: Finding) -> dict[str, Any]:
    description = asdict(finding)
    description["path"] = str(finding.path)  # JSON has no paths
    return description


def _modules(folder: Path) -> list[Path]:
    """Return the files of the modules in a folder; those that begin with `_` are private."""
    files = sorted(folder.glob("*.py"))
    return [path for path in files if not path.stem.startswith("_")]


def _steps_in(module: ModuleType | None) -> Iterator[Step]:
    """Yield the steps in a module; none where it could not be imported."""
    if module is None:
        return
    for value in vars(module).values():
        step = getattr(value, "spec", None)
        # decorated functions carry their step as `spec`; a project's object may have any `spec`
        if isinstance(step, Step):
            yield step


def _describe_step(step: Step, path: Path, current: Current | None) -> dict[str, Any]:
    evidence = None
    if current is not None:
        evidence = asdict(current)
        del evidence["today"], evidence["demoted"]
    return {
        "name": step.name,
        "path": str(path),
        "prompt": None if step.own else step.prompt,
        "choices": dict(step.choices),
        "fields": list(step.returns.model_fields),
        "by_field": step.by_field,
        "current": evidence,
    }


def _service_findings(project: Project, step: Step, path: Path) -> Iterator[Finding]:
    """Yield what is wrong with the address, the tier and the variables of an HTTP step."""
    if not isinstance(step.own, HttpWork):
        return
    try:
        tiers = project.catalog.tiers
    except TierwiseError:
        return  # the check of that file reports it
    unset = unset_variables(step.own, os.environ)
    if unset:
        names = " and ".join(unset).replace("|", " or ")
        message = f"the step {step.name} cannot call its service here; set {names}"
        yield Finding("warning", "step", path, None, message)
        return
    service = replace(step.own, url=fill_variables(step.own.url, os.environ))
    fault = fault_of(service, tiers)
    if fault is not None:
        yield Finding("error", "step", path, None, f"the step {step.name}: {fault}")
        return
    if tier_of(service, tiers) == HOSTED and HOSTED not in tiers:
        message = (
            f"the step {step.name} calls an address outside the house without a tier, so no "
            'guard with `allow_tiers` lets documents through; name one by `tier="…"`'
        )
        yield Finding("warning", "step", path, None, message)


def _golden_row_findings(project: Project, step: Step) -> list[Finding]:
    """Return the rows of a step's golden set that measure nothing."""
    from tierwise.evidence.certify import golden_faults

    try:
        faults = golden_faults(project, step.name)
    except TierwiseError:
        return []  # the check of that file reports it
    return [finding_from_error(fault, project.root, "golden row") for fault in faults]


def _current_evidence(project: Project, step: Step) -> Current | None:
    """Return the state that certificates of a step must agree with.

    None where a file is wrong: the check of that file reports it.
    """
    from tierwise.identity import current_of, examples_of

    try:
        settings = load_settings(_settings_file(project, step))
        examples = examples_of(project, step.name)
        measured = _measured_step(step, settings)
        examples_hash = examples.hash if examples else None
        parameters = dict(settings.parameters)
        return current_of(project, os.environ, measured, parameters, examples_hash)
    except TierwiseError:
        return None


def _measured_step(step: Step, settings: GoldenSettings) -> Step:
    """Return the step as its golden set measures it: perhaps with another output model."""
    if not settings.returns:
        return step
    return replace(step, returns=resolve_name(settings.returns))


def _describe_calls(
    project: Project, path: Path, calls_here: Sequence[StepCall]
) -> list[dict[str, Any]]:
    """Describe a flow's calls of steps that have a golden set, and how they differ from it."""
    calls: list[dict[str, Any]] = []
    for call in calls_here:
        settings_file = _settings_file(project, call.step)
        if not settings_file.with_suffix(".jsonl").exists():
            continue  # no golden set: there is nothing to differ from
        try:
            settings = load_settings(settings_file)
            measured = _measured_step(call.step, settings)
        except (TierwiseError, ImportError, AttributeError, ValueError):
            continue  # the check of the golden set reports it
        description = {
            "step": call.step.name,
            "path": str(path),
            "line": call.line,
            "differences": call_differences(call, measured, settings),
        }
        calls.append(description)
    return calls


def _settings_file(project: Project, step: Step) -> Path:
    golden = project.root / "golden"
    return golden / f"{step.name}.yaml"


def _describe_fault(error: BaseException, path: Path, root: Path) -> dict[str, Any]:
    """Describe an error of the project's code, at the last of its own lines in the traceback."""
    if isinstance(error, ConfigError):
        place = root / (error.path or path)
        return {"path": str(place), "line": error.line, "message": error.message}
    fault = import_fault(error, path, root)
    return {
        "path": str(root / (fault.path or path)),
        "line": fault.line,
        "message": fault.message,
    }


if __name__ == "__main__":
    # what the project's modules print must not mix with the JSON
    with contextlib.redirect_stdout(sys.stderr):
        description = describe_project(Path(sys.argv[1]))
    print(json.dumps(description, default=str))  # noqa: T201 - read by the process that asked
