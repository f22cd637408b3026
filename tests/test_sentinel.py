"""The sentinel: a certificate whose server reports another model is suspended, until canaries decide."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.classify import classify
from tests.kit.golden_sets import (
    DEAR,
    WORDS,
    certify,
    right,
    route_one,
    write_golden,
)
from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.orchestrate.alerts import demotion_conditions
from tierwise.policy.certificates import load_certificates
from tierwise.policy.served_names import is_same_model
from tierwise.project import CERTIFICATES, Project
from tierwise.records import Batch, Document

FREE = "{input: 0, output: 0, source: test, date: 2026-11-01}"
RULES = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
floors: {classify: 0.7}
routes:
  - {name: proven, pick: cheapest_capable}
"""
COUNT = 60


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        # forms of one name
        ("gpt-4o", "GPT-4o", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("claude-3-5-sonnet", "claude-3-5-sonnet@20240620", True),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022", True),
        ("mistral-large-latest", "mistral-large-2411", True),
        ("gpt-4", "gpt-4-0613", True),
        ("gemini-1.5-pro", "models/gemini-1.5-pro-002", True),
        ("qwen2.5-1.5b-q4_k_m", "/srv/models/Qwen2.5-1.5B-Q4_K_M.gguf", True),
        ("qwen2.5-1.5b-q4_k_m.gguf", "C:\\models\\qwen2.5-1.5b-q4_k_m.gguf", True),
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b", True),
        ("llama3.2", "llama3.2:latest", True),
        (" gpt-4o ", "gpt-4o", True),
        # other models
        ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06", False),
        ("gpt-4-0613", "gpt-4-0314", False),
        ("gemini-1.5-pro-001", "gemini-1.5-pro-002", False),
        ("gpt-4o", "gpt-4o-mini", False),
        ("llama3.2:1b", "llama3.2:3b", False),
        ("qwen-q4_k_m", "qwen-q8_0", False),
        ("llama-3.1-8b", "llama-3.1-70b", False),
        ("claude-3-5-sonnet", "claude-3-7-sonnet", False),
        ("small", "large", False),
    ],
)
def test_two_names_are_forms_of_one_model_by_closed_rules(
    one: str, other: str, same: bool
) -> None:
    assert is_same_model(one, other) is same
    assert is_same_model(other, one) is same


def wrong_from(first: int) -> Callable[[Request], str]:
    """A model that is wrong on all messages from this number on."""

    def answer(request: Request) -> str:
        number = int(request.document.split()[1].rstrip(":"))
        reply = json.loads(right(request))
        if number >= first:
            labels = list(WORDS)
            labels.remove(reply["label"])
            reply["label"] = labels[0]
        return json.dumps(reply)

    return answer


@pytest.fixture
def servers() -> Iterator[dict[str, Standin]]:
    with Standin() as cheap, Standin() as dear:
        cheap.served = "small-2024-05-13"
        cheap.answer(wrong_from(56))
        dear.answer(right)
        yield {"cheap": cheap, "dear": dear}


def rows() -> list[dict[str, str]]:
    labels = list(WORDS)
    return [
        {
            "id": f"g{n}",
            "text": f"Message {n}: {WORDS[labels[n % 2]]}, please help.",
            "label": labels[n % 2],
            "sensitivity": "confidential" if n % 10 == 0 else "internal",
        }
        for n in range(COUNT)
    ]


@pytest.fixture
def project(tmp_path: Path, servers: dict[str, Standin]) -> Path:
    root = make_project(
        tmp_path / "project",
        model("cheap", servers["cheap"].url, strength=10, price=FREE),
        model("dear", servers["dear"].url, strength=20, price=DEAR),
        rules=RULES,
    )
    write_golden(root, rows())
    return root


def run_messages(
    project: Path, first: int, count: int, *, at_once: int = 1
) -> list[str]:
    """The first models of the routes of some messages, in batches of one run."""
    labels = {"labels": ["billing", "delivery"], "descriptions": {}}
    chosen = []
    with Engine(Project(project), env={}) as engine:
        run = engine.start_run("test")
        for start in range(first, first + count, at_once):
            documents = tuple(
                Document(
                    id=f"d{n}",
                    text=f"Message {n}: my invoice is wrong, today.",
                    sensitivity="internal",
                )
                for n in range(start, start + at_once)
            )
            done = engine.run_batch(run, classify.spec, Batch(documents), labels)
            for document in done.load():
                route = document.outcomes["classify"].route
                assert route is not None
                chosen.append(route.models[0])
        engine.finish_run(run, "completed")
    return chosen


def test_the_certificate_has_the_name_that_the_server_gave_and_the_attempts_too(
    terminal: Terminal, project: Path
) -> None:
    certify(terminal, project, "-m", "cheap")
    [found] = load_certificates(project / CERTIFICATES).certificates
    assert found.served == {"cheap": ("small-2024-05-13",)}
    assert found.served_since is not None
    assert found.items == COUNT
    assert found.wrong is not None
    assert len(found.wrong) == 4
    with Engine(Project(project), env={}) as engine:
        [answer, *_] = engine.ledger.served.last_answers({"cheap"})["cheap"]
        assert answer.name == "small-2024-05-13"
        assert not engine.suspended


