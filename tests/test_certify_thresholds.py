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
from tierwise.policy.certificates import load_certificates
from tierwise.project import CERTIFICATES

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


def test_what_a_model_is_sure_of_is_certified_where_the_whole_misses_the_floor(
    terminal: Terminal, project: Path
) -> None:
    """All golden items count: none is spent on choosing the threshold."""
    plain, sure = certify(terminal, project, "-m", "cheap")
    assert (plain["right"], plain["n"], plain["capable"], plain["certified"]) == (
        120,
        150,
        False,
        False,
    )
    assert (sure["right"], sure["n"], sure["certified"]) == (120, 120, True)
    [found] = load_certificates(project / CERTIFICATES).certificates
    assert found.models == ("cheap",)
    assert (found.n, found.errors, found.compared, found.look) == (120, 0, 1, 1)
    assert found.threshold == pytest.approx(0.95)
    assert found.coverage == pytest.approx(0.8)


def test_a_certificate_with_a_threshold_names_the_floor_it_was_made_for_and_claims_no_more(
    terminal: Terminal, project: Path
) -> None:
    """120 right answers of 120 would show .97 alone, but the threshold was found for 0.9."""
    certify(terminal, project, "-m", "cheap")
    [found] = load_certificates(project / CERTIFICATES).certificates
    assert (found.floor, found.bound) == (0.9, 0.9)
    assert not found.covers(0.901)


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
    """Without one, the wrong answers pass all checks; with it, all of them are right."""
    plain, sure = certify(terminal, project, "-m", "cheap > dear")
    assert (plain["right"], plain["n"]) == (120, 150)
    assert (sure["right"], sure["n"]) == (COUNT, COUNT)
    # the lowest of the fixed thresholds that hands on what is hard
    assert sure["candidate"] == "cheap if 0.50 sure > dear"
    [found] = load_certificates(project / CERTIFICATES).certificates
    assert (found.models, found.n, found.deferred) == (("cheap", "dear"), COUNT, 0)
    assert found.coverage == pytest.approx(0.8)
    # the strictest threshold hands on everything, and each answer is paid once
    assert (servers[0].count, servers[1].count) == (COUNT, COUNT)


def test_a_chain_that_meets_the_floor_as_it_is_asks_its_last_model_no_more(
    terminal: Terminal, project: Path, servers: tuple[Standin, Standin]
) -> None:
    servers[0].answer(right)
    [row] = certify(terminal, project, "-m", "cheap > dear")
    assert (row["certified"], row["threshold"]) == (True, None)
    assert (servers[0].count, servers[1].count) == (COUNT, 0)


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
    assert rows[0]["bound"] > 0.9  # its own bound, since no threshold was needed


def test_confidences_that_say_nothing_give_no_threshold(
    terminal: Terminal, project: Path, servers: tuple[Standin, Standin]
) -> None:
    """Every answer equally sure: all or none is kept, and all is not good enough."""
    servers[0].answer(lambda request: Fault(text=unsure(request).text, probability=0.7))
    [row] = certify(terminal, project, "-m", "cheap")
    assert row["threshold"] is None
    assert (row["capable"], row["next_floor"]) == (False, None)


def test_a_model_that_is_as_sure_of_wrong_answers_is_not_certified(
    terminal: Terminal, project: Path, servers: tuple[Standin, Standin]
) -> None:
    """Right in four of five wherever it is sure, which is less than the floor."""
    servers[0].answer(
        lambda request: Fault(
            text=unsure(request).text,
            probability=0.9 + (hash(request.document) % 9) / 100,
        )
    )
    [plain] = certify(terminal, project, "-m", "cheap")
    assert (plain["capable"], plain["threshold"]) == (False, None)


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
