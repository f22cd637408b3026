"""The facts about a step that certificates depend on, known without importing the project's code.

Importing a step imports Prefect, which takes seconds. So the facts are cached in
`.tierwise/steps.json`, together with the hash of every file that they were computed from. A cached
fact is valid until one of these files changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pydantic

from tierwise import __version__
from tierwise.explain.decisions import step_of
from tierwise.identity import StepEvidence, current_for, examples_of, step_evidence
from tierwise.policy.certificates import Current
from tierwise.project import Project
from tierwise.text.files import write_atomically
from tierwise.text.private import private_folder

CACHE = Path(".tierwise") / "steps.json"


@dataclass(frozen=True, slots=True)
class StepFacts:
    """The part of a step that its certificates depend on."""

    evidence: StepEvidence
    splits: bool  # True for a step that takes long documents part by part


def step_facts(project: Project, name: str) -> StepFacts | None:
    """Return the facts about a step, or None for a step that is not in tasks/.

    Imports the step only where the cache has no valid facts. Raises ConfigError, and what the
    import of the step raises.
    """
    if not (project.root / "tasks" / f"{name.replace('-', '_')}.py").exists():
        return None
    cached = _cached(project, name)
    if cached:
        return cached
    step, parameters = step_of(project, name)
    if step is None:
        return None
    facts = StepFacts(step_evidence(project, step, parameters), bool(step.splits))
    _keep(project, name, facts)
    return facts


def current_step(
    project: Project, name: str, *, may_import: bool = True
) -> Current | None:
    """Return what a certificate for a step must agree with today, or None for an unknown step.

    A process that lives long must not import steps, as it would go on with old code: without
    `may_import` a step whose facts are not on file is unknown, too.
    """
    facts = step_facts(project, name) if may_import else _cached(project, name)
    if facts is None:
        return None
    examples = examples_of(project, name)
    examples_hash = examples.hash if examples else None
    return current_for(project, os.environ, name, facts.evidence, examples_hash)


def _cached(project: Project, name: str) -> StepFacts | None:
    """Return the facts on file, if each file that they were computed from is the same today."""
    entry: Any = _read(project).get(name)
    try:
        same = entry["versions"] == _versions() and all(
            _hash(project.root / path) == digest
            for path, digest in entry["files"].items()
        )
        # A new file in tasks/ may be data that a step reads.
        files = {*_files_of_tasks(project), *_files_of_settings(project)}
        same = same and files <= set(entry["files"])
        if not same:
            return None
        facts = entry["facts"]
        evidence = dict(facts["evidence"])
        evidence["criteria"] = tuple(evidence["criteria"])
        return StepFacts(StepEvidence(**evidence), facts["splits"])
    except (KeyError, TypeError, AttributeError):
        # no entry, or a file of another version
        return None


def _keep(project: Project, name: str, facts: StepFacts) -> None:
    """Put the facts on file. A project that cannot be written to computes them each time."""
    files = {
        *_files_of_tasks(project),
        *_imported_files(project),
        *_files_of_settings(project),
    }
    entry: dict[str, Any] = {
        "facts": asdict(facts),
        "versions": _versions(),
        "files": {path: _hash(project.root / path) for path in sorted(files)},
    }
    with suppress(OSError):
        private_folder((project.root / CACHE).parent)
        content = json.dumps({**_read(project), name: entry}, indent=1)
        write_atomically(project.root / CACHE, content, private=True)


def _read(project: Project) -> Mapping[str, Any]:
    try:
        entries: Any = json.loads((project.root / CACHE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _versions() -> list[str]:
    """Return the versions of the software that computes a step's hash."""
    return [__version__, pydantic.VERSION, platform.python_version()]


def _files_of_tasks(project: Project) -> Iterator[str]:
    """Yield all files in tasks/, as paths from the project's root."""
    for path in (project.root / "tasks").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(project.root).as_posix()


def _files_of_settings(project: Project) -> Iterator[str]:
    """Yield the prompts and golden settings, which say what steps quote and their parameters."""
    for pattern in ("prompts/*.md.j2", "golden/*.yaml"):
        for path in project.root.glob(pattern):
            yield path.relative_to(project.root).as_posix()


def _imported_files(project: Project) -> Iterator[str]:
    """Yield the files of all modules of this project that are imported in this process."""
    for module in list(sys.modules.values()):
        path = Path(getattr(module, "__file__", None) or "/")
        if path.is_relative_to(project.root) and "site-packages" not in path.parts:
            yield path.relative_to(project.root).as_posix()


def _hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, or nothing where there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
