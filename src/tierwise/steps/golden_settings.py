"""Settings of golden sets: the parameters and criteria that a step's examples are for.

`golden/<step>.jsonl` is measured on, `golden/<step>-examples.jsonl` is shown to models, and
`golden/<step>.yaml` has the parameters that both are for. `steps.examples` reads the examples.
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
        description="The output model that a flow gives, "
        "such as `flows.contract_intake:ContractTerms`.",
    )
    rubric: tuple[str, ...] = Field(
        (),
        description="Criteria for a judge, in addition to the step's own definition of right.",
    )


def load_settings(path: Path) -> GoldenSettings:
    """Read a `golden/<step>.yaml`; return the defaults where there is no such file."""
    if not path.exists():
        return GoldenSettings()
    return read_yaml(path).validate(GoldenSettings)
