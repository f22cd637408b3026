"""A project's own code: modules that hide others, steps and prompts that miss each other, the order of steps."""

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
from tierwise.lint.call_parameters import Asked
from tierwise.lint.findings import Finding
from tierwise.policy.certificates import Current
from tierwise.steps.prompts import SUFFIX, Prompts

PATIENCE_S = 120  # for importing all flows and tasks
OUR_OWN = {"judge"}  # prompts that tierwise itself uses, for no step in tasks/


@dataclass(frozen=True)
class StepInfo:
    """What checking needs to know of a step in tasks/. `current` is None where one of its files is wrong."""

    name: str
    path: Path
    prompt: str
    choices: Mapping[str, str]  # closed field -> the parameter that holds its values
    fields: tuple[str, ...]
    current: Current | None


@dataclass(frozen=True)
class Code:
    """The steps of a project, as its modules define them, their calls in flows, and what is wrong with the modules."""

    steps: tuple[StepInfo, ...] = ()
    findings: tuple[Finding, ...] = ()
    asked: tuple[Asked, ...] = ()

    @property
    def currents(self) -> dict[str, Current]:
        """What certificates must agree with, by step."""
        return {step.name: step.current for step in self.steps if step.current}


def imported(root: Path, today: datetime.date) -> Code:
    """Import flows and tasks in a process of their own (about as long as importing Prefect takes)."""
    if not any((root / folder).is_dir() for folder in ("flows", "tasks")):
        return Code()
    quiet = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
    }
    command = [sys.executable, "-m", "tierwise.lint.import_project", str(root)]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            cwd=root,
            env={**os.environ, **quiet},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        message = (
            f"importing flows and tasks takes more than {PATIENCE_S} s; importing must do nothing"
        )
        return Code(findings=(Finding("error", "import", root / "flows", None, message),))
    except json.JSONDecodeError:
        last = done.stderr.strip().splitlines()[-1:] or ["no word"]
        message = (
            f"importing flows and tasks ended Python with exit code {done.returncode}: {last[0]}"
        )
        return Code(findings=(Finding("error", "import", root / "flows", None, message),))
    faults = {(f["path"], f["line"], f["message"]): None for f in found["faults"]}
    findings = tuple(
        Finding("error", "import", Path(path), line, message) for path, line, message in faults
    )
    asked = (
        Asked(a["step"], Path(a["path"]), a["line"], tuple(a["differences"]))
        for a in found["asked"]
    )
    return Code(tuple(_step(step, today) for step in found["steps"]), findings, tuple(asked))


def _step(told: Mapping[str, Any], today: datetime.date) -> StepInfo:
    current = told["current"] and Current(**told["current"], today=today)
    return StepInfo(
        told["name"],
        Path(told["path"]),
        told["prompt"],
        told["choices"],
        tuple(told["fields"]),
        current,
    )


def layout_findings(root: Path) -> Iterator[Finding]:
    """Modules that would hide the steps. Prefect puts a flow's own folder first on Python's path."""
    for shadow in (root / "flows" / "tasks.py", root / "flows" / "tasks"):
        if shadow.exists():
            message = "hides tasks/ from the flows, since Prefect looks in a flow's own folder first; rename it"
            yield Finding("error", "shadowed", shadow, None, message)
    for name in ("flows", "tasks"):
        if (root / name).is_dir() and not (file := root / name / "__init__.py").exists():
            message = f"is missing, so an installed package called {name} would be taken instead; add an empty one"
            yield Finding("error", "shadowed", file, None, message)


def prompt_findings(
    prompts: Prompts, broken: Sequence[str], steps: Sequence[StepInfo]
) -> Iterator[Finding]:
    """Steps without a prompt, and prompts that no step uses. `broken` prompts are there, but wrong."""
    known = {prompt.name for prompt in prompts} | set(broken)
    for step in steps:
        if step.prompt not in known:
            message = f"{unknown_name('prompt', step.prompt, known)} (prompts/{step.prompt}{SUFFIX} is missing)"
            yield Finding("error", "prompt", step.path, None, f"the step {step.name}: {message}")
    for prompt in prompts:
        users = [step.name for step in steps if step.prompt == prompt.name]
        line = 1 + next(
            (
                i
                for i, text in enumerate(prompt.path.read_text().splitlines())
                if text[:5] == "step:"
            ),
            0,
        )
        if not users and prompt.name not in OUR_OWN:
            message = f"no step in tasks/ uses this prompt; add tasks/{prompt.head.step}.py, or take it out"
            yield Finding("warning", "prompt", prompt.path, line, message)
        elif users and prompt.head.step not in users:
            message = f"{unknown_name('step', prompt.head.step, users)} uses this prompt"
            yield Finding("error", "prompt", prompt.path, line, message)


def step_order(root: Path) -> dict[str, list[str]]:
    """The steps that each flow calls, in the order of their first calls, as far as its text tells."""
    return {
        path.stem: _called(path)
        for path in sorted((root / "flows").glob("*.py"))
        if path.stem[0] != "_"
    }


def _called(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):  # told by whoever imports it
        return []
    steps: dict[str, str] = {}
    calls: list[tuple[int, int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tasks."):
            steps |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.Call):
            target = node.func.value if isinstance(node.func, ast.Attribute) else node.func
            if isinstance(target, ast.Name):
                calls.append((node.lineno, node.col_offset, target.id))
    return list(dict.fromkeys(steps[name] for _, _, name in sorted(calls) if name in steps))
