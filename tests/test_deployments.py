"""prefect.yaml: one deployment a flow, and each can be loaded and takes its parameters."""

from __future__ import annotations

from typing import Any

import pytest

from tests.projects import ROOT
from tierwise.project import Project
from tierwise.yamlfile import read_yaml

DEPLOYMENTS: list[dict[str, Any]] = read_yaml(ROOT / "prefect.yaml").data["deployments"]


def test_every_flow_has_a_deployment() -> None:
    entrypoints = {deployment["entrypoint"] for deployment in DEPLOYMENTS}
    assert entrypoints == {f"flows/{name}.py:{name}" for name in Project(ROOT).flow_names()}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_a_deployments_flow_loads_and_takes_its_parameters(deployment: dict[str, Any]) -> None:
    from prefect.flows import load_flow_from_entrypoint

    flow = load_flow_from_entrypoint(str(ROOT / deployment["entrypoint"]))
    flow.validate_parameters(deployment["parameters"])
    assert flow.name == deployment["name"]
