"""The step example_step: labelled examples say what is right, and a stand-in answers in place of the models."""

from __future__ import annotations

from pathlib import Path

from tierwise.steps.examples import load_golden
from tierwise.testing import StandIn

GOLDEN = load_golden(
    Path(__file__).parent.parent / "golden/example_step.jsonl", at_least=1
)


def test_every_right_answer_is_accepted() -> None:
    """Render the document into the prompt, fit the answer into the schema, and pass the checks."""
    right = {example.text: example.expected for example in GOLDEN.examples}
    with StandIn(lambda request: right[request.document]) as models:
        outcomes = models.ask("example_step", *right)
    assert [
        outcome.reason for outcome in outcomes if outcome.status != "accepted"
    ] == []
    assert [outcome.value["label"] for outcome in outcomes] == [
        wanted["label"] for wanted in right.values()
    ]


def test_a_label_that_does_not_exist_is_never_accepted() -> None:
    with StandIn({"label": "no such label"}) as models:
        [outcome] = models.ask("example_step", GOLDEN.examples[0].text)
    assert outcome.status == "deferred"
    assert "no such label" in outcome.reason
