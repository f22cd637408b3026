"""`tierwise diff`: past decisions under other rules, with what leaves the house named first."""

from __future__ import annotations

import json
import subprocess
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.golden_sets import DEAR, right
from tests.kit.projects import make_project, model
from tests.kit.samples import CLASSIFY, Office, certify
from tests.kit.standin import Standin
from tests.kit.steps import LABELS, SUMMARIZE
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.ledger import Ledger, RunInfo
from tierwise.project import Project
from tierwise.records import Batch, Document

RULES = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
floors: {classify: 0.9}
routes:
  - {name: summaries, when: {step: summarize}, try: [large]}
  - {name: sorting, try: [small, away]}
"""


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    """Three messages sorted by `small`, two of them summarised by `large`; `away` is not local."""
    standin.answer(
        lambda request: (
            right(request)
            if "label" in str(request.schema)
            else '{"summary": "Of a parcel."}'
        )
    )
    root = make_project(
        tmp_path / "project",
        model("small", standin.url),
        model("large", standin.url, strength=20, price=DEAR),
        model("away", standin.url, tier="proprietary", strength=30),
        model("unset", "${UNSET_URL}", strength=40),
        rules=RULES,
    )
    catalog = root / "routing_rules" / "catalog.yaml"
    catalog.write_text(
        catalog.read_text().replace('"${UNSET_URL}/v1"', '"${UNSET_URL}"')
    )
    with Engine(Project(root), env={}) as engine:
        run = engine.start_run("inbox")
        documents = tuple(
            Document(
                id=f"m{n}",
                text=f"Message {n}: my invoice is wrong.",
                sensitivity=sensitivity,
            )
            for n, sensitivity in enumerate(["internal", "internal", "confidential"])
        )
        done = engine.run_batch(run, CLASSIFY, Batch(documents), LABELS)
        engine.run_batch(run, SUMMARIZE, Batch(done.load()[:2]), {"max_words": 50})
    return root


def rules(root: Path, *changes: tuple[str, str], name: str = "new.yaml") -> Path:
    """The project's rules with some changes, in a file of their own."""
    text = (root / "routing_rules" / "rules.yaml").read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = root / name
    path.write_text(text)
    return path


def diff(
    terminal: Terminal, root: Path, new: object, *options: object
) -> dict[str, Any]:
    done = terminal(
        "diff", root / "routing_rules" / "rules.yaml", new, "--json", *options, cwd=root
    )
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


def test_the_same_rules_change_nothing(terminal: Terminal, project: Path) -> None:
    found = diff(terminal, project, rules(project))
    assert (found["decisions"], found["documents"], found["moved_documents"]) == (
        5,
        3,
        0,
    )
    assert found["moves"] == found["leaves"] == []
    assert found["cost_before"] == found["cost_after"]


def test_moves_are_counted_by_step_with_what_they_save(
    terminal: Terminal, project: Path, standin: Standin
) -> None:
    """Summaries go to the model that costs a tenth: the tokens of then at the prices of now."""
    calls = standin.count
    found = diff(terminal, project, rules(project, ("try: [large]", "try: [small]")))
    assert found["moves"] == [
        {"step": "summarize", "before": "large", "after": "small", "decisions": 2}
    ]
    assert found["moved_documents"] == 2
    with Ledger.open(root=project) as ledger:
        attempts = list(ledger.runs.attempts(ledger.runs.resolve("latest").id))
    spent = sum(a.cost for a in attempts if a.cost)
    summaries = sum(a.cost for a in attempts if a.cost and a.step == "summarize")
    assert Decimal(found["cost_before"]) == spent
    assert float(found["cost_after"]) == pytest.approx(
        float(spent) - 0.9 * float(summaries)
    )
    assert standin.count == calls


def test_what_newly_leaves_the_house_is_named_first(
    terminal: Terminal, project: Path
) -> None:
    """And not what a guard keeps here."""
    new = rules(project, ("try: [small, away]", "try: [away, small]"))
    assert diff(terminal, project, new)["leaves"] == [
        {"step": "classify", "before": "small", "after": "away", "decisions": 2}
    ]
    text = terminal(
        "diff", project / "routing_rules" / "rules.yaml", new, cwd=project
    ).out
    assert text.index("LEAVES THE HOUSE: 2 decisions") < text.index("2 documents move")


def test_what_could_leave_by_a_later_model_is_counted(
    terminal: Terminal, project: Path
) -> None:
    found = diff(
        terminal, project, rules(project, ("try: [large]", "try: [large, away]"))
    )
    assert (found["leaves"], found["may_leave"], found["moves"]) == (
        [],
        {"summarize": 2},
        [],
    )


def test_what_would_wait_is_counted(terminal: Terminal, project: Path) -> None:
    """The guard leaves nothing for the confidential message."""
    found = diff(
        terminal, project, rules(project, ("try: [small, away]", "try: [away]"))
    )
    assert found["deferred"] == {"classify": 1}
    assert {
        "step": "classify",
        "before": "small",
        "after": None,
        "decisions": 1,
    } in found["moves"]


