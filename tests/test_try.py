"""`tierwise try`: a prompt on one document, and what the models answer, side by side."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.golden_sets import (
    Servers,
    certify,
    golden_rows,
    lazy_and_right,
    project_of_two,
    write_golden,
)
from tests.kit.standin import status
from tests.kit.terminal import Done, Terminal
from tierwise.engine import Engine
from tierwise.ledger import Ledger
from tierwise.project import Project

MESSAGE = "My parcel with the desk has not arrived, please help."


@pytest.fixture
def servers() -> Iterator[Servers]:
    with lazy_and_right() as both:
        yield both


@pytest.fixture
def project(tmp_path: Path, servers: Servers) -> Path:
    names = ("near", "far")
    root = project_of_two(
        tmp_path / "project", servers, names=names, tier_of_dear="proprietary"
    )
    (root / "mail.txt").write_text(MESSAGE)
    return root


def tried(
    terminal: Terminal, project: Path, document: str, *arguments: object
) -> dict[str, Any]:
    done = terminal("try", "classify", document, *arguments, "--json", cwd=project)
    assert done.code in (0, 1), done.err
    data: dict[str, Any] = json.loads(done.out)
    data["by_model"] = {entry["model"]: entry for entry in data["models"]}
    return data


def shown(terminal: Terminal, project: Path, document: str, *arguments: object) -> Done:
    return terminal("try", "classify", document, *arguments, cwd=project)


BOTH = ("-m", "near", "-m", "far", "--sensitivity", "internal")


def test_each_models_answer_is_shown_beside_the_others_below_the_prompt(
    terminal: Terminal, project: Path
) -> None:
    done = shown(terminal, project, "mail.txt", *BOTH)
    assert done.code == 0, done.err
    assert MESSAGE in done.out
    assert "You sort documents." in done.out
    assert "(golden/classify.yaml)" in done.out
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    [names] = [line for line in lines if line.split() == ["near", "far"]]
    [labels] = [line for line in lines if line.startswith("label ")]
    assert labels.split() == ["label", "billing", "delivery"]
    assert labels.index("delivery") == names.index("far")
    assert "label_is_allowed" in done.out or "label" in done.out
    assert [line.split()[0] for line in lines if "USD" in line] == ["cost"]


def test_scripts_get_everything(terminal: Terminal, project: Path) -> None:
    data = tried(terminal, project, "mail.txt", *BOTH)
    assert data["prompt"] == "classify v1"
    assert [message["role"] for message in data["messages"]] == ["system", "user"]
    assert data["parameters"] == {
        "labels": ["billing", "delivery"],
        "descriptions": {},
    }
    far = data["by_model"]["far"]
    assert far["answer"]["label"] == "delivery"
    assert far["status"] == "accepted"
    assert all(check["passed"] for check in far["checks"])
    assert float(far["cost"]) > float(data["by_model"]["near"]["cost"]) > 0
    assert far["latency_s"] > 0
    assert far["attempts"][0]["usage"]["prompt_tokens"] > 0


def test_a_failed_check_is_shown_with_the_answer(
    terminal: Terminal, project: Path, servers: Servers
) -> None:
    invented = json.dumps({"label": "delivery", "evidence": "it never came"})
    servers[0].answer(invented)
    done = shown(terminal, project, "mail.txt", *BOTH)
    assert done.code == 0
    assert "it never came" in done.out
    [checks] = [line for line in done.out.splitlines() if line.startswith("checks")]
    assert "evidence" in checks
    entry = tried(terminal, project, "mail.txt", *BOTH)["by_model"]["near"]
    assert entry["status"] == "deferred"
    assert entry["answer"]["evidence"] == "it never came"
    assert any(check["passed"] is False for check in entry["checks"])


@pytest.mark.parametrize("level", ["confidential", "restricted"])
def test_a_guard_keeps_the_document_from_a_model_and_says_so(
    terminal: Terminal, project: Path, servers: Servers, level: str
) -> None:
    arguments = ("-m", "near", "-m", "far", "--sensitivity", level)
    data = tried(terminal, project, "mail.txt", *arguments)
    far = data["by_model"]["far"]
    assert far["asked"] is False
    assert "confidential-stays-local" in far["reason"]
    assert data["by_model"]["near"]["status"] == "accepted"
    assert servers[1].count == 0
    printed = shown(terminal, project, "mail.txt", *arguments).out
    assert "not asked: guard" in " ".join(printed.split())


def test_a_file_counts_as_restricted_and_can_only_raise_its_level(
    terminal: Terminal, project: Path, servers: Servers
) -> None:
    (project / "secret.md").write_text(
        f"---\nsensitivity: confidential\n---\n{MESSAGE}"
    )
    for name, level in (("mail.txt", "restricted"), ("secret.md", "internal")):
        arguments = ("-m", "far", "--sensitivity", level)
        done = shown(terminal, project, name, *arguments)
        assert done.code == 1
        assert "not asked" in done.out
        # only for the one that nobody gave a level
        hint = "counts as restricted unless --sensitivity" in " ".join(done.out.split())
        assert hint is (name == "mail.txt")
    assert shown(terminal, project, "mail.txt", "-m", "far").code == 1
    assert servers[1].count == 0


def test_without_models_those_of_the_route_are_asked(
    terminal: Terminal, project: Path
) -> None:
    routed = tried(terminal, project, "mail.txt", "--sensitivity", "internal")
    assert set(routed["by_model"]) == {"far", "near"}
    assert set(tried(terminal, project, "mail.txt")["by_model"]) == {"near"}


def test_a_document_without_a_route_says_why(terminal: Terminal, project: Path) -> None:
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text().replace("[local]", "[clarifai]"))
    done = shown(terminal, project, "mail.txt")
    assert done.code == 1
    assert "confidential-stays-local" in done.out
    assert MESSAGE in done.out, "the prompt is worth seeing anyway"


def test_calls_are_attempts_of_a_run_of_their_own(
    terminal: Terminal, project: Path
) -> None:
    data = tried(terminal, project, "mail.txt", *BOTH)
    with Ledger.open(None, root=project) as ledger:
        [run] = ledger.runs.newest()
        attempts = list(ledger.runs.attempts(run.id))
    assert (run.id, run.flow, run.state) == (data["run"], "try classify", "completed")
    assert [attempt.model for attempt in attempts] == ["near", "far"]
    assert all(attempt.verdicts for attempt in attempts)
    assert terminal("show", run.id, cwd=project).code == 0


def test_the_latest_run_stays_that_of_a_flow(terminal: Terminal, project: Path) -> None:
    """A prompt that is tried, or a model that is certified, between two looks at a run."""
    tried(terminal, project, "mail.txt", *BOTH)
    with Ledger.open(None, root=project) as ledger:
        assert ledger.runs.resolve("latest").flow == "try classify"
    with Engine(Project(project), env={}) as engine:
        for name, flow_run in (("inbox", None), ("try hard", "8f2a")):
            run = engine.start_run(name, flow_run_id=flow_run)
            engine.finish_run(run, "completed")
            tried(terminal, project, "mail.txt", *BOTH)
            certify(terminal, project, "-m", "near")
            assert engine.ledger.runs.resolve("latest").flow == name
    assert "try classify" in terminal("runs", cwd=project).out


def test_an_answer_is_paid_once_unless_it_is_wanted_afresh(
    terminal: Terminal, project: Path, servers: Servers
) -> None:
    tried(terminal, project, "mail.txt", *BOTH)
    again = tried(terminal, project, "mail.txt", *BOTH)
    assert servers[0].count == 1
    assert again["by_model"]["near"]["attempts"][0]["reused"] is True
    assert "paid before" in shown(terminal, project, "mail.txt", *BOTH).out
    tried(terminal, project, "mail.txt", *BOTH, "--fresh")
    assert servers[0].count == 2
    prompt = project / "prompts" / "classify.md.j2"
    prompt.write_text(prompt.read_text().replace("You sort", "You carefully sort"))
    assert "carefully" in str(tried(terminal, project, "mail.txt", *BOTH)["messages"])
    assert servers[0].count == 3


def test_the_budget_is_hard(
    terminal: Terminal, project: Path, servers: Servers
) -> None:
    arguments = ("-m", "far", "--sensitivity", "internal", "--budget-usd", "0.000001")
    data = tried(terminal, project, "mail.txt", *arguments)
    [far] = data["models"]
    assert far["asked"] is False
    assert "budget" in far["reason"]
    assert servers[1].count == 0


@pytest.mark.parametrize("when_empty", ["defer", "fail"])
def test_a_model_that_the_budget_leaves_out_leaves_the_others(
    terminal: Terminal, project: Path, when_empty: str
) -> None:
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text() + f"budget: {{when_empty: {when_empty}}}\n")
    arguments = (*BOTH, "--budget-usd", "0.002")
    data = tried(terminal, project, "mail.txt", *arguments)
    assert data["by_model"]["near"]["status"] == "accepted"
    assert data["by_model"]["far"]["asked"] is False


def test_a_provider_that_fails_is_a_result(
    terminal: Terminal, project: Path, servers: Servers
) -> None:
    servers[1].faults([status(400, "no such model")] * 3)
    data = tried(terminal, project, "mail.txt", *BOTH)
    assert data["by_model"]["near"]["status"] == "accepted"
    far = data["by_model"]["far"]
    assert far["status"] == "deferred"
    assert far["answer"] is None
    assert "no such model" in far["reason"]
    assert "no such model" in shown(terminal, project, "mail.txt", *BOTH).out


# ---- the document -------------------------------------------------------------------------------


def test_a_golden_row_is_named_by_its_id_and_compared_with_its_right_answer(
    terminal: Terminal, project: Path
) -> None:
    data = tried(terminal, project, "g1", "-m", "near", "-m", "far")
    assert data["expected"] == {"label": "delivery"}
    assert data["document"]["sensitivity"] == "internal"
    assert {name: entry["right"] for name, entry in data["by_model"].items()} == {
        "near": False,
        "far": True,
    }
    printed = shown(terminal, project, "g1", "-m", "near", "-m", "far").out
    [line] = [line for line in printed.splitlines() if line.startswith("right")]
    assert line.split() == ["right", "no", "yes"]


ROWS = "id,text,desk\n,My parcel is late,one\nA-17,My invoice is wrong,two\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mails.csv#1", "My parcel is late"),
        ("mails.csv#A-17", "My invoice is wrong"),
        ("mails.csv#2", "My invoice is wrong"),
    ],
)
def test_a_row_is_named_by_its_id_or_its_place(
    terminal: Terminal, project: Path, name: str, text: str
) -> None:
    (project / "mails.csv").write_text(ROWS)
    data = tried(terminal, project, name, "-m", "near")
    assert text in data["messages"][1]["content"]
    assert data["document"]["id"] in ("mails.csv#1", "mails.csv#A-17")


def test_a_mail_is_read_as_a_flow_reads_it(terminal: Terminal, project: Path) -> None:
    (project / "a.eml").write_text(
        "From: a@example.org\nSubject: Desk\nSensitivity: Company-Confidential\n\n"
        f"{MESSAGE}\n"
    )
    data = tried(terminal, project, "a.eml", "-m", "near", "--sensitivity", "public")
    assert data["document"]["sensitivity"] == "confidential"
    assert MESSAGE in data["messages"][1]["content"]


def test_a_text_comes_from_stdin(
    terminal: Terminal, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(MESSAGE.encode("utf-16")))
    monkeypatch.setattr(sys, "stdin", stream)
    data = tried(terminal, project, "-", "-m", "near")
    assert MESSAGE in data["messages"][1]["content"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("clasify", "mail.txt"), "did you mean 'classify'?"),
        (("classify", "mial.txt"), "no file, and no id in golden/classify.jsonl"),
        (("classify", "g100"), "did you mean 'g10'?"),
        (("classify", "mails.csv"), "more than one document; name one, such as"),
        (("classify", "mails.csv#9"), "row of mails.csv"),
        (("classify", "prompts"), "prompts is a folder"),
        (("classify", "empty.txt"), "empty.txt: the file is empty"),
        (("classify", "mail.txt", "-m", "naer"), "did you mean 'near'?"),
        (("classify", "mail.txt", "--sensitivity", "secret"), "sensitivity"),
        (("classify", "mail.txt", "-p", "labels"), "--parameter takes NAME=VALUE"),
        (("classify", "mail.txt", "--outcome", "a=b"), "STEP.FIELD=VALUE"),
        (("classify", "mail.txt", "--flow", "meeting_digest"), "does not call"),
    ],
)
def test_a_mistake_is_one_line(
    terminal: Terminal, project: Path, arguments: tuple[str, ...], said: str
) -> None:
    (project / "mails.csv").write_text(ROWS)
    (project / "empty.txt").write_text("")
    done = terminal("try", *arguments, cwd=project)
    assert done.code == 2, done.err
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    with Ledger.open(None, root=project) as ledger:
        assert ledger.runs.newest() == []


# ---- the parameters -----------------------------------------------------------------------------


def test_a_misspelt_variable_of_the_prompt_is_found_before_anything_is_sent(
    terminal: Terminal, project: Path, servers: Servers
) -> None:
    prompt = project / "prompts" / "classify.md.j2"
    prompt.write_text(prompt.read_text().replace("{{ document }}", "{{ documnet }}"))
    done = shown(terminal, project, "mail.txt", *BOTH)
    assert done.code in (1, 2)
    assert "'documnet' is undefined" in done.err
    assert servers[0].count == 0


def test_one_parameter_is_replaced(terminal: Terminal, project: Path) -> None:
    arguments = ("-m", "near", "-p", "labels=[billing, other]")
    data = tried(terminal, project, "mail.txt", *arguments)
    assert data["parameters"]["labels"] == ["billing", "other"]
    assert "other" in data["messages"][0]["content"]


def test_without_a_golden_set_the_parameters_are_those_of_the_flow(
    terminal: Terminal, project: Path
) -> None:
    (project / "golden" / "classify.yaml").unlink()
    flow = ("--flow", "support_inbox")
    data = tried(terminal, project, "mail.txt", "-m", "near", *flow)
    assert data["parameters_from"].startswith("flows/support_inbox.py:")
    assert len(data["parameters"]["labels"]) > 2


def test_an_earlier_outcome_is_given_by_hand(terminal: Terminal, project: Path) -> None:
    prompt = project / "prompts" / "classify.md.j2"
    prompt.write_text(
        prompt.read_text().replace(
            "{% block user %}", "{% block user %}Desk: {{ outcomes.desk.name }}\n"
        )
    )
    arguments = ("-m", "near", "--outcome", "desk.name=claims")
    data = tried(terminal, project, "mail.txt", *arguments)
    assert "Desk: claims" in data["messages"][1]["content"]


def test_a_long_prompt_is_cut_in_the_middle_unless_it_is_wanted_in_full(
    terminal: Terminal, project: Path
) -> None:
    (project / "long.txt").write_text("Begin. " + "word " * 2000 + "End.")
    short = shown(terminal, project, "long.txt", "-m", "near").out
    assert "--full prints them" in short
    assert "End." in short
    full = shown(terminal, project, "long.txt", "-m", "near", "--full").out
    assert full.count("word") >= 2000


def test_the_examples_in_a_models_prompt_are_counted(
    terminal: Terminal, project: Path
) -> None:
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(
        catalog.read_text() + "  shown: {like: near, strength: 11, examples: 2}\n"
    )
    write_golden(project, golden_rows(10), "classify-examples")
    data = tried(terminal, project, "mail.txt", "-m", "near", "-m", "shown")
    assert data["by_model"]["near"]["messages"] is None
    assert len(data["by_model"]["shown"]["messages"]) == 6
    printed = shown(terminal, project, "mail.txt", "-m", "near", "-m", "shown").out
    assert "with 2 examples before" in " ".join(printed.split())
