"""What a step is measured on: its golden set, with the output model and the parameters that a flow gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pydantic import BaseModel

from tierwise.errors import ConfigError
from tierwise.evidence.golden import load_settings
from tierwise.project import Project
from tierwise.steps.correctness import rubric
from tierwise.steps.examples import GoldenSet, load_golden
from tierwise.steps.step import Step


@dataclass(frozen=True, slots=True)
class Material:
    """A step as a flow uses it, and the examples with right answers."""

    step: Step
    golden: GoldenSet
    parameters: Mapping[str, Any]


def load_material(
    project: Project, step: str, path: Path | None = None, *, limit: int | None = None
) -> Material:
    """A step's golden set (default golden/STEP.jsonl), or its first `limit` examples.

    The settings in the YAML file beside it hold, or else those in golden/STEP.yaml. Raises UnknownName, Misuse
    without the golden set, and ConfigError with file and line for what is wrong in it.
    """
    path = path or project.root / "golden" / f"{step}.jsonl"
    beside = path.with_suffix(".yaml")
    usual = project.root / "golden" / f"{step}.yaml"
    place = beside if beside.exists() else usual
    spec = project.load_step(step)
    settings = load_settings(place)
    if settings.returns:
        spec = replace(spec, returns=_returns(settings.returns, place))
    if settings.rubric:
        spec = replace(spec, correct=rubric(*settings.rubric, needs=spec.correct))
    parameters = dict(settings.parameters)
    allowed = {
        field: parameters[name] for field, name in spec.choices.items() if name in parameters
    }
    found = load_golden(path, allowed=allowed)
    return Material(spec, GoldenSet(path, found.examples[:limit]), parameters)


def _returns(name: str, path: Path) -> type[BaseModel]:
    """An output model by its name, such as `flows.contract_intake:ContractTerms`."""
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"returns: there is no '{name}' ({error})", path=path) from None
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise ConfigError(f"returns: '{name}' is no output model", path=path)
    return found
