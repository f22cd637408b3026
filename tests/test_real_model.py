"""Through the real 0.5B model: weights, embedded server, gateway, cascade, ledger. Needs its weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kit.projects import ROOT, make_project
from tierwise.engine import Engine
from tierwise.gateway.local import weights_present
from tierwise.project import Project
from tierwise.records import Batch, Document
from tierwise.steps.checks import label_is_allowed
from tierwise.steps.step import Step

pytestmark = [pytest.mark.real_model, pytest.mark.timeout(600)]

RULES = """
version: 1
routes: [{name: all, try: [qwen-0.5b]}]
"""
TEXT = (
    "Dear team, my desk was delivered on Monday with a broken leg. The motor makes a grinding noise and it does not "
    "go up any more. Please send a new leg. Kind regards, Jo"
)


def test_the_smallest_model_classifies_a_message(tmp_path: Path) -> None:
    """An accepted outcome with a label from the list, and the model's reported usage and cost."""
    from tasks.classify import Classification

    catalog = Project(ROOT).catalog
    if not weights_present(catalog.model("qwen-0.5b").weights, os.environ):  # type: ignore[arg-type]
        pytest.skip("the weights are not here; run `tierwise fetch qwen-0.5b`")
    root = make_project(tmp_path, rules=RULES)
    (root / "routing_rules" / "catalog.yaml").write_text(
        (ROOT / "routing_rules" / "catalog.yaml").read_text()
    )
    step = Step(
        name="classify",
        returns=Classification,
        prompt="classify",
        choices={"label": "labels"},
        checks=(label_is_allowed,),
    )
    parameters = {"labels": ["billing", "delivery", "defect"], "descriptions": {}}
    with Engine(Project(root), env=os.environ) as engine:
        run = engine.start_run("test")
        done = engine.run_batch(
            run, step, Batch((Document(id="a", text=TEXT),)), parameters
        )
    outcome = done.load()[0].outcomes["classify"]
    assert outcome.attempts
    attempt = outcome.attempts[0]
    assert attempt.error is None
    assert attempt.usage is not None
    assert attempt.usage.prompt_tokens > 100
    assert attempt.cost is not None
    assert attempt.cost > 0
    assert attempt.verdicts[0].check == "schema"
    assert attempt.verdicts[0].passed
    assert outcome.status == "accepted"
    assert outcome.value["label"] in parameters["labels"]
