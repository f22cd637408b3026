"""The report's page when every name and text in the ledger tries to be more than text."""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.kit.ledgers import RUN, migrated_url
from tests.kit.projects import make_project, model
from tests.kit.reported_runs import LARGE, SMALL, TODAY, Page, proof, record
from tierwise.ledger import Ledger
from tierwise.policy.catalog import Catalog, load_catalog
from tierwise.records import Choice, Rejection, Route, Verdict
from tierwise.report.build import build_report
from tierwise.report.document_rows import document_rows
from tierwise.report.figures import ProjectFacts
from tierwise.report.page import render_page
from tierwise.text.escape import escape_control

BREAKOUTS = (
    "</script><script>alert(1)</script>",
    "</SCRIPT ><img src=x onerror=alert(1)>",
    "<!--<script>",
    "-->",
    "]]>",
    "</style></title></textarea></select>",
    '" autofocus onfocus="alert(1)',
    "' style='display:none",
    "`${alert(1)}`",
    "{{ 7*7 }}{% raw %}",
    "&lt;script&gt;&#60;&quot;",
    "javascript:alert(1)",
    "\u202egnp.exe\u202c\u2066\u200f\u061c",
    "\x00\x08\x0b\x0c\x1b[2J\x7f\x9b\r\u2028\u2029\ufeff",
    "\ud800\udfff\udcff",
    "W" * 300,
    "\\u003c/script\\u003e",
)
# what turns the direction of writing, or is no character of a page
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
NAMES = (
    "flow",
    "tag",
    "value",
    "id",
    "step",
    "tier",
    "model",
    "check",
    "reason",
    "rule",
    "answer",
    "error",
    "language",
)


def pieces(*breakouts: str, **alphabet: Any) -> st.SearchStrategy[str]:
    piece = st.sampled_from(breakouts) | st.text(st.characters(**alphabet), max_size=8)
    return st.lists(piece, min_size=1, max_size=3).map("".join).filter(bool)


# names that stand in a project's files have no control and no half characters: YAML has none
WRITTEN = pieces(
    *(text for text in BREAKOUTS if text.isprintable()), exclude_categories=("Cc", "Cs")
)
FOUND = pieces(*BREAKOUTS, codec=None, exclude_categories=())
TEXTS = st.fixed_dictionaries(
    {name: WRITTEN if name in ("step", "tier", "model") else FOUND for name in NAMES}
)


def story(ledger: Ledger, texts: Mapping[str, str], run_id: str = RUN.id) -> None:
    """A run with one document that was escalated, one that failed and one that waits, all in these words."""
    step, name, why = texts["step"], texts["model"], texts["reason"]
    route = Route(
        step=step,
        rule=texts["rule"],
        models=(name,),
        reason=why,
        rejected=(Rejection(name, why, "guard", detail=name),),
        choices=(Choice(name, None, why),),
        features={"tokens": 5, "language": texts["language"]},
    )
    row = {"step": step, "tier": texts["tier"], "model": name}
    planned = {"documents": 1.0, "calls": 1.0, "expected": "0.1", "expected_unknown": 0}
    plan = {
        "documents": 1,
        "expected": "0.1",
        "expected_unknown": 0,
        "rows": [{**row, **planned}],
    }
    tags = {texts["tag"]: texts["value"]}
    ledger.start_run(replace(RUN, id=run_id, flow=texts["flow"], tags=tags, plan=plan))
    failed = {**SMALL, **row, "error": texts["error"], "error_text": why, "usage": None}
    bad = {**SMALL, **row, "verdicts": (Verdict(texts["check"], False, why),)}
    escalated = {**LARGE, **row, "kind": "escalation"}
    outcome = {
        "step": step,
        "model": name,
        "route": route,
        "value": {texts["answer"]: [texts["answer"]]},
    }
    record(ledger, texts["id"], bad, escalated, run_id=run_id, **outcome)
    record(ledger, f"{texts['id']}#2", failed, bad, run_id=run_id, **outcome)
    record(
        ledger,
        f"{texts['id']}#3",
        bad,
        run_id=run_id,
        **outcome | {"status": "deferred", "value": None, "reason": why},
    )


@functools.cache
def catalog() -> Catalog:
    """One model with a price."""
    with tempfile.TemporaryDirectory(prefix="tierwise-test-") as folder:
        root = make_project(
            Path(folder) / "project", model("large", "http://127.0.0.1:1")
        )
        return load_catalog(root / "routing_rules" / "catalog.yaml")


def shown(**texts: str) -> str:
    """The page of a run in these words."""
    told = proof("large", errors=1)
    certificate = told.certificate.model_copy(
        update={"step": texts["step"], "models": (texts["model"],)}
    )
    facts = ProjectFacts(
        catalog=catalog(),
        floors={texts["step"]: 0.9},
        certificates=(replace(told, certificate=certificate, void=texts["reason"]),),
    )
    with tempfile.TemporaryDirectory(prefix="tierwise-test-") as folder:
        root = Path(folder)
        with Ledger.open(migrated_url("sqlite", root), root=root) as ledger:
            story(ledger, texts)
            runs = [ledger.runs.resolve(RUN.id)]
            return render_page(
                build_report(ledger, runs, facts, TODAY), document_rows(ledger, runs)
            )


@functools.cache
def harmless() -> Page:
    """The same page in words that mean nothing to a browser."""
    return Page(shown(**{name: f"some {name}" for name in NAMES}))


@settings(
    max_examples=20,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[*HealthCheck],
)
@given(TEXTS)
def test_no_text_adds_an_element_or_an_attribute_or_ends_the_data(
    texts: dict[str, str],
) -> None:
    """The page has the same elements and attributes as one in harmless words, and the receipts hold the texts."""
    html = shown(**texts)
    found = Page(html)
    assert found.tags == harmless().tags
    assert not CONTROLS.search(html)
    assert found.data["documents"][0][0] == escape_control(texts["id"])
    assert {texts["step"], texts["tier"], texts["model"]} <= set(found.data["texts"])
