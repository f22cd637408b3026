"""A project's own code, imported by a process of its own, and told as JSON: `python -m tierwise.lint.import_project`.

A module that cannot be imported, exits or prints harms nobody here, and the next check sees it afresh.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any

from tierwise.errors import ConfigError, TierwiseError
from tierwise.evidence.golden import load_settings
from tierwise.lint.call_parameters import calls_of, differences
from tierwise.policy.certificates import Current
from tierwise.project import Project
from tierwise.steps.step import Step


def told(root: Path) -> dict[str, Any]:
    """All steps in tasks/ and the calls of them in flows, what certificates must agree with, and what is no module."""
    project = Project(root)
    steps: list[dict[str, Any]] = []
    faults: list[dict[str, Any]] = []

    def tried(path: Path, look: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return look(*arguments)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a project's module may raise anything
            faults.append(_fault(error, path, root))
            return None

    for path in _modules(root / "tasks"):
        module = tried(path, importlib.import_module, f"tasks.{path.stem}")
        for step in _steps(module) if module else ():
            current = tried(_settings_file(project, step), _current, project, step)
            steps.append(_told(step, path, current))
    asked: list[dict[str, Any]] = []
    for path in _modules(root / "flows"):
        if tried(path, project.load_flow, path.stem):
            asked += _asked(project, path)
    return {"steps": steps, "faults": faults, "asked": asked}


def _modules(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.py") if not path.stem.startswith("_"))


def _steps(module: ModuleType) -> Iterator[Step]:
    """The steps in a module."""
    for value in vars(module).values():
        if isinstance(step := getattr(value, "spec", None), Step):
            yield step


def _told(step: Step, path: Path, current: Current | None) -> dict[str, Any]:
    hashes = ("identities", "prompt_hash", "step_hash")
    return {
        "name": step.name,
        "path": str(path),
        "prompt": step.prompt,
        "choices": dict(step.choices),
        "fields": list(step.returns.model_fields),
        "current": {name: getattr(current, name) for name in hashes} if current else None,
    }


def _current(project: Project, step: Step) -> Current | None:
    """What certificates of a step must agree with; None where a file is wrong that its own check tells."""
    from tierwise.engine import current_of, examples_of

    try:
        settings = load_settings(_settings_file(project, step))
        examples = examples_of(project, step.name)
        if settings.returns:
            step = replace(step, returns=resolve_name(settings.returns))
        return current_of(
            project, step, dict(settings.parameters), examples.hash if examples else None
        )
    except TierwiseError:
        return None


def _asked(project: Project, path: Path) -> list[dict[str, Any]]:
    """The calls of steps with a golden set in a flow, each with what it has otherwise than that set's settings."""
    found = []
    for call in calls_of(sys.modules[f"flows.{path.stem}"], path):
        step = call.step
        settings_file = _settings_file(project, call.step)
        if not settings_file.with_suffix(".jsonl").exists():
            continue
        try:
            settings = load_settings(settings_file)
            measured = (
                replace(step, returns=resolve_name(settings.returns)) if settings.returns else step
            )
        except (
            TierwiseError,
            ImportError,
            AttributeError,
            ValueError,
        ):  # told by who reads the golden set
            continue
        other = differences(call, measured, settings)
        found.append(
            {"step": step.name, "path": str(path), "line": call.line, "differences": other}
        )
    return found


def _settings_file(project: Project, step: Step) -> Path:
    return project.root / "golden" / f"{step.name}.yaml"


def _fault(error: BaseException, path: Path, root: Path) -> dict[str, Any]:
    """An error of the project's code, at the last of its own lines that led there."""
    if isinstance(error, ConfigError):
        return {
            "path": str(root / (error.path or path)),
            "line": error.line,
            "message": error.message,
        }
    frames = [
        (Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)
    ]
    own = [
        (file, line)
        for file, line in frames
        if file.is_relative_to(root) and "site-packages" not in file.parts
    ]
    place, line = own[-1] if own else (path, None)
    if isinstance(error, SyntaxError) and error.filename:
        place = Path(error.filename)
        line = error.lineno
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return {
        "path": str(place),
        "line": line,
        "message": f"cannot be imported: {type(error).__name__}: {text}",
    }


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        found = told(Path(sys.argv[1]))
    print(json.dumps(found, default=str))  # noqa: T201 - the answer to the process that asked
