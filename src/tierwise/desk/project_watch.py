"""The project's files as they are now: a desk runs for months, and its files change meanwhile."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tierwise.errors import ConfigError
from tierwise.project import Project

# Read anew when they change. Python modules are not: a process imports each of them once.
_PATTERNS = ("pyproject.toml", "routing_rules/*.yaml", "prompts/*.j2")
_MODULES = ("tasks", "readers", "flows")

# What tells two states of a file apart; None for one that is gone.
_Stamp = tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class FilesState:
    """What a page says about the project's files.

    `fault` is why the present ones do not load, empty where they do. `stale` names the modules that
    changed after this process imported them, and `restart` the settings that need another start.
    """

    fault: str = ""
    stale: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()

    @property
    def is_fresh(self) -> bool:
        """True if the desk works with the files as they are."""
        return not (self.fault or self.stale or self.restart)


class ProjectWatch:
    """Loads a project again when its files change; what does not load leaves the old one in use."""

    def __init__(self, project: Project) -> None:
        self._first = project
        self._lock = threading.Lock()
        self._project = project
        self._files = _stamps(project.root)
        self._modules: dict[str, _Stamp] = {}
        self._state = FilesState(_fault_of(project), self._note_modules())

    @property
    def project(self) -> Project:
        """The project as it loaded last."""
        return self._project

    @property
    def state(self) -> FilesState:
        """What the last look found."""
        return self._state

    def look(self) -> bool:
        """Load the project again if a file changed; return True if another one is in use now."""
        with self._lock:
            stale = self._note_modules()
            files = _stamps(self._project.root)
            if files == self._files:
                if stale != self._state.stale:
                    before = self._state
                    self._state = FilesState(before.fault, stale, before.restart)
                return False
            self._files = files
            project = Project(self._project.root)
            fault = _fault_of(project)
            if fault:
                self._state = FilesState(fault, stale, self._state.restart)
                return False
            self._project = project
            self._state = FilesState("", stale, self._needs_restart(project))
            return True

    def _note_modules(self) -> tuple[str, ...]:
        """Return the project's modules whose files changed since they were first seen."""
        root = self._first.root
        changed = []
        for name, path in _imported(root):
            stamp = _stamp(path)
            if self._modules.setdefault(name, stamp) != stamp:
                changed.append(str(path.relative_to(root)))
        return tuple(sorted(changed))

    def _needs_restart(self, project: Project) -> tuple[str, ...]:
        """Return the settings that differ from those that this process was started with."""
        before = self._first.settings
        now = project.settings
        names = []
        if now.desk != before.desk:
            names.append("[tool.tierwise.desk]")
        if now.alerts.is_on != before.alerts.is_on:
            names.append("[tool.tierwise.alerts]")
        if now.ledger_url != before.ledger_url:
            names.append("ledger_url")
        return tuple(names)


def _fault_of(project: Project) -> str:
    """Read all files; return what is wrong with the first that does not load."""
    try:
        _ = project.settings
        _ = project.catalog
        _ = project.prompts
        _ = project.rules
        _ = project.certificates
    except ConfigError as error:
        return str(error)
    return ""


def _stamps(root: Path) -> dict[Path, _Stamp]:
    found = (path for pattern in _PATTERNS for path in root.glob(pattern))
    return {path: _stamp(path) for path in found}


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _imported(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield the project's own modules that this process has imported."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in _MODULES:
            continue
        place = getattr(module, "__file__", None)
        if place and Path(place).is_relative_to(root):
            yield name, Path(place)