def test_what_falls_below_its_floor_is_counted(
    terminal: Terminal, project: Path, standin: Standin
) -> None:
    """`small` is certified for 0.9 and not for 0.99, `large` not at all; a floor that differs is named."""
    certify(Office(project, standin, standin), "small")
    moved = diff(
        terminal, project, rules(project, ("try: [small, away]", "try: [large]"))
    )
    assert moved["below"] == {"classify": 3}
    raised = diff(
        terminal, project, rules(project, ("classify: 0.9", "classify: 0.99"))
    )
    assert raised["below"] == {"classify": 3}
    assert raised["floors"] == [
        {"step": "classify", "before": 0.9, "after": 0.99, "decisions": 3}
    ]


def test_earlier_outcomes_are_part_of_what_was_known(
    terminal: Terminal, project: Path
) -> None:
    by_label = "try: [small]}\n  - {name: rest, when: {step: summarize}, try: [large]"
    new = rules(
        project,
        (
            "{step: summarize}, try: [large]",
            f'{{step: summarize, outcomes: {{"classify.label": [billing]}}}}, {by_label}',
        ),
    )
    assert diff(terminal, project, new)["moves"][0]["decisions"] == 2


def test_a_model_that_could_not_be_used_then_is_not_used_now(
    terminal: Terminal, project: Path
) -> None:
    """Wherever the comparison is made."""
    with Engine(Project(project), env={}) as engine:
        path = project / "routing_rules" / "rules.yaml"
        path.write_text(
            path.read_text().replace("try: [small, away]", "try: [unset, small]")
        )
    with Engine(Project(project), env={}) as engine:
        document = Document(
            id="later", text="my invoice is wrong", sensitivity="internal"
        )
        engine.run_batch(
            engine.start_run("inbox"), CLASSIFY, Batch((document,)), LABELS
        )
    found = diff(
        terminal,
        project,
        rules(project, ("[unset, small]", "[unset, large]")),
        "--run",
        "latest",
    )
    assert found["moves"] == [
        {"step": "classify", "before": "small", "after": "large", "decisions": 1}
    ]
    assert list(found["unavailable"]) == ["unset"]


def test_prices_come_from_the_catalog_that_is_named(
    terminal: Terminal, project: Path
) -> None:
    catalog = project / "dearer.yaml"
    catalog.write_text(
        (project / "routing_rules" / "catalog.yaml")
        .read_text()
        .replace("output: 2,", "output: 200,")
    )
    usual, dearer = (
        diff(terminal, project, rules(project), *more)
        for more in ([], ["--catalog", catalog])
    )
    assert float(dearer["cost_after"]) > 2 * float(usual["cost_after"])


def test_an_unknown_price_is_counted_and_not_taken_for_nothing(
    terminal: Terminal, project: Path
) -> None:
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace(f"price: {DEAR}", "price: unknown"))
    found = diff(terminal, project, rules(project, ("try: [large]", "try: [small]")))
    assert found["unpriced"] == 2
    assert found["cost_before"] == found["cost_after"]


def test_only_runs_since_a_time_count(terminal: Terminal, project: Path) -> None:
    with Ledger.open(root=project) as ledger:
        [now] = ledger.runs.newest()
        old = time.time() - 3 * 86400
        ledger.start_run(
            RunInfo(
                id="old",
                flow="x",
                policy_hash="p",
                tierwise_version="t",
                started_at=old,
            )
        )
    assert diff(terminal, project, rules(project), "--since", "2d")["runs"] == [now.id]
    assert diff(terminal, project, rules(project), "--since", "1w")["runs"] == [
        now.id,
        "old",
    ]
    assert (
        terminal(
            "diff", rules(project), rules(project), "--run", "old", cwd=project
        ).code
        == 2
    )


def test_git_gives_the_rules_of_a_revision(terminal: Terminal, project: Path) -> None:
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"],
    ):
        subprocess.run(["git", *command], cwd=project, check=True)
    path = project / "routing_rules" / "rules.yaml"
    path.write_text(path.read_text().replace("try: [large]", "try: [small]"))
    done = terminal(
        "diff", "HEAD:routing_rules/rules.yaml", "routing_rules/rules.yaml", cwd=project
    )
    assert done.code == 0, done.err
    assert "2 documents move" in done.out
    assert "which saves" in done.out


@pytest.mark.parametrize(
    ("new", "says"),
    [
        ("missing.yaml", "there is no file missing.yaml"),
        ("HEAD:missing.yaml", "git has no HEAD:missing.yaml"),
        ("broken.yaml", "no model named 'smal'; did you mean 'small'?"),
    ],
)
def test_rules_that_cannot_be_read_are_misuse(
    terminal: Terminal, project: Path, new: str, says: str
) -> None:
    rules(project, ("small, away", "smal, away"), name="broken.yaml")
    done = terminal("diff", "routing_rules/rules.yaml", new, cwd=project)
    assert done.code == 2
    assert says in done.err


def test_a_time_that_is_none_is_misuse(terminal: Terminal, project: Path) -> None:
    done = terminal(
        "diff",
        "new.yaml",
        "new.yaml",
        "--since",
        "yesterday",
        cwd=rules(project).parent,
    )
    assert done.code == 2
    assert "30m, 12h, 7d or 4w" in done.err
