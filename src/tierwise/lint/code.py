"""A project's own code: its modules, the prompts of its steps, and the order of steps."""

from __future__ import annotations

import ast
import datetime
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tierwise.errors import unknown_name
from tierwise.lint.call_parameters import CallDrift
from tierwise.lint.findings import Finding
from tierwise.policy.certificates import Current
from tierwise.steps.prompts import SUFFIX, Prompt, Prompts

IMPORT_TIMEOUT_S = 120  # for importing all flows and tasks
OWN_PROMPTS = {"judge"}  # prompts that tierwise itself uses, for no step in tasks/
_QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
}


@dataclass(frozen=True)
class StepInfo:
    """A step in tasks/, as checks need it. `current` is None where one of its files is wrong."""

    name: str
    path: Path
    prompt: str | None  # None for a step without a model
    choices: Mapping[str, str]  # closed field -> the parameter that receives its values
    fields: tuple[str, ...]
    by_field: bool
    current: Current | None


@dataclass(frozen=True)
class Code:
    """The steps of a project, their calls in flows, and the faults of the modules.

    `checks` are the names of the steps' checks; None where not every module could be imported.
    """

    steps: tuple[StepInfo, ...] = ()
    findings: tuple[Finding, ...] = ()
    calls: tuple[CallDrift, ...] = ()
    checks: frozenset[str] | None = None

    @property
    def currents(self) -> dict[str, Current]:
        """The state that certificates must agree with, by step."""
        currents: dict[str, Current] = {}
        for step in self.steps:
            if step.current is not None:
                currents[step.name] = step.current
        return currents


def import_code(root: Path, today: datetime.date) -> Code:
    """Import flows and tasks in a separate process; that takes as long as importing Prefect."""
    if not any((root / folder).is_dir() for folder in ("flows", "tasks")):
        return Code()
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "tierwise.lint.import_project", str(root)],
            cwd=root,
            env={**os.environ, **_QUIET},
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        limit = f"more than {IMPORT_TIMEOUT_S} s"
        return _import_failure(root, f"takes {limit}; importing must do nothing")
    try:
        description = json.loads(done.stdout)
    except json.JSONDecodeError:
        # A module that ends the interpreter leaves no JSON, but often a last word on stderr.
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        return _import_failure(
            root, f"ended Python with exit code {done.returncode}: {last[0]}"
        )
    return _parse_description(description, today)


def _import_failure(root: Path, what: str) -> Code:
    message = f"importing flows and tasks {what}"
    finding = Finding("error", "import", root / "flows", None, message)
    return Code(findings=(finding,))


def _parse_description(description: Mapping[str, Any], today: datetime.date) -> Code:
    """Return the JSON of `tierwise.lint.import_project` as values."""
    # one fault may be met by several modules that import the broken one
    faults: dict[Finding, None] = {}
    for fault in description["faults"]:
        path = Path(fault["path"])
        finding = Finding("error", "import", path, fault["line"], fault["message"])
        faults[finding] = None
    calls = []
    for call in description["calls"]:
        differences = tuple(call["differences"])
        calls.append(
            CallDrift(call["step"], Path(call["path"]), call["line"], differences)
        )
    for found in description["findings"]:
        path = Path(found["path"])
        finding = Finding(**{**found, "path": path})
        faults[finding] = None
    steps = tuple(_parse_step(step, today) for step in description["steps"])
    # a step that could not be imported may have further checks
    checks = None if faults else frozenset(description["checks"])
    return Code(steps, tuple(faults), tuple(calls), checks)


def _parse_step(data: Mapping[str, Any], today: datetime.date) -> StepInfo:
    current = Current(**data["current"], today=today) if data["current"] else None
    return StepInfo(
        name=data["name"],
        path=Path(data["path"]),
        prompt=data["prompt"],
        choices=data["choices"],
        fields=tuple(data["fields"]),
        by_field=data["by_field"],
        current=current,
    )


def layout_findings(root: Path) -> Iterator[Finding]:
    """Yield modules that would hide the steps.

    Prefect puts a flow's own folder first on Python's path.
    """
    for shadow in (root / "flows" / "tasks.py", root / "flows" / "tasks"):
        if shadow.exists():
            message = (
                "hides tasks/ from the flows, since Prefect looks in a flow's own folder first; "
                "rename it"
            )
            yield Finding("error", "shadowed", shadow, None, message)
    for name in ("flows", "tasks"):
        init = root / name / "__init__.py"
        if init.parent.is_dir() and not init.exists():
            message = (
                f"is missing, so an installed package called {name} would be taken instead; "
                "add an empty one"
            )
            yield Finding("error", "shadowed", init, None, message)


def prompt_findings(
    prompts: Prompts, broken: Sequence[str], code: Code
) -> Iterator[Finding]:
    """Yield steps without a prompt, and prompts that no step uses.

    `broken` names prompts whose files exist, but are wrong. A step whose module could not be
    imported may still use its prompt.
    """
    steps = code.steps
    not_imported = {finding.path.stem for finding in code.findings}
    names = {prompt.name for prompt in prompts} | set(broken)
    for step in steps:
        if step.prompt is not None and step.prompt not in names:
            unknown = unknown_name("prompt", step.prompt, names)
            missing = f"prompts/{step.prompt}{SUFFIX} is missing"
            message = f"the step {step.name}: {unknown} ({missing})"
            yield Finding("error", "prompt", step.path, None, message)
    for prompt in prompts:
        users = [step.name for step in steps if step.prompt == prompt.name]
        declared = prompt.head.step
        may_be_used = prompt.name in OWN_PROMPTS or declared in not_imported
        if not users and not may_be_used:
            message = f"no step in tasks/ uses this prompt; add tasks/{declared}.py, or take it out"
            yield Finding("warning", "prompt", prompt.path, _step_line(prompt), message)
        elif users and declared not in users:
            names_used = ", ".join(users)
            message = (
                f"is for the step {declared}, but {names_used} uses it; correct `step`"
            )
            yield Finding("error", "prompt", prompt.path, _step_line(prompt), message)


def _step_line(prompt: Prompt) -> int:
    """Return the line of a prompt's front matter that names its step; 1 where there is none."""
    for number, text in enumerate(
        prompt.path.read_text(encoding="utf-8-sig").splitlines(), 1
    ):
        if text.startswith("step:"):
            return number
    return 1


def step_order(root: Path) -> dict[str, list[str]]:
    """Return the steps that each flow calls, in the order of their first calls in its text."""
    order: dict[str, list[str]] = {}
    for path in sorted((root / "flows").glob("*.py")):
        if not path.stem.startswith("_"):
            order[path.stem] = _steps_called(path)
    return order


def _steps_called(path: Path) -> list[str]:
    """Return the steps that a flow's file imports from tasks/ and calls."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, SyntaxError):  # importing the module reports it
        return []
    steps: dict[str, str] = {}  # the name in the flow -> the step
    calls: list[tuple[int, int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "tasks."
        ):
            for alias in node.names:
                steps[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.Call):
            # STEP(…), or STEP.map(…)
            target = node.func
            if isinstance(target, ast.Attribute):
                target = target.value
            if isinstance(target, ast.Name):
                calls.append((node.lineno, node.col_offset, target.id))
    # ast.walk goes level by level, so the text's order is that of the places
    called = [steps[name] for _, _, name in sorted(calls) if name in steps]
    return list(dict.fromkeys(called))
