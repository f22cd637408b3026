"""Thresholds: a model that says how sure it is may hand on the rest, and what that delivers is certified."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.golden_sets import (
    DEAR,
    RULES,
    WORDS,
    certify,
    right,
    route_one,
    write_golden,
)
from tests.kit.projects import make_project, model
from tests.kit.standin import Fault, Request, Standin
from tests.kit.terminal import Terminal
from tierwise.evidence.certify.compare import FIT
from tierwise.evidence.training.labelled import split
from tierwise.policy.certificates import load_certificates
from tierwise.project import CERTIFICATES
from tierwise.steps.examples import load_golden

COUNT = 150


def rows() -> list[dict[str, str]]:
    """Messages of which every fifth is hard."""
    labels = list(WORDS)
    return [
        {
            "id": f"g{n}",
            "text": f"Message {n}: {WORDS[labels[n % 2]]}, {'hard to say' if n % 5 == 0 else 'please help'}.",
            "label": labels[n % 2],
        }
        for n in range(COUNT)
    ]


def wrong(request: Request) -> str:
    answer = json.loads(right(request))
    return json.dumps(
        {**answer, "label": "delivery" if answer["label"] == "billing" else "billing"}
    )


def unsure(request: Request) -> Fault:
    """A model that is wrong on what is hard, and knows it."""
    hard = "hard to say" in request.document
    return Fault(
        text=wrong(request) if hard else right(request),
        probability=0.4 if hard else 0.95,
    )


@pytest.fixture
def servers() -> Iterator[tuple[Standin, Standin]]:
    with Standin() as cheap, Standin() as dear:
        cheap.answer(unsure)
        dear.answer(right)
        yield cheap, dear


@pytest.fixture
def project(tmp_path: Path, servers: tuple[Standin, Standin]) -> Path:
    cheap, dear = servers
    root = make_project(
        tmp_path / "project",
        model("cheap", cheap.url, strength=10) + "    confidence: true\n",
        model("dear", dear.url, strength=20, price=DEAR),
        rules=RULES,
    )
    write_golden(root, rows())
    return root


def measured_part(root: Path) -> list[str]:
    """The texts on which no threshold is fitted."""
    return [
        e.text
        for e in split(
            load_golden(root / "golden" / "classify.jsonl").examples, FIT, "threshold"
        )[1]
    ]


def test_what_a_model_is_sure_of_is_certified_where_the_whole_misses_the_floor(
    terminal: Terminal, project: Path
) -> None:
    """Fitted on one part of the golden set, certified on the other, and both tries count as compared."""
    plain, sure = certify(terminal, project, "-m", "cheap")
    assert (plain["right"], plain["n"], plain["capable"], plain["certified"]) == (
        120,
        150,
        False,
        False,
    )
    easy = [text for text in measured_part(project) if "hard" not in text]
    assert (sure["right"], sure["n"], sure["certified"]) == (len(easy), len(easy), True)
    [found] = load_certificates(project / CERTIFICATES).certificates
    assert found.models == ("cheap",)
    assert (found.n, found.errors, found.compared) == (len(easy), 0, 2)
    assert found.threshold == pytest.approx(0.95)
    assert found.coverage == pytest.approx(len(easy) / len(measured_part(project)))


def test_production_hands_on_what_the_certificate_says(
    terminal: Terminal, project: Path, servers: tuple[Standin, Standin]
) -> None:
    certify(terminal, project)
    assert route_one(project, "my invoice is wrong, please help me").model == "cheap"
    hard = route_one(project, "my invoice is wrong, hard to say why")
    assert (hard.model, hard.value["label"]) == ("dear", "billing")
    assert hard.attempts[0].verdicts[-1].check == "low_confidence"


def test_a_chain_is_certified_with_the_threshold_as_what_it_delivers(
    terminal: Terminal, project: Path, servers: tuple[Standin, Standin]
) -> None:
    """Without one, the wrong answers pass all checks; with it, all of the other part is right."""
    plain, sure = certify(terminal, project, "-m", "cheap > dear")
    assert (plain["right"], plain["n"]) == (120, 150)
    rest = measured_part(project)
    assert (sure["right"], sure["n"]) == (len(rest), len(rest))
    assert sure["candidate"] == "cheap if 0.95 sure > dear"
    [found] = load_certificates(project / CERTIFICATES).certificates
    assert (found.models, found.n, found.deferred) == (("cheap", "dear"), len(rest), 0)
    hard = sum("hard" in text for text in rest)
    assert found.coverage == pytest.approx(1 - hard / len(rest))
    assert (servers[0].count, servers[1].count) == (COUNT, hard)


def test_a_threshold_costs_no_call_that_was_not_needed_anyway(
    terminal: Terminal, project: Path, servers: tuple[Standin, Standin]
) -> None:
    certify(terminal, project, "-m", "cheap", "-m", "dear", "--threshold", "none")
    paid = servers[0].count + servers[1].count
    assert paid == 2 * COUNT
    certify(
        terminal, project, "-m", "cheap", "-m", "cheap > dear", "--threshold", "fit"
    )
    assert servers[0].count + servers[1].count == paid


def test_a_model_that_meets_the_floor_as_it_is_gets_no_threshold(
    terminal: Terminal, project: Path, servers: tuple[Standin, Standin]
) -> None:
    servers[0].answer(right)
    rows = certify(terminal, project, "-m", "cheap")
    assert [row["candidate"] for row in rows] == ["cheap"]
    assert rows[0]["compared"] == 2  # it could have got one


def test_confidences_that_say_nothing_give_no_threshold(
    terminal: Terminal, project: Path, servers: tuple[Standin, Standin]
) -> None:
    """Every answer equally sure: all or none is kept, and all is not good enough."""
    servers[0].answer(lambda request: Fault(text=unsure(request).text, probability=0.7))
    [row] = certify(terminal, project, "-m", "cheap")
    assert row["threshold"] is None
    assert (
        "no confidence of cheap separates right answers from wrong ones" in row["says"]
    )


def test_a_model_that_is_sure_of_wrong_answers_is_not_certified_by_a_lucky_threshold(
    terminal: Terminal, project: Path, servers: tuple[Standin, Standin]
) -> None:
    """On the part for fitting it is right wherever it is sure, on the other part it is not."""
    rest = set(measured_part(project))
    servers[0].answer(
        lambda request: Fault(
            text=wrong(request) if request.document in rest else right(request),
            probability=0.9,
        )
    )
    plain, sure = certify(terminal, project, "-m", "cheap")
    assert (sure["capable"], sure["certified"], plain["certified"]) == (
        False,
        False,
        True,
    )


def test_what_fails_a_check_is_handed_on_and_is_no_error_of_what_is_kept(
    terminal: Terminal, project: Path, servers: tuple[Standin, Standin]
) -> None:
    """A quotation that does not stand in the document escalates in production, so it does here."""
    servers[0].answer(
        lambda request: (
            Fault(
                text=json.dumps({"label": "billing", "evidence": "never said"}),
                probability=0.99,
            )
            if "Message 1:" in request.document or "Message 2:" in request.document
            else unsure(request)
        )
    )
    sure = certify(terminal, project, "-m", "cheap")[-1]
    assert sure["right"] == sure["n"]


def test_a_threshold_that_the_rules_do_not_escalate_on_is_misuse(
    terminal: Terminal, project: Path
) -> None:
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text() + "escalate: {on: [schema, label]}\n")
    done = terminal(
        "certify", "classify", "--yes", "-m", "cheap", "--threshold", "fit", cwd=project
    )
    assert done.code == 2
    assert "`low_confidence` under escalate.on" in done.err


def test_asking_a_model_for_a_threshold_that_tells_no_confidence_is_misuse(
    terminal: Terminal, project: Path, servers: tuple[Standin, Standin]
) -> None:
    done = terminal(
        "certify", "classify", "--yes", "-m", "dear", "--threshold", "fit", cwd=project
    )
    assert (done.code, servers[1].count) == (2, 0)
    assert "no threshold can be fitted" in done.err
