"""Modules of a project that shadow Python's own or an installed package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from tierwise.lint.findings import Finding

# the parts of every project; lint/code.py looks at flows/tasks.py
_PROJECT_MODULES = {"flows", "tasks", "tests", "__init__"}


def hidden_by(name: str, root: Path) -> str | None:
    """Return the module that one of this name, at the root or in flows/, would hide, or None."""
    if name in sys.stdlib_module_names:
        return f"Python's own module {name}"
    own = (root, root / "flows")
    elsewhere = [
        entry for entry in sys.path if entry and Path(entry).resolve() not in own
    ]
    spec = PathFinder.find_spec(name, elsewhere)
    # a namespace package has no origin: a folder without code hides nothing
    return f"the installed package {name}" if spec and spec.origin else None


def shadowing_findings(root: Path) -> Iterator[Finding]:
    """Yield modules that hide others.

    Python searches the root first, and in a deployment the flow's own folder.
    """
    for folder in (root, root / "flows"):
        packages = [init.parent for init in sorted(folder.glob("*/__init__.py"))]
        for module in (*sorted(folder.glob("*.py")), *packages):
            if module.stem in _PROJECT_MODULES:
                continue
            hidden = hidden_by(module.stem, root)
            if hidden:
                message = f"hides {hidden}, since Python looks in this folder first; rename it"
                yield Finding("error", "shadowed", module, None, message)
