"""Proof end to end: measure on a golden set through a real socket, write it down, and route by it."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.kit.golden_sets import (
    CLASSIFY,
    WORDS,
    Servers,
    certify,
    golden_rows,
    lazy_and_right,
    project_of_two,
    right,
    route_one,
    write_golden,
)
from tests.kit.standin import Request, status
from tests.kit.steps import LABELS
from tests.kit.terminal import Terminal
from tierwise.engine import Engine
from tierwise.errors import Misuse
from tierwise.evidence.certify import Evaluation, alpha_of_look, compare
from tierwise.policy.certificates import (
    Certificate,
    labels_needed,
    load_certificates,
    lower_bound,
)
from tierwise.project import CERTIFICATES, Project
from tierwise.records import Batch, Document
from tierwise.steps.examples import load_golden


@pytest.fixture
def servers() -> Iterator[Servers]:
    with lazy_and_right() as both:
        yield both


@pytest.fixture
def project(tmp_path: Path, servers: Servers) -> Path:
    return project_of_two(tmp_path / "project", servers)


def test_without_proof_the_strongest_allowed_model_comes_first_and_the_route_says_so(
    project: Path,
) -> None:
    outcome = route_one(project)
    assert outcome.route is not None
    assert outcome.route.models[0] == "dear"
    assert "nothing is certified" in outcome.route.reason


def test_certify_measures_each_model_and_writes_what_that_proves(
    terminal: Terminal, project: Path
) -> None:
    """60 examples: one model is right on half of them, the other on all."""
    rows = certify(terminal, project)
    assert [(row["candidate"], row["right"], row["n"]) for row in rows] == [
        ("cheap", 30, 60),
        ("dear", 60, 60),
    ]
    proofs = {
        c.models: c for c in load_certificates(project / CERTIFICATES).certificates
    }
    assert proofs["dear",].bound > 0.9
    assert proofs["cheap",].errors == 30
    assert proofs["dear",].compared == 2
    assert proofs["dear",].mean_cost is not None


def test_the_floor_decides_which_model_is_picked(
    terminal: Terminal, project: Path
) -> None:
    """Where only one model meets the floor, that one; with the floor lowered, the cheaper."""
    certify(terminal, project)
    high = route_one(project)
    assert high.route is not None
    assert (high.model, high.route.models) == ("dear", ("dear",))
    assert (
        "below the floor of 0.9"
        in {r.model: r.reason for r in high.route.rejected}["cheap"]
    )

    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text().replace("classify: 0.9", "classify: 0.3"))
    low = route_one(project, "my invoice is wrong, please help me with it")
    assert low.route is not None
    assert low.route.models == ("cheap", "dear")
    assert low.route.reason.startswith(
        "the cheapest shown capable of 0.3: cheap: 30 errors in 60"
    )


def test_a_chain_is_certified_as_what_it_delivers(
    terminal: Terminal, project: Path, servers: Servers
) -> None:
    """Calls that the single models were measured with are not paid again."""
    servers[0].answer(
        lambda request: (
            right(request)
            if "invoice" in request.document
            else json.dumps({"label": "x"})
        )
    )
    certify(terminal, project, "-m", "cheap", "-m", "dear")
    paid = servers[0].count + servers[1].count
    rows = certify(terminal, project, "-m", "cheap > dear")
    assert [(row["candidate"], row["right"], row["n"]) for row in rows] == [
        ("cheap > dear", 60, 60)
    ]
    assert servers[0].count + servers[1].count == paid
    outcome = route_one(project)
    assert outcome.route is not None
    assert outcome.route.models == ("cheap", "dear")


def test_a_changed_prompt_voids_the_certificates(
    terminal: Terminal, project: Path
) -> None:
    certify(terminal, project)
    prompt = project / "prompts" / "classify.md.j2"
    prompt.write_text(
        prompt.read_text().replace("You sort documents.", "You sort messages.")
    )
    outcome = route_one(project)
    assert outcome.route is not None
    assert "nothing is certified" in outcome.route.reason


def test_other_labels_than_the_certified_ones_are_not_covered(
    terminal: Terminal, project: Path
) -> None:
    """A certificate for sorting topics says nothing about sorting risks."""
    certify(terminal, project)
    with Engine(Project(project), env={}) as engine:
        document = Document(id="a", text="my invoice is wrong", sensitivity="internal")
        labels = {"labels": ["billing", "risk"], "descriptions": {}}
        done = engine.run_batch(
            engine.start_run("test"), CLASSIFY, Batch((document,)), labels
        )
    route = done.load()[0].outcomes["classify"].route
    assert route is not None
    assert "nothing is certified" in route.reason


def test_a_taught_model_is_shown_the_nearest_examples_as_earlier_turns(
    project: Path, servers: Servers
) -> None:
    """The nearest last, as question and right answer; never the document itself."""
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(
        catalog.read_text() + "  taught: {like: dear, examples: 2, strength: 30}\n"
    )
    rows = [{**row, "evidence": WORDS[row["label"]]} for row in golden_rows(24)]
    rows[3]["text"] = "Parcel, parcel, where is my late parcel from Hull?"
    write_golden(project, rows, "classify-examples")
    question = "Where is my late parcel from Hull? My parcel is late."
    servers[1].answer(
        json.dumps({"label": "delivery", "evidence": "my late parcel from Hull"})
    )
    with Engine(Project(project), env={}) as engine:
        document = Document(id="a", text=question, sensitivity="internal")
        done = engine.run_batch(
            engine.start_run("test"), CLASSIFY, Batch((document,)), LABELS
        )
    outcome = done.load()[0].outcomes["classify"]
    assert (outcome.status, outcome.model) == ("accepted", "taught")
    turns = servers[1].last.body["messages"]
    assert [turn["role"] for turn in turns] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert rows[3]["text"] in turns[3]["content"]
    assert json.loads(turns[4]["content"]) == {
        "label": rows[3]["label"],
        "evidence": WORDS[rows[3]["label"]],
    }
    assert question in turns[5]["content"]


def test_examples_with_answers_of_another_flow_are_not_shown(
    project: Path, servers: Servers
) -> None:
    """Who sorts by risk learns nothing from messages that were sorted by topic."""
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(
        catalog.read_text() + "  taught: {like: dear, examples: 2, strength: 30}\n"
    )
    write_golden(project, golden_rows(24), "classify-examples")
    servers[1].answer(json.dumps({"label": "high", "evidence": "my late parcel"}))
    with Engine(Project(project), env={}) as engine:
        document = Document(
            id="a", text="Where is my late parcel?", sensitivity="internal"
        )
        risks = {"labels": ["high", "low"], "descriptions": {}}
        engine.run_batch(engine.start_run("test"), CLASSIFY, Batch((document,)), risks)
    assert [turn["role"] for turn in servers[1].last.body["messages"]] == [
        "system",
        "user",
    ]


def test_examples_more_sensitive_than_the_document_are_not_shown(
    project: Path, servers: Servers
) -> None:
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(
        catalog.read_text() + "  taught: {like: dear, examples: 4, strength: 30}\n"
    )
    rows = [{**row, "sensitivity": "confidential"} for row in golden_rows(24)]
    write_golden(project, rows, "classify-examples")
    with Engine(Project(project), env={}) as engine:
        document = Document(
            id="a", text="my parcel is late, where is it", sensitivity="internal"
        )
        engine.run_batch(engine.start_run("test"), CLASSIFY, Batch((document,)), LABELS)
    assert all(len(request.body["messages"]) == 2 for request in servers[1].requests)


def test_what_production_repairs_is_repaired_in_the_measurement_and_counted(
    terminal: Terminal, project: Path, servers: Servers
) -> None:
    """A model that answers prose first and JSON when asked again is right, and takes two calls a document."""
    servers[1].answer(
        lambda request: (
            "It is plain." if len(request.body["messages"]) == 2 else repaired(request)
        )
    )
    [row] = certify(terminal, project, "-m", "dear")
    assert (row["right"], servers[1].count) == (60, 120)
    asked = (
        sum(
            len(m["content"]) // 4
            for r in servers[1].requests
            for m in r.body["messages"]
        )
        / 60
    )
    assert row["mean_usage"]["dear"]["prompt_tokens"] == pytest.approx(asked, rel=0.05)
    assert route_one(project).attempts[1].kind == "repair"


def repaired(request: Request) -> str:
    """The right answer to a conversation that ends with a request to repair."""
    question = request.body["messages"][1]["content"]
    words = question.split(">\n", 1)[1].split()[:6]
    return json.dumps(
        {
            "label": "billing" if "invoice" in question else "delivery",
            "evidence": " ".join(words),
        }
    )


def test_a_passing_fault_is_retried_and_leaves_the_cost_known(
    terminal: Terminal, project: Path, servers: Servers
) -> None:
    servers[1].faults([status(429, retry_after=0), status(500)])
    [row] = certify(terminal, project, "-m", "dear")
    assert (row["right"], row["no_answer"]) == (60, 0)
    assert row["cost_a_document_usd"] is not None


def test_a_certificate_has_the_mean_usage_so_that_new_prices_rank_anew(
    terminal: Terminal, project: Path
) -> None:
    """Both are certified at a floor of 0.3; once the cheap one costs more, the other is picked."""
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text().replace("classify: 0.9", "classify: 0.3"))
    certify(terminal, project)
    assert route_one(project).model == "cheap"
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(
        catalog.read_text().replace(
            "{input: 1, output: 2,", "{input: 100, output: 200,"
        )
    )
    assert route_one(project).model == "dear"


def test_a_chains_usage_counts_the_documents_that_a_model_never_saw(
    terminal: Terminal, project: Path, servers: Servers
) -> None:
    servers[0].answer(
        lambda request: (
            right(request)
            if "invoice" in request.document
            else json.dumps({"label": "x"})
        )
    )
    alone = certify(terminal, project, "-m", "dear")[0]["mean_usage"]["dear"][
        "completion_tokens"
    ]
    chain = certify(terminal, project, "-m", "cheap > dear")[0]["mean_usage"]["dear"][
        "completion_tokens"
    ]
    assert chain == pytest.approx(alone / 2, rel=0.05)


def certificates_by_models(root: Path) -> dict[tuple[str, ...], Certificate]:
    loaded = load_certificates(root / CERTIFICATES).certificates
    return {certificate.models: certificate for certificate in loaded}


def test_each_look_at_the_labels_spends_a_part_of_alpha_and_the_same_look_none(
    terminal: Terminal, project: Path
) -> None:
    """Candidates that are tried one after the other share alpha, as those of one look do."""
    certify(terminal, project, "-m", "dear")
    first = certificates_by_models(project)["dear",]
    assert (first.look, first.alpha, first.compared) == (1, alpha_of_look(1), 1)
    assert first.bound == pytest.approx(lower_bound(0, 60, alpha=alpha_of_look(1)))
    certify(terminal, project, "-m", "cheap")
    second = certificates_by_models(project)
    assert second["dear",] == first
    assert (second["cheap",].look, second["cheap",].alpha) == (2, alpha_of_look(2))
    before = (project / CERTIFICATES).read_text()
    certify(terminal, project, "-m", "dear")
    assert (project / CERTIFICATES).read_text() == before


def test_a_look_that_shows_nothing_is_on_record_all_the_same(
    terminal: Terminal, project: Path
) -> None:
    """More labels, another floor: each is a further look, so none is a free second chance."""
    certify(terminal, project, "-m", "cheap")
    write_golden(project, golden_rows(70))
    certify(terminal, project, "-m", "cheap")
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text().replace("classify: 0.9", "classify: 0.8"))
    certify(terminal, project, "-m", "cheap")
    looks = load_certificates(project / CERTIFICATES).looks
    assert [(look.number, look.n, look.floor) for look in looks] == [
        (1, 60, 0.9),
        (2, 70, 0.9),
        (3, 70, 0.8),
    ]


def test_a_certificate_stays_where_a_later_look_has_too_little_alpha_to_show_it(
    terminal: Terminal, project: Path
) -> None:
    certify(terminal, project, "-m", "dear")
    first = certificates_by_models(project)["dear",]
    for models in (["cheap"], ["cheap", "dear"], ["cheap > dear", "dear"]):
        named = [word for model in models for word in ("-m", model)]
        rows = certify(terminal, project, *named)
    assert certificates_by_models(project)["dear",] == first
    [row] = [row for row in rows if row["models"] == ["dear"]]
    assert "the certificate of" in row["says"]


def test_a_certificate_stays_where_a_later_look_shows_less_and_misses_a_higher_floor(
    terminal: Terminal, project: Path
) -> None:
    certify(terminal, project, "-m", "dear")
    first = certificates_by_models(project)["dear",]
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text().replace("classify: 0.9", "classify: 0.99"))
    [row] = certify(terminal, project, "-m", "dear", "--threshold", "none")
    assert not row["capable"]
    assert certificates_by_models(project)["dear",] == first


def test_certify_says_where_no_route_looks_at_certificates(
    terminal: Terminal, project: Path
) -> None:
    rules = project / "routing_rules" / "rules.yaml"
    picking = terminal("certify", "classify", "--yes", "-m", "dear", cwd=project)
    assert "try:" not in picking.out
    rules.write_text(rules.read_text().replace("pick: cheapest_capable", "try: [dear]"))
    naming = terminal(
        "certify", "classify", "--yes", "-m", "dear", "--replace", cwd=project
    )
    assert "certificate written" in naming.out
    assert "pick: cheapest_capable" in naming.out


def test_a_question_is_asked_only_where_money_may_be_spent(
    terminal: Terminal, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    command = ("certify", "classify", "-m", "cheap")
    assert terminal(*command, cwd=project).code == 1
    catalog = project / "routing_rules" / "catalog.yaml"
    free = re.sub(
        r"input: [\d.]+, output: [\d.]+", "input: 0, output: 0", catalog.read_text()
    )
    catalog.write_text(free)
    assert terminal(*command, cwd=project).code == 0


def test_a_budget_stops_the_measurement_and_what_is_paid_is_kept(
    terminal: Terminal, project: Path, servers: Servers
) -> None:
    """Half a measurement proves nothing, so nothing is written down."""
    done = terminal(
        "certify",
        "classify",
        "--yes",
        "-m",
        "cheap",
        "-m",
        "dear",
        "--budget-usd",
        "0.1",
        cwd=project,
    )
    assert done.code == 1
    assert "answers are paid and kept" in done.err
    assert not (project / CERTIFICATES).exists()
    paid = servers[1].count
    assert (servers[0].count, 0 < paid < 60) == (60, True)
    certify(terminal, project, "-m", "cheap", "-m", "dear")
    assert (servers[0].count, servers[1].count) == (60, 60)


def test_the_estimate_covers_what_repairs_cost(
    terminal: Terminal, project: Path, servers: Servers
) -> None:
    """Nothing can cost more than what is said before, not even a model whose every answer is repaired in vain."""
    servers[1].answer("no JSON at all, however often it is asked")
    done = terminal("certify", "classify", "--yes", "--json", "-m", "dear", cwd=project)
    told = float(done.err.partition("at most ")[2].split()[0])
    [row] = json.loads(done.out)
    assert servers[1].count == 120
    assert told / 3 < 60 * float(row["cost_a_document_usd"]) <= told


def test_who_says_no_pays_nothing(
    terminal: Terminal,
    project: Path,
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    done = terminal("certify", "classify", cwd=project)
    assert done.code == 1
    assert "2 models x 60 examples: at most" in done.err
    assert servers[0].count + servers[1].count == 0


def test_the_table_fits_into_80_columns_and_says_what_to_do(
    terminal: Terminal, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = terminal("certify", "classify", "--yes", cwd=project)
    assert done.code == 0
    table, _, sentences = done.out.partition("cheap: ")
    assert max(map(len, table.splitlines())) <= 80
    assert "classify on classify.jsonl: 60 examples, floor 0.9, 2 compared" in table
    assert "30 of 60" in table
    assert "0.9 needs fewer errors" in sentences
    # More labels are a second look, which has less of alpha.
    more = labels_needed(30, 60, 0.9, alpha=alpha_of_look(2)).if_all_right
    assert f"{more} more without an error" in " ".join(sentences.split())
    assert "2 certificates written to routing_rules/certificates.yaml" in sentences


def test_certifying_without_a_golden_set_is_misuse(
    terminal: Terminal, project: Path
) -> None:
    (project / "golden" / "classify.jsonl").unlink()
    done = terminal("certify", "classify", "--yes", cwd=project)
    assert done.code == 2
    assert "classify.jsonl is missing" in done.err


def test_a_step_that_says_not_what_is_right_cannot_be_certified(project: Path) -> None:
    with Engine(Project(project), env={}) as engine:
        evaluation = Evaluation(
            engine=engine,
            step=replace(CLASSIFY, correct=None),
            golden=load_golden(project / "golden" / "classify.jsonl"),
            parameters=LABELS,
        )
        with pytest.raises(Misuse, match="does not say what a right answer is"):
            compare(evaluation, [("dear",)])


@pytest.mark.parametrize(
    ("chain", "says"),
    [
        ("chaep", "did you mean 'cheap'"),
        ("cheap > cheap", "names a model twice"),
        ("", "no model named ''"),
    ],
)
def test_a_candidate_that_cannot_be_is_misuse(
    terminal: Terminal, project: Path, chain: str, says: str
) -> None:
    done = terminal("certify", "classify", "--yes", "-m", chain, cwd=project)
    assert done.code == 2
    assert says in done.err
