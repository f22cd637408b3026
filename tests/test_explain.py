"""`tierwise explain`: what happened comes from the ledger alone; what would happen, from the router here and now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.golden_sets import DEAR, right
from tests.kit.letters import classify, letter
from tests.kit.projects import ROOT, make_project, model
from tests.kit.samples import (
    CLASSIFY,
    ENOUGH,
    FREE,
    Office,
    documents,
    label_all,
    opened,
    proven,
)
from tests.kit.standin import Standin, status
from tests.kit.steps import LABELS
from tests.kit.terminal import Terminal
from tierwise.documents import read_documents
from tierwise.engine import Engine
from tierwise.evidence.training.labelled import Labelled
from tierwise.evidence.training.train import train
from tierwise.gateway.learned.files import save as save_classifier
from tierwise.gateway.learned.files import trained_file
from tierwise.project import Project

RULES = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
floors: {classify: 0.9}
routes:
  - {name: complaints, when: {step: classify, outcomes: {"extract.kind": [complaint]}}, try: [away]}
  - {name: sorting, try: [away, small, large]}
"""


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    """`away` is not local; `small` costs a tenth of `large`."""
    standin.answer(right)
    return make_project(
        tmp_path,
        model("away", standin.url, tier="proprietary", strength=30),
        model("small", standin.url),
        model("large", standin.url, strength=20, price=DEAR),
        rules=RULES,
    )


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with opened(tmp_path / "office") as made:
        yield made


def explained(terminal: Terminal, root: Path, *arguments: object) -> str:
    done = terminal("explain", *arguments, cwd=root)
    assert done.code == 0, done.err
    assert all(len(line) <= 80 for line in done.out.splitlines())
    return done.out


def data(terminal: Terminal, root: Path, *arguments: object) -> dict[str, Any]:
    done = terminal("explain", *arguments, "--json", cwd=root)
    assert done.code == 0, done.err
    [found] = json.loads(done.out)
    return dict(found)


# ---- what happened ------------------------------------------------------------------------------


