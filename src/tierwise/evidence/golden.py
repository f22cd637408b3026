"""Golden sets: labelled examples that say what a right answer is, and others that a model may be shown.

`golden/<step>.jsonl` is measured on; `golden/<step>-examples.jsonl` is shown; `golden/<step>.yaml` holds the
parameters that both are for. A row has `id`, `text`, optionally `sensitivity`, and the fields of a right answer.
A CSV file does too: its other columns are the fields, and a row without an `id` is called after its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from tierwise.text.settings import Settings
from tierwise.text.yaml import read_yaml


class GoldenSettings(Settings):
    """`golden/<step>.yaml`: the step's parameters, as a flow gives them."""

    parameters: Mapping[str, Any] = Field(
        {}, description="The step's parameters, as in `step.map(…, labels=…)`."
    )
    returns: str | None = Field(
        None,
        description="The output model that a flow gives, such as `flows.contract_intake:ContractTerms`.",
    )
    rubric: tuple[str, ...] = Field(
        (), description="Criteria for a judge, beside what the step says is right."
    )


def load_settings(path: Path) -> GoldenSettings:
    """What a `golden/<step>.yaml` says; nothing where there is no such file."""
    return read_yaml(path).validate(GoldenSettings) if path.exists() else GoldenSettings()
