"""Modules of a project that would hide Python's own, or an installed package, from everything that runs in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from tierwise.lint.findings import Finding

_OWN = {
    "flows",
    "tasks",
    "tests",
    "__init__",
}  # what a project is made of; flows/tasks.py is told elsewhere


def hidden_by(name: str, root: Path) -> str | None:
    """What a module of this name at a project's root, or in flows/, would hide from Python; None when nothing."""
    if name in sys.stdlib_module_names:
        return f"Python's own module {name}"
    elsewhere = [
        entry for entry in sys.path if entry and Path(entry).resolve() not in (root, root / "flows")
    ]
    found = PathFinder.find_spec(name, elsewhere)
    return f"the installed package {name}" if found and found.origin else None


def hiding_findings(root: Path) -> Iterator[Finding]:
    """Modules that hide others. The root, and in a deployment a flow's own folder, come first on Python's path."""
    for folder in (root, root / "flows"):
        for module in (
            *sorted(folder.glob("*.py")),
            *(found.parent for found in sorted(folder.glob("*/__init__.py"))),
        ):
            if module.stem not in _OWN and (hidden := hidden_by(module.stem, root)):
                message = f"hides {hidden}, since Python looks in this folder first; rename it"
                yield Finding("error", "shadowed", module, None, message)
