"""A step with its golden set, and with the output model and the parameters that a flow gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pydantic import BaseModel

from tierwise.errors import ConfigError
from tierwise.project import Project
from tierwise.steps.correctness import rubric
from tierwise.steps.examples import GoldenSet, load_golden
from tierwise.steps.golden_settings import load_settings
from tierwise.steps.step import Step


@dataclass(frozen=True, slots=True)
class GoldenStep:
    """A step as a flow uses it, and examples with right answers."""

    step: Step
    golden: GoldenSet
    parameters: Mapping[str, Any]


def load_golden_step(
    project: Project, step: str, path: Path | None = None, *, limit: int | None = None
) -> GoldenStep:
    """Load a step's golden set (default golden/STEP.jsonl), or its first `limit` examples.

    The settings come from the YAML file next to it, or else from golden/STEP.yaml. Raises
    UnknownName, Misuse without the golden set, and ConfigError with file and line.
    """
    folder = project.root / "golden"
    path = path or folder / f"{step}.jsonl"
    settings_path = path.with_suffix(".yaml")
    if not settings_path.exists():
        settings_path = folder / f"{step}.yaml"
    settings = load_settings(settings_path)
    spec = project.load_step(step)
    if settings.returns:
        spec = replace(spec, returns=_output_model(settings.returns, settings_path))
    if settings.rubric:
        spec = replace(spec, correct=rubric(*settings.rubric, needs=spec.correct))
    parameters = dict(settings.parameters)
    allowed = {
        field: parameters[name]
        for field, name in spec.choices.items()
        if name in parameters
    }
    golden = load_golden(path, allowed=allowed)
    return GoldenStep(spec, GoldenSet(path, golden.examples[:limit]), parameters)


def _output_model(name: str, path: Path) -> type[BaseModel]:
    """Import an output model by its name, such as `flows.contract_intake:ContractTerms`."""
    try:
        model = resolve_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"returns: there is no '{name}' ({error})", path=path
        ) from None
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise ConfigError(f"returns: '{name}' is not an output model", path=path)
    return model
