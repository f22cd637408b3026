"""A finding: one thing that is wrong in a project, with its place and remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tierwise.errors import ConfigError
from tierwise.text.yaml import Location, YamlData

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. `kind` is a word for all of its like; `line` is None where no line can be told."""

    level: Level
    kind: str
    path: Path
    line: int | None
    message: str

    @property
    def order(self) -> tuple[str, int]:
        """Findings are told in the order of the files and their lines."""
        return str(self.path), self.line or 0

    def data(self, root: Path) -> Mapping[str, Any]:
        """As plain data, the path below the project's root."""
        path = self.path.relative_to(root) if self.path.is_relative_to(root) else self.path
        return {
            "level": self.level,
            "kind": self.kind,
            "path": path.as_posix(),
            "line": self.line,
            "message": self.message,
        }


def at(source: YamlData, location: Location, level: Level, kind: str, message: str) -> Finding:
    """A finding at a place of a YAML file."""
    return Finding(level, kind, Path(source.path), source.line(location), message)


def of_error(error: ConfigError, root: Path, kind: str = "file") -> Finding:
    """A project file's error as a finding."""
    return Finding("error", kind, root / (error.path or ""), error.line, error.message)