def test_another_model_suspends_the_certificate_in_the_middle_of_a_run_and_says_so(
    terminal: Terminal, project: Path, servers: dict[str, Standin]
) -> None:
    certify(terminal, project, "-m", "cheap")
    assert run_messages(project, 100, 2) == ["cheap", "cheap"]
    servers["cheap"].served = "small-2024-08-06"
    # two answers of the last 20 do: one may be astray
    assert run_messages(project, 200, 4) == ["cheap", "cheap", "dear", "dear"]
    outcome = route_one(project)
    assert outcome.route is not None
    assert outcome.route.models == ("dear", "cheap")
    why = terminal("doctor", "--json", cwd=project).out
    assert "the server of cheap reports 'small-2024-08-06'" in why
    checked = terminal("check", "--json", cwd=project)
    assert "small-2024-08-06" in checked.out
    assert "suspended" in checked.out
    state = json.loads(terminal("status", "--json", cwd=project).out)
    assert "tierwise canaries classify" in [p["remedy"] for p in state["problems"]]
    shown = terminal("show", "--json", cwd=project)
    assert "small-2024-08-06" in shown.out
    listed = terminal("show", cwd=project)
    assert "tierwise canaries classify" in listed.out


def test_a_name_in_another_form_and_a_server_without_a_name_suspend_nothing(
    terminal: Terminal, project: Path, servers: dict[str, Standin]
) -> None:
    certify(terminal, project, "-m", "cheap")
    start = 100
    for served in ["SMALL", "models/small-2024-05-13", "/srv/small.gguf", ""]:
        servers["cheap"].served = served
        assert run_messages(project, start, 3) == ["cheap"] * 3
        start += 10


def test_an_alias_is_pinned_to_the_first_date_that_it_came_with(
    terminal: Terminal, project: Path, servers: dict[str, Standin]
) -> None:
    servers["cheap"].served = "small"
    certify(terminal, project, "-m", "cheap")
    servers["cheap"].served = "small-2024-05-13"
    assert run_messages(project, 100, 3) == ["cheap"] * 3
    servers["cheap"].served = "small-2024-08-06"
    assert run_messages(project, 200, 3) == ["cheap", "cheap", "dear"]


def test_one_stray_answer_among_others_suspends_nothing(
    terminal: Terminal, project: Path, servers: dict[str, Standin]
) -> None:
    certify(terminal, project, "-m", "cheap")
    servers["cheap"].served = lambda request: (
        "other" if "Message 105:" in request.document else "small-2024-05-13"
    )
    assert run_messages(project, 100, 12) == ["cheap"] * 12
    # alone since the certificate, it is all that is known
    certify(terminal, project, "-m", "cheap", "--fresh", "--replace")
    servers["cheap"].served = "other"
    assert run_messages(project, 200, 2) == ["cheap", "dear"]


def suspend(terminal: Terminal, project: Path, servers: dict[str, Standin]) -> None:
    certify(terminal, project, "-m", "cheap")
    servers["cheap"].served = "small-2024-08-06"
    run_messages(project, 200, 2)


def test_canaries_restore_the_certificate_for_a_model_that_is_as_good(
    terminal: Terminal, project: Path, servers: dict[str, Standin]
) -> None:
    suspend(terminal, project, servers)
    before = servers["cheap"].count
    done = terminal("canaries", "--yes", "--json", cwd=project)
    assert done.code == 0, done.err
    [row] = json.loads(done.out)
    assert (row["restored"], row["asked"], row["lost"]) == (True, 30, 0)
    assert servers["cheap"].count == before + 30
    assert run_messages(project, 300, 2) == ["cheap", "cheap"]
    again = terminal("canaries", "--yes", cwd=project)
    assert "no certificate is suspended" in again.out
    # the old one may come back; a third one may not
    servers["cheap"].served = "small-2024-05-13"
    assert run_messages(project, 310, 3) == ["cheap"] * 3
    servers["cheap"].served = "small-2025-01-01"
    assert run_messages(project, 320, 3) == ["cheap", "cheap", "dear"]


def test_canaries_void_the_certificate_for_a_model_that_is_not(
    terminal: Terminal, project: Path, servers: dict[str, Standin]
) -> None:
    suspend(terminal, project, servers)
    servers["cheap"].answer(wrong_from(30))
    said = terminal("canaries", "--yes", cwd=project)
    assert "is void for 'small-2024-08-06'" in said.out
    assert run_messages(project, 300, 1) == ["dear"]
    before = servers["cheap"].count
    again = terminal("canaries", "--yes", "--json", cwd=project)
    assert json.loads(again.out) == []
    assert servers["cheap"].count == before
    # measured again, it counts by what it is now
    certify(terminal, project, "-m", "cheap", "--fresh", "--replace")
    [found] = load_certificates(project / CERTIFICATES).certificates
    assert found.served == {"cheap": ("small-2024-08-06",)}


