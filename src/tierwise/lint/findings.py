"""A finding: one fault of a project, with its place and remedy."""

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
    """One fault. `kind` is a word for all of its like; `line` is None where there is no line."""

    level: Level
    kind: str
    path: Path
    line: int | None
    message: str

    @property
    def order(self) -> tuple[str, int]:
        """The key to sort by: file, then line."""
        return str(self.path), self.line or 0

    def data(self, root: Path) -> Mapping[str, Any]:
        """Return plain data, the path relative to the project's root."""
        path = (
            self.path.relative_to(root) if self.path.is_relative_to(root) else self.path
        )
        return {
            "level": self.level,
            "kind": self.kind,
            "path": path.as_posix(),
            "line": self.line,
            "message": self.message,
        }


def finding_at(
    source: YamlData, location: Location, level: Level, kind: str, message: str
) -> Finding:
    """Return a finding at a place in a YAML file."""
    return Finding(level, kind, Path(source.path), source.line(location), message)


def finding_from_error(error: ConfigError, root: Path, kind: str = "file") -> Finding:
    """Return the error of a project file as a finding."""
    path = root / (error.path or "")
    return Finding("error", kind, path, error.line, error.message)
