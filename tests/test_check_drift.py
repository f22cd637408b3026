"""What flows ask of steps, held against the parameters that golden sets are measured with."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tasks.classify import classify
from tests.kit.projects import make_project, model
from tests.kit.terminal import Terminal
from tierwise.lint.call_parameters import (
    CallDrift,
    call_differences,
    drift_findings,
    step_calls,
)
from tierwise.steps.golden_settings import GoldenSettings
from tierwise.text.yaml import parse_yaml

MEASURED = GoldenSettings(
    parameters={
        "labels": ["billing", "delivery"],
        "max_words": 50,
        "descriptions": {"a": "b"},
    }
)
HEAD = """
from prefect import unmapped
from pydantic import BaseModel
from tasks.classify import classify
import tasks.classify as steps

TOPICS = {"billing": 1, "delivery": 2}
SETTINGS = {"words": 50}

class Other(BaseModel):
    text: str

class Asking:
    @classmethod
    def labels(cls):
        return ["billing", "delivery"]

def computed():
    raise SystemExit("nobody runs this")

"""
RIGHT = "labels=unmapped(list(TOPICS)), max_words=unmapped(50), descriptions=unmapped({'a': 'b'})"


def asked(
    tmp_path: Path,
    body: str,
    signature: str = "batches, words=50, limit=20, *, labels=('billing',)",
) -> Any:
    """The calls in a flow with this body, each with its line below the flow's first and its differences."""
    path = tmp_path / "some_flow.py"
    path.write_text(
        HEAD
        + f"def some_flow({signature}):\n"
        + "".join(f"    {line}\n" for line in body.splitlines())
    )
    spec = importlib.util.spec_from_file_location("some_flow", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    first = (HEAD + "def").count("\n") + 1
    return [
        (c.line - first, call_differences(c, classify.spec, MEASURED))
        for c in step_calls(module, path)
    ]


@pytest.mark.parametrize(
    "call",
    [
        f"classify.map(batches, {RIGHT})",
        f"classify.map(batches, {RIGHT}, only=unmapped(len), wait_for=[batches])",
        "classify.submit(batches, labels=('billing', 'delivery'), max_words=50, descriptions={'a': 'b'})",
        "classify(batches, labels=[*'ab'], max_words=SETTINGS['words'], descriptions=dict({'a': 'b'}))",
        "steps.classify.map(batches, labels=unmapped(Asking.labels()), max_words=words, descriptions=unmapped(limit2))",
        "classify.map(batches, labels=['billing', 'delivery'], max_words=50, descriptions=computed())",
        "limit = 7\nclassify.map(batches, labels=unmapped([*TOPICS]), max_words=limit, descriptions=unmapped(batches))",
        "classify.map(batches, **SETTINGS)",
        "print(TOPICS)",
    ],
)
def test_what_fits_or_what_a_run_alone_can_tell_is_no_drift(
    tmp_path: Path, call: str
) -> None:
    """Whatever the way in which a flow names the same values; the flow and its functions are not run."""
    assert all(found == () for _, found in asked(tmp_path, call))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (
            f"classify.map(batches, {RIGHT.replace('50', '90')})",
            ("max_words 90 in place of 50",),
        ),
        (
            f"classify.map(batches, {RIGHT.replace('list(TOPICS)', '[*TOPICS]')}, tone='kind')",
            ("tone as well",),
        ),
        (
            "classify.map(batches, labels=unmapped(['x']), max_words=limit)",
            ("other labels", "max_words 20 in place of 50", "no descriptions"),
        ),
        (
            "classify.map(batches, labels=unmapped(labels), **SETTINGS)",
            ("other labels",),
        ),
        (
            f"classify.map(batches, returns=unmapped(Other), {RIGHT})",
            ("another output model",),
        ),
    ],
)
def test_what_differs_is_told_by_name(
    tmp_path: Path, call: str, told: tuple[str, ...]
) -> None:
    """Constants, names of the module and defaults of the flow's own parameters."""
    assert asked(tmp_path, f"batches = 1\n\n{call}") == [(3, told)]


def test_a_second_use_of_a_step_is_told_only_where_a_certificate_could_be_missed(
    tmp_path: Path,
) -> None:
    """Where no call at all is what the golden set measures, always."""
    fits, differs = (
        CallDrift("classify", tmp_path, line, other)
        for line, other in ((1, ()), (2, ("other labels",)))
    )
    assert list(drift_findings([fits, differs], ())) == []
    assert [f.line for f in drift_findings([fits, differs], {"classify"})] == [2]
    assert [f.line for f in drift_findings([differs], ())] == [2]


def test_check_tells_a_flow_that_drifted_from_its_golden_set(
    terminal: Terminal, tmp_path: Path
) -> None:
    """With the line of the call and what helps; steps without a golden set are left alone."""
    root = make_project(tmp_path / "project", model("small", "http://127.0.0.1:9"))
    for name in ("meeting_digest", "contract_intake"):
        (root / "flows" / f"{name}.py").unlink(missing_ok=True)
    (root / "golden").mkdir()
    (root / "golden" / "draft.jsonl").write_text(
        "".join(
            json.dumps({"id": str(n), "text": f"text {n}", "must_mention": []}) + "\n"
            for n in range(5)
        )
    )
    (root / "golden" / "draft.yaml").write_text(
        "parameters: {sender: the team, max_words: 70}\n"
    )
    flow = (root / "flows" / "support_inbox.py").read_text()
    line = 1 + flow[: flow.index("draft.map(")].count("\n")
    found = json.loads(terminal("check", "--json", cwd=root).out)["findings"]
    assert [
        (f["path"], f["line"], f["level"]) for f in found if f["kind"] == "drift"
    ] == [("flows/support_inbox.py", line, "warning")]
    [message] = [f["message"] for f in found if f["kind"] == "drift"]
    assert message.startswith(
        "draft gets sender 'the Larkfold support team' in place of 'the team' here, unlike in"
    )


def test_the_settings_of_a_golden_set_are_what_certify_measures_with() -> None:
    """So that the two sides of the comparison are the same kind of values."""
    text = (
        "parameters: {labels: [billing, delivery], max_words: 50, descriptions: {a: b}}"
    )
    assert parse_yaml(text, "golden.yaml").validate(GoldenSettings) == MEASURED