def test_it_tells_a_decision_in_its_order(
    terminal: Terminal, project: Path, standin: Standin
) -> None:
    """Features, guards, route, candidates, what was left out, calls with their checks, outcome."""
    standin.answer(
        json.dumps({"label": "billing", "evidence": "words of its own"}), right
    )
    classify(
        project,
        letter(sensitivity="confidential", language="en", metadata={"desk": "claims"}),
    )
    text = explained(terminal, project, "mail-07")
    parts = [
        "classify of mail-07.txt, as it was in run",
        "Accepted from large, 2 calls, 0.",
        "; confidential; language en; normal",
        "desk=claims",
        "Guards    confidential-stays-local",
        "Route     sorting: the order that the route names",
        "1. small  about 0.",
        "2. large  about 0.",
        "Left out",
        "away",
        "guard confidential-stays-local: what is confidential may only go to local",
        "What happened",
        "1. small  first call: answered in",
        'said {"label": "billing", "evidence": "words of its own"}',
        "failed grounding:",
        "2. large  escalation, after a failed check: answered in",
        "passed schema, label, grounding",
        'accepted from large: {"label": "billing"',
    ]
    places = [text.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert places == sorted(places)


def test_it_is_what_happened_and_not_what_would_happen_now(
    terminal: Terminal, project: Path
) -> None:
    """With other rules, and a model less, the run of yesterday stays as it was."""
    classify(project, letter())
    before = explained(terminal, project, "mail-07")
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(
        rules.read_text()
        .replace("try: [away, small, large]", "try: [large]")
        .replace("0.9", "0.5")
    )
    assert explained(terminal, project, "mail-07") == before


def test_everything_is_there_as_data(terminal: Terminal, project: Path) -> None:
    classify(project, letter(sensitivity="confidential"))
    found = data(terminal, project, "mail-07", "classify")
    assert found["guards"] == ["confidential-stays-local"]
    assert [choice["model"] for choice in found["choices"]] == ["small", "large"]
    assert found["features"]["sensitivity"] == "confidential"
    [attempt] = found["attempts"]
    assert (attempt["model"], attempt["kind"]) == ("small", "first")
    assert json.loads(attempt["text"]) == found["outcome"]["value"]
    assert len(found["policy_hash"]) == 64


def test_a_fault_and_a_fallback_are_told_apart_from_an_escalation(
    terminal: Terminal, project: Path, standin: Standin
) -> None:
    standin.faults([status(401, "no such key")])
    classify(project, letter())
    text = explained(terminal, project, "mail-07")
    assert "1. away   first call: AuthenticationFailed:" in text
    assert "2. small  fallback, after a provider's fault:" in text


def test_an_answer_that_was_paid_before_says_so(
    terminal: Terminal, project: Path
) -> None:
    classify(project, letter())
    classify(project, letter())
    assert "1. away  first call: an answer paid for before, reused" in explained(
        terminal, project, "mail-07"
    )


def test_a_deferred_document_says_what_it_waits_for(
    terminal: Terminal, project: Path, standin: Standin
) -> None:
    standin.answer("no JSON at all")
    classify(project, letter())
    text = explained(terminal, project, "mail-07")
    assert "Deferred, 6 calls" in text
    assert "repair, with the fault shown" in text
    assert "deferred: away: schema:" in text


def test_a_shadow_is_told_apart(terminal: Terminal, office: Office) -> None:
    """It is no part of the way to the outcome."""
    office.made().run(documents(1))
    text = explained(terminal, office.root, "d000")
    assert "Accepted from dear, 1 call, " in text
    assert text.index("Outcome") < text.index(
        "Shadow calls, for comparison; they changed nothing"
    )
    found = data(terminal, office.root, "d000")
    assert [attempt["model"] for attempt in found["attempts"]] == ["dear"]
    assert [attempt["model"] for attempt in found["shadow"]] == ["cheap"]


def test_a_demoted_certificate_is_the_reason_that_is_shown(
    terminal: Terminal, office: Office
) -> None:
    proven(office).run(documents(ENOUGH))
    label_all(office)
    office.run(documents(1))
    text = " ".join(explained(terminal, office.root, "d000").split())
    assert "its certificate is void" in text
    assert "audits failed: the accuracy is below the floor of 0.9" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mail-99"], "known: mail-07.txt, mail-08.txt"),
        (
            ["mail-"],
            "'mail-' fits several documents: mail-07.txt, mail-08.txt; give more of the id",
        ),
        (["mail-07", "clasify"], "did you mean 'classify'?"),
        (["mail-07", "--run", "1999"], "no run named '1999'"),
        ([], "name a document"),
        (["mail-07", "--step", "classify"], "name a document"),
        (["--step", "clasify"], "did you mean 'classify'?"),
        (
            ["--step", "classify", "--sensitivity", "secret"],
            "--sensitivity: Input should be 'public', 'internal'",
        ),
        (["--step", "classify", "--tag", "desk"], "--tag takes NAME=VALUE, not 'desk'"),
        (
            ["--step", "classify", "--outcome", "label=x"],
            "--outcome takes STEP.FIELD=VALUE",
        ),
        (
            ["--step", "classify", "--budget-left", "much"],
            "--budget-left takes an amount of USD",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_question_that_cannot_be_answered_is_misuse(
    terminal: Terminal, project: Path, arguments: list[str], says: str
) -> None:
    classify(project, letter("mail-07.txt"), letter("mail-08.txt"))
    done = terminal("explain", *arguments, cwd=project)
    assert done.code == 2
    assert says in done.err


def test_a_document_that_a_run_has_not_reached_yet_is_no_misspelling(
    terminal: Terminal, project: Path
) -> None:
    with Engine(Project(project)) as engine:
        run = engine.start_run("test")
        done = terminal("explain", "mail-07.txt", cwd=project)
        engine.finish_run(run, "Completed")
    assert done.code == 2
    assert run.id in done.err
    assert "has not ended" in done.err
    assert "--run" in done.err


def test_the_words_that_decided_are_shown_for_a_trained_classifier(
    terminal: Terminal, tmp_path: Path
) -> None:
    """Read again from the document's file, since the ledger holds no text."""
    root = make_project(
        tmp_path / "p", rules="version: 1\nroutes:\n  - {name: all, try: [trained]}\n"
    )
    catalog = root / "routing_rules" / "catalog.yaml"
    settings = (
        f"context_tokens: 9000, max_output_tokens: 100, price: {FREE}, strength: 5"
    )
    catalog.write_text(
        f"{catalog.read_text()}  trained: {{tier: local, learned: classify, {settings}}}\n"
    )
    about = {"billing": "my invoice is wrong", "delivery": "my parcel is late"}
    texts = [
        Labelled(f"{n} {label}", f"Hello, {words}, number {n}", label)
        for n in range(12)
        for label, words in about.items()
    ]
    save_classifier(train(texts), trained_file(root, "trained"))
    (root / "inbox").mkdir()
    (root / "inbox" / "a.txt").write_text("Hello, my parcel is late again")
    with Engine(Project(root), env={}) as engine:
        [batch] = read_documents(root / "inbox", sensitivity="internal")
        engine.run_batch(
            engine.start_run("inbox", parameters={"source": "inbox"}),
            CLASSIFY,
            batch,
            LABELS,
        )
    text = explained(terminal, root, "a.txt")
    assert "Accepted from trained, 1 call, free." in text
    assert "words that decided: " in text
    assert "parcel +" in text
    (root / "inbox" / "a.txt").write_text("Something else by now")
    assert "words that decided" not in explained(terminal, root, "a.txt")


# ---- what would happen --------------------------------------------------------------------------


@pytest.fixture
def unlisted(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`away` needs a key that is not set."""
    catalog = project / "routing_rules" / "catalog.yaml"
    text = catalog.read_text()
    start = text.index("  away:")
    catalog.write_text(
        text[:start]
        + text[start:].replace("api_key: test", 'api_key: "${AWAY_KEY}"', 1)
    )
    monkeypatch.delenv("AWAY_KEY", raising=False)
    return project


def test_now_it_says_what_is_not_available_here(
    terminal: Terminal, unlisted: Path
) -> None:
    text = explained(
        terminal, unlisted, "--step", "classify", "--sensitivity", "internal"
    )
    assert "small would be asked first." in text
    assert "unavailable: set AWAY_KEY" in text
    assert "Guards    none applies" in text


def test_now_without_a_word_on_sensitivity_the_document_is_restricted(
    terminal: Terminal, project: Path
) -> None:
    found = data(terminal, project, "--step", "classify")
    assert (found["features"]["sensitivity"], found["guards"]) == (
        "restricted",
        ["confidential-stays-local"],
    )
    assert [choice["model"] for choice in found["choices"]] == ["small", "large"]


def test_now_every_feature_may_decide(terminal: Terminal, project: Path) -> None:
    """An earlier outcome takes another route; a small budget leaves the dear model out; nothing left is deferred."""
    complaint = (
        "--step",
        "classify",
        "--sensitivity",
        "internal",
        "--outcome",
        "extract.kind=complaint",
    )
    found = data(
        terminal,
        project,
        *complaint,
        "--tag",
        "desk=claims",
        "--language",
        "de",
        "--stakes",
        "high",
    )
    assert (found["rule"], found["earlier"]) == (
        "complaints",
        {"extract": {"kind": "complaint"}},
    )
    assert found["features"]["tags"] == {"desk": "claims"}
    poor = explained(
        terminal,
        project,
        "--step",
        "classify",
        "--budget-left",
        "0.003",
        "--tokens",
        "100",
    )
    assert "large\n    may cost" in poor
    assert "It would be deferred" in explained(
        terminal, project, "--step", "classify", "--budget-left", "0"
    )


def test_now_it_calls_nobody(
    terminal: Terminal, project: Path, standin: Standin
) -> None:
    explained(terminal, project, "--step", "classify")
    assert standin.count == 0


def test_now_it_works_for_every_step_of_the_shipped_project(terminal: Terminal) -> None:
    for step in ("classify", "summarize", "extract", "draft"):
        assert f"{step}, decided now" in explained(terminal, ROOT, "--step", step)
