"""prefect.yaml: one deployment a flow, and each can be loaded and takes its parameters; folders that are watched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.kit.letters import age
from tests.kit.projects import ROOT, make_project, model
from tests.kit.standin import Standin
from tests.kit.terminal import Terminal
from tierwise.project import Project
from tierwise.text.yaml import read_yaml

DEPLOYMENTS: list[dict[str, Any]] = read_yaml(ROOT / "prefect.yaml").data["deployments"]


def test_every_flow_has_a_deployment() -> None:
    entrypoints = {deployment["entrypoint"] for deployment in DEPLOYMENTS}
    assert entrypoints == {
        f"flows/{name}.py:{name}" for name in Project(ROOT).flow_names()
    }


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: d["name"])
def test_a_deployments_flow_loads_and_takes_its_parameters(
    deployment: dict[str, Any],
) -> None:
    from prefect.flows import load_flow_from_entrypoint

    flow = load_flow_from_entrypoint(str(ROOT / deployment["entrypoint"]))
    flow.validate_parameters(deployment["parameters"])
    assert flow.name == deployment["name"]


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    root = make_project(
        tmp_path / "p", model("small", standin.url), model("large", standin.url)
    )
    (root / "inbox").mkdir()
    (root / "inbox" / "a.txt").write_text("My desk has not arrived.")
    return root


def watch(terminal: Terminal, root: Path, folder: str = "inbox") -> list[str]:
    """Look at the folder once, when its files are written; gives the ids that the results hold."""
    for path in (root / folder).rglob("*"):
        age(path)
    command = (
        "run",
        "support_inbox",
        "--source",
        folder,
        "--out",
        "out",
        "--only-new",
        "true",
    )
    done = terminal(*command, cwd=root)
    assert done.code == 0, done.err
    lines = root / "out" / "outcomes.jsonl"
    return (
        [json.loads(line)["id"] for line in lines.read_text().splitlines()]
        if lines.exists()
        else []
    )


def test_a_watched_folder_is_asked_only_for_what_is_new(
    prefect_server: str, terminal: Terminal, project: Path, standin: Standin
) -> None:
    """What was done before, or waits, is left alone; its results stay beside the new ones."""
    (project / "inbox" / "empty.txt").write_text("")
    assert watch(terminal, project) == ["a.txt", "empty.txt"]
    assert watch(terminal, project) == ["a.txt", "empty.txt"]
    assert standin.count == 3
    (project / "inbox" / "b.txt").write_text("The chair came without its legs.")
    assert watch(terminal, project) == ["b.txt", "a.txt", "empty.txt"]
    assert standin.count == 6


def test_a_document_that_changed_is_new_and_its_results_take_the_old_ones_place(
    prefect_server: str, terminal: Terminal, project: Path, standin: Standin
) -> None:
    watch(terminal, project)
    (project / "inbox" / "a.txt").write_text("My desk has arrived, but it is broken.")
    assert watch(terminal, project) == ["a.txt"]
    assert standin.count == 6
    assert "broken" in (project / "out" / "outcomes.jsonl").read_text()


def test_two_documents_of_the_same_text_are_both_there(
    prefect_server: str, terminal: Terminal, project: Path
) -> None:
    """Another one who writes the same words is not left out."""
    watch(terminal, project)
    (project / "inbox" / "b.txt").write_text("My desk has not arrived.")
    assert watch(terminal, project) == ["b.txt", "a.txt"]


def test_a_watched_folder_may_be_empty_but_not_missing(
    prefect_server: str, terminal: Terminal, project: Path
) -> None:
    (project / "nothing").mkdir()
    assert watch(terminal, project, "nothing") == []
    done = terminal(
        "run", "support_inbox", "--source", "no/such", "--only-new", "true", cwd=project
    )
    assert done.code == 2


def test_a_schedule_keeps_its_parameters_with_the_deployment() -> None:
    """Prefect forgets a schedule's own parameters when somebody pauses or resumes it; all start paused."""
    for deployment in DEPLOYMENTS:
        for schedule in deployment["schedules"]:
            assert "parameters" not in schedule
            assert schedule["active"] is False


def test_the_form_of_a_deployment_says_what_each_parameter_means() -> None:
    """Prefect's UI makes it from the flow's signature and docstring."""
    for name in Project(ROOT).flow_names():
        fields = Project(ROOT).load_flow(name).parameters.properties
        assert all(field["description"] for field in fields.values())
        assert fields["budget_usd"]["minimum"] == 0
        assert fields["sensitivity"]["enum"] == [
            "public",
            "internal",
            "confidential",
            "restricted",
        ]
