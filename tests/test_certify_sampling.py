"""Smaller measurements, their cost in money and time, and what they may not replace."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.extract import extract
from tests.kit.golden_sets import (
    CLASSIFY,
    RULES,
    certify,
    golden_rows,
    lazy,
    right,
    write_golden,
)
from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin
from tests.kit.terminal import Terminal
from tierwise.cli.progress import CountBar
from tierwise.evidence.certify.golden_step import random_sample
from tierwise.evidence.certify.wrong_answers import (
    Difference,
    WrongAnswer,
    wrong_answer,
)
from tierwise.policy.certificates import load_certificates
from tierwise.project import CERTIFICATES
from tierwise.records import Outcome
from tierwise.steps.correctness import mentions, rubric
from tierwise.steps.examples import Example
from tierwise.steps.step import Correct
from tierwise.text.amounts import duration


@pytest.fixture
def server() -> Iterator[Standin]:
    with Standin() as standin:
        standin.answer(right)
        yield standin


@pytest.fixture
def project(tmp_path: Path, server: Standin) -> Path:
    root = make_project(tmp_path / "project", model("cheap", server.url), rules=RULES)
    write_golden(root, golden_rows())
    return root


def certified(root: Path) -> list[tuple[int, int]]:
    """The labels and errors of every certificate."""
    found = load_certificates(root / CERTIFICATES).certificates
    return [(certificate.n, certificate.errors) for certificate in found]


def ids(examples: tuple[Example, ...]) -> set[str]:
    return {each.id for each in examples}


def example(number: int) -> Example:
    return Example(f"{number}", f"Text number {number}.", {"label": "a"})


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_sample_is_random_the_same_each_time_and_part_of_every_larger_one(
    small: int, large: int
) -> None:
    """It depends on the texts alone: not on the order of the lines, and not on other lines."""
    examples = tuple(example(number) for number in range(40))
    sample = random_sample(examples, min(small, large))
    assert len(sample) == min(small, large)
    assert ids(sample) <= ids(random_sample(examples, max(small, large)))
    assert ids(random_sample(examples[::-1], len(sample))) == ids(sample)


def test_a_sample_is_not_the_beginning_of_the_file() -> None:
    """Sets are often sorted: the first N would be of one kind."""
    examples = tuple(example(number) for number in range(1000))
    places = [int(each.id) for each in random_sample(examples, 100)]
    assert places == sorted(places)
    assert 350 < sum(places) / 100 < 650


def test_limit_measures_a_random_sample(terminal: Terminal, project: Path) -> None:
    """All invoices come first here, and a sample still has parcels."""
    rows = sorted(golden_rows(), key=lambda row: row["label"])
    write_golden(project, rows)
    [row] = certify(terminal, project, "--limit", 20)
    assert row["n"] == 20
    texts = [json.loads(json.dumps(each)) for each in rows]
    drawn = random_sample(
        tuple(Example(each["id"], each["text"], {}) for each in texts), 20
    )
    labels = {each["id"]: each["label"] for each in rows}
    assert {labels[each.id] for each in drawn} == {"billing", "delivery"}


def test_a_smaller_measurement_does_not_replace_a_larger_one(
    terminal: Terminal, project: Path, server: Standin
) -> None:
    """It says so twice, before the first call and at the end; --replace writes it."""
    certify(terminal, project)
    assert certified(project) == [(60, 0)]
    server.answer(lazy)
    done = terminal(
        "certify", "classify", "--limit", 20, "--fresh", "--yes", cwd=project
    )
    assert done.code == 0, done.err
    assert done.err.startswith(
        "The certificate of cheap rests on 60 labels and stays: "
        "this measurement has 20 examples, see --replace\n"
    )
    date = load_certificates(project / CERTIFICATES).certificates[0].date
    says = " ".join(done.out.split())
    assert (
        f"not written: the certificate of {date} rests on 60 labels (classify.jsonl), "
        "this one would on 20; --replace writes it all the same" in says
    )
    assert "No certificate written" in done.out
    assert certified(project) == [(60, 0)]
    terminal("certify", "classify", "--limit", 20, "--yes", "--replace", cwd=project)
    [(n, errors)] = certified(project)
    assert (n, errors > 0) == (20, True)


@pytest.mark.parametrize("change", ["void", "same size"])
def test_what_a_smaller_measurement_may_replace(
    terminal: Terminal, project: Path, change: str
) -> None:
    """A void certificate is no loss, and neither is one of a set of the same size."""
    certify(terminal, project)
    rows = golden_rows(40 if change == "void" else 60)
    write_golden(project, [{**row, "text": f"{row['text']} Ann"} for row in rows])
    if change == "void":
        prompt = project / "prompts" / "classify.md.j2"
        prompt.write_text(prompt.read_text().replace("You sort", "You shall sort"))
    certify(terminal, project)
    assert certified(project) == [(len(rows), 0)]


def test_the_question_before_a_measurement_has_cost_and_time(
    terminal: Terminal, project: Path
) -> None:
    """The time is unknown at first, known from then on, and nothing where all is paid."""

    def question(*options: object) -> str:
        done = terminal("certify", "classify", "--yes", *options, cwd=project)
        assert done.code == 0, done.err
        return next(line for line in done.err.splitlines() if "at most" in line)

    assert question("--limit", 20).endswith(
        "; time unknown, as there is no earlier call of cheap"
    )
    assert question("--limit", 20).endswith("; no new call")
    assert question().endswith("; about 1 s")
    assert question("--fresh").endswith("; about 1 s")


@pytest.mark.parametrize(
    ("seconds", "says"), [(1, "1 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_a_duration_is_for_people(seconds: float, says: str) -> None:
    assert duration(seconds) == says


def test_outside_a_terminal_every_candidate_has_a_first_and_a_last_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with CountBar() as bar:
        for name in ("small", "large"):
            for done in range(4):
                bar(name, done, 3)
    lines = [line.split("s  ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        "small: 0 of 3",
        "small: 3 of 3",
        "large: 0 of 3",
        "large: 3 of 3",
    ]


# ---- wrong answers ------------------------------------------------------------------------------


def test_wrong_answers_are_printed_with_document_field_expected_and_given(
    terminal: Terminal, project: Path, server: Standin
) -> None:
    write_golden(project, golden_rows(6))

    def answer(request: Request) -> str:
        if "Message 5" in request.document:
            return json.dumps({"label": "billing", "evidence": "no words of it"})
        return lazy(request)

    server.answer(answer)
    done = terminal("certify", "classify", "--yes", cwd=project)
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    start = lines.index(["Wrong", "answers", "of", "cheap"])
    table = [line for line in lines[start + 1 :] if line and line[0][0] in "dg"]
    assert table[0] == ["document", "field", "expected", "given"]
    assert table[1:3] == [
        ["g1", "label", "delivery", "billing"],
        ["g3", "label", "delivery", "billing"],
    ]
    assert table[3][:3] == ["g5", "no", "answer:"]
    [row] = certify(terminal, project)
    assert row["wrong"] == ["g1", "g3", "g5"]
    assert row["wrong_answers"][0] == {
        "id": "g1",
        "reason": "",
        "fields": [{"field": "label", "expected": "delivery", "given": "billing"}],
    }


def test_only_the_first_wrong_answers_are_printed(
    terminal: Terminal, project: Path, server: Standin
) -> None:
    server.answer(lazy)
    done = terminal("certify", "classify", "--yes", cwd=project)
    assert "… and 20 more; --json shows all" in done.out
    [row] = certify(terminal, project)
    assert len(row["wrong_answers"]) == 30


ACCEPTED = {"status": "accepted", "sensitivity": "internal"}


@pytest.mark.parametrize(
    ("measure", "expected", "given", "differences"),
    [
        (
            extract.spec.correct,
            {"total": "9.00", "date": "2 May 2026", "shop": "Heron"},
            {"total": "9", "date": "2 June 2026", "shop": None},
            [("date", "2 May 2026", "2 June 2026"), ("shop", "Heron", None)],
        ),
        (
            mentions("reply"),
            {"must_mention": ["Friday"], "reference": "On Friday."},
            {"reply": "On Monday."},
            [("must_mention", ["Friday"], "On Monday.")],
        ),
        (
            rubric("It is kind.", needs=mentions("reply")),
            {"must_mention": ["Friday"]},
            {"reply": "On Monday."},
            [("must_mention", ["Friday"], "On Monday.")],
        ),
    ],
)
def test_a_wrong_answer_shows_the_fields_that_the_measure_compares(
    measure: Correct,
    expected: dict[str, Any],
    given: dict[str, Any],
    differences: list[tuple[str, Any, Any]],
) -> None:
    step = replace(CLASSIFY, correct=measure)
    outcome = Outcome(step="classify", value=given, **ACCEPTED)  # type: ignore[arg-type]
    found = wrong_answer(step, Example("a", "text", expected), outcome)
    wanted = [Difference(*each) for each in differences]
    read = [d for d in found.differences if d.field != "must_not"]
    assert read == wanted


@pytest.mark.parametrize(
    ("outcome", "unscored", "reason"),
    [
        (
            Outcome(step="classify", status="deferred", reason="the checks failed"),
            False,
            "no answer: the checks failed",
        ),
        (
            Outcome(step="classify", value={"reply": "x"}, **ACCEPTED),  # type: ignore[arg-type]
            False,
            "the judge found it wrong",
        ),
        (
            Outcome(step="classify", value={"reply": "x"}, **ACCEPTED),  # type: ignore[arg-type]
            True,
            "the judge's verdict could not be read",
        ),
    ],
)
def test_an_answer_without_a_wrong_field_has_a_reason(
    outcome: Outcome, unscored: bool, reason: str
) -> None:
    step = replace(CLASSIFY, correct=rubric("It is kind."))
    found = wrong_answer(step, example(1), outcome, unscored=unscored)
    assert found == WrongAnswer("1", reason=reason)