def test_canaries_decide_nothing_without_answers_or_without_the_same_golden_set(
    terminal: Terminal, project: Path, servers: dict[str, Standin]
) -> None:
    suspend(terminal, project, servers)
    few = terminal("canaries", "--yes", "--items", "10", "--json", cwd=project)
    assert "too few" in json.loads(few.out)[0]["says"]
    golden = project / "golden" / "classify.jsonl"
    kept = golden.read_text()
    golden.write_text(kept.replace("please help", "please hurry", 1))
    other = terminal("canaries", "--yes", "--json", cwd=project)
    assert "no longer what it was measured on" in json.loads(other.out)[0]["says"]
    golden.write_text(kept)
    assert run_messages(project, 300, 1) == ["dear"]


def test_confidential_golden_items_go_to_models_in_the_house_alone(
    tmp_path: Path, terminal: Terminal, servers: dict[str, Standin]
) -> None:
    """A hosted model was certified when its guard was another one."""
    root = make_project(
        tmp_path / "hosted",
        model("cheap", servers["cheap"].url, strength=10, price=FREE, tier="clarifai"),
        model("dear", servers["dear"].url, strength=20, price=DEAR),
        rules=RULES.replace(
            "guards:\n  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, "
            "allow_tiers: [local]}\n",
            "",
        ),
    )
    write_golden(root, rows())
    suspend(terminal, root, servers)
    # hosted models are asked for nothing without a budget
    from tierwise.orchestrate.canaries import restore_suspended

    before = servers["cheap"].count
    with Engine(Project(root), env={}) as engine:
        restore_suspended(engine)
        assert engine.suspended
    assert servers["cheap"].count == before
    refused = terminal("canaries", "--yes", "--json", cwd=root)
    assert "give --budget-usd" in json.loads(refused.out)[0]["says"]
    assert servers["cheap"].count == before
    done = terminal("canaries", "--yes", "--json", "--budget-usd", "1", cwd=root)
    assert json.loads(done.out)[0]["restored"]
    asked = [request.document for request in servers["cheap"].requests[before:]]
    confidential = {row["text"] for row in rows() if row["sensitivity"] != "internal"}
    assert len(asked) == 30
    assert not confidential & set(asked)


def test_a_run_asks_canaries_of_free_local_models_before_it_begins(
    terminal: Terminal, project: Path, servers: dict[str, Standin]
) -> None:
    suspend(terminal, project, servers)
    inbox = project / "inbox"
    inbox.mkdir()
    (inbox / "a.txt").write_text("Message 1: my invoice is wrong, please look at it.")
    from tierwise.orchestrate.canaries import restore_suspended

    with Engine(Project(project), env={}) as engine:
        assert engine.suspended
        restore_suspended(engine)
        assert not engine.suspended
    (project / "pyproject.toml").write_text("[tool.tierwise.canaries]\nitems = 0\n")
    servers["cheap"].served = "small-2025-01-01"
    run_messages(project, 400, 3)
    before = servers["cheap"].count
    with Engine(Project(project), env={}) as engine:
        restore_suspended(engine)
        assert engine.suspended
    assert servers["cheap"].count == before


def test_the_alert_names_the_cause_and_not_what_a_server_said(
    terminal: Terminal, project: Path, servers: dict[str, Standin]
) -> None:
    suspend(terminal, project, servers)
    with Engine(Project(project), env={}) as engine:
        [found] = demotion_conditions(
            engine.policy.certificates.all, engine.policy.demoted, engine.suspended
        )
    assert found.holds
    assert found.began == (
        "certificate of cheap for classify: a server reports another model, so it is suspended"
    )


def test_a_comparison_is_suspended_where_its_reference_is_another_model(
    terminal: Terminal, project: Path, servers: dict[str, Standin]
) -> None:
    """Canaries of the candidate say nothing about the reference."""
    rules = project / "routing_rules" / "rules.yaml"
    floor = "{classify: {at_most_worse: 0.2, than: dear}}"
    rules.write_text(rules.read_text().replace("{classify: 0.7}", floor))
    certify(terminal, project, "-m", "cheap")
    assert run_messages(project, 100, 1) == ["cheap"]
    servers["dear"].served = "another"
    certify(terminal, project, "-m", "dear > cheap", "--fresh")
    with Engine(Project(project), env={}) as engine:
        assert ("classify", ("cheap",)) in engine.suspended
    done = terminal("canaries", "--yes", "--json", "--budget-usd", "1", cwd=project)
    says = {tuple(row["models"]): row["says"] for row in json.loads(done.out)}
    assert "its reference dear changed" in says["cheap",]


def test_a_server_that_is_away_voids_nothing(
    terminal: Terminal, project: Path, servers: dict[str, Standin]
) -> None:
    suspend(terminal, project, servers)
    from tests.kit.standin import status

    servers["cheap"].faults([status(503)] * 500)
    said = terminal("canaries", "--yes", "--json", cwd=project)
    [row] = json.loads(said.out)
    assert row["restored"] is None
    assert "got no answer" in row["says"]
