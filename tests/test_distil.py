"""`tierwise distil`: a classifier learns from a teacher within a budget, and is certified to agree."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.classify import classify
from tests.kit.golden_sets import WORDS, right
from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin
from tests.kit.terminal import Terminal
from tierwise.cli.render.last_screen import print_last_screen
from tierwise.engine import Engine
from tierwise.evidence.distil.pool import is_set_aside
from tierwise.policy.certificates import load_certificates
from tierwise.project import CERTIFICATES, Project
from tierwise.records import Batch, Document
from tierwise.report.summary import summarize_run

TOPICS = """
  topics:
    tier: local
    learned: classify
    context_tokens: 1000000
    max_output_tokens: 64
    strength: 5
    price: {input: 0, output: 0, source: this machine, date: 2026-11-01}
"""
RULES = """
version: 1
guards:
  - {name: confidential-stays-local, when: {sensitivity_min: confidential}, allow_tiers: [local]}
agreement_floors: {classify: 0.80}
routes:
  - {name: default, pick: cheapest_capable}
"""
PRICE = "{input: 10, output: 20, source: test, date: 2026-11-01}"
OPENINGS = ["Hello", "Dear team", "Once more", "Sorry", "Good morning", "Hi", "Note"]


@pytest.fixture
def servers() -> Iterator[tuple[Standin, Standin]]:
    with Standin() as here, Standin() as away:
        here.answer(right)
        away.answer(right)
        yield here, away


@pytest.fixture
def project(tmp_path: Path, servers: tuple[Standin, Standin]) -> Path:
    here, away = servers
    root = make_project(
        tmp_path / "project",
        TOPICS,
        model("small", here.url, strength=10),
        model("large", away.url, tier="proprietary", strength=20, price=PRICE),
        rules=RULES,
    )
    (root / "golden").mkdir()
    (root / "golden" / "classify.yaml").write_text(
        f"parameters: {{labels: {json.dumps(list(WORDS))}}}\n"
    )
    inbox(root, 180)
    return root


def inbox(root: Path, size: int, name: str = "inbox.jsonl", **fields: Any) -> Path:
    """Messages without labels, as a table."""
    words = list(WORDS.values())
    rows = [
        {
            "id": f"m{n}",
            "text": f"{OPENINGS[n % 7]} number {n * 7919}, {words[n % 2]}, {'please' if n % 3 else 'thanks'}.",
            **fields,
        }
        for n in range(size)
    ]
    path = root / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def distil(terminal: Terminal, root: Path, *options: object, **changed: Any) -> Any:
    settings = {"--teacher": "large", "--budget-usd": 2, "--source": "inbox.jsonl"}
    settings |= {
        f"--{name.replace('_', '-')}": value for name, value in changed.items()
    }
    given = [part for pair in settings.items() if pair[1] is not None for part in pair]
    return terminal("distil", "classify", *given, "--yes", *options, cwd=root)


def distilled(root: Path) -> list[dict[str, Any]]:
    path = root / "distilled" / "classify.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_classifier_learns_and_is_certified_to_agree(
    project: Path, terminal: Terminal, servers: tuple[Standin, Standin]
) -> None:
    done = distil(terminal, project)
    assert done.code == 0, done.err
    assert "agreement with large" in done.out
    assert "no proof of correctness" in done.out
    assert "capable" not in done.out
    assert "accura" not in done.out
    certificates = load_certificates(project / CERTIFICATES)
    assert certificates.certificates == ()
    [certificate] = certificates.agreements
    assert certificate.shows == "agreement"
    assert certificate.teacher == "large"
    assert certificate.golden == "distilled/classify.jsonl"
    assert certificate.covers(0.8)
    [look] = certificates.looks
    assert look.shows == "agreement"
    # the sample is uniform, and never learned from
    rows = distilled(project)
    purposes = [row["distilled_from"]["for"] for row in rows]
    assert purposes.count("certify") == look.n > 40
    assert len({row["text"] for row in rows}) == len(rows)
    assert {row["distilled_from"]["teacher"] for row in rows} == {"large"}
    assert all(row["distilled_from"]["identity"] for row in rows)
    assert all(row["distilled_from"]["date"] for row in rows)
    # a second call pays for nothing, and is the same look
    _, away = servers
    calls = away.count
    again = distil(terminal, project, "--json")
    assert away.count == calls
    assert json.loads(again.out)["certified"] is True
    assert load_certificates(project / CERTIFICATES).looks == certificates.looks

    # what `explain` and `check` say of it
    now = ("explain", "--step", "classify", "--sensitivity")
    explained = terminal(*now, "internal", cwd=project)
    assert "topics would be asked first" in explained.out, explained.err
    flat = " ".join(explained.out.split())
    assert "agree with large" in flat
    assert "not correctness" in flat
    assert "capable of" not in flat
    secret = terminal(*now, "confidential", cwd=project)
    assert "small would be asked first" in secret.out
    assert "a guard keeps this document from large" in " ".join(secret.out.split())
    checked = terminal("check", cwd=project)
    assert "agreement" not in checked.out + checked.err


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"teacher": "topics"}, "is the classifier that learns"),
        ({"teacher": "lrage"}, "large"),
        ({"budget_usd": None}, "--budget-usd"),
        ({"source": "nowhere"}, "nowhere"),
        ({"certify": 10}, "takes at least"),
        ({"sensitivity": "confidential"}, "confidential-stays-local"),
        ({"sensitivity": "secret"}, "secret"),
    ],
)
def test_what_cannot_lead_to_a_certificate_is_refused_before_a_call(
    project: Path,
    terminal: Terminal,
    servers: tuple[Standin, Standin],
    changed: dict[str, Any],
    words: str,
) -> None:
    done = distil(terminal, project, **changed)
    assert done.code != 0
    assert words in done.err
    assert sum(server.count for server in servers) == 0
    assert not (project / "distilled").exists()
    assert not (project / "learned").exists()


def test_sources_and_rules_that_cannot_do(
    project: Path, terminal: Terminal, servers: tuple[Standin, Standin]
) -> None:
    (project / "empty").mkdir()
    assert distil(terminal, project, source="empty").code != 0
    few = inbox(project, 12, "few.jsonl")
    done = distil(terminal, project, source=few)
    assert done.code != 0
    assert "too few" in done.err
    blank = project / "blank.jsonl"
    blank.write_text('{"id": "a", "text": " "}\n')
    done = distil(terminal, project, source=blank)
    assert done.code != 0
    assert "can be read" in done.err
    rules = project / "routing_rules" / "rules.yaml"
    text = rules.read_text()
    for floors, words in [
        ("", "agreement_floors: {classify: 0.90}"),
        ("agreement_floors: {classify: 1}", "no number of labels"),
        ("agreement_floors: {classify: 0.9999}", "takes at least"),
        ("agreement_floors: {clasify: 0.9}", "classify"),
        ("floors: {classify: 0.9}", "agreement_floors"),
    ]:
        rules.write_text(text.replace("agreement_floors: {classify: 0.80}", floors))
        done = distil(terminal, project)
        assert done.code != 0, floors
        assert words in done.err, floors
    assert sum(server.count for server in servers) == 0


def test_documents_that_the_teacher_may_not_see_are_never_sent(
    project: Path, terminal: Terminal, servers: tuple[Standin, Standin]
) -> None:
    secret = inbox(project, 40, "secret.jsonl", sensitivity="confidential")
    lines = (project / "inbox.jsonl").read_text().splitlines()
    mixed = [json.loads(line) for line in lines]
    for n, line in enumerate(secret.read_text().splitlines()):
        row = json.loads(line)
        mixed.append({**row, "id": f"s{n}", "text": f"Secretly: {row['text']}"})
    (project / "inbox.jsonl").write_text(
        "".join(f"{json.dumps(row)}\n" for row in mixed)
    )
    done = distil(terminal, project)
    assert done.code == 0, done.err
    assert "40 that large may not see" in done.err
    here, away = servers
    assert not any("Secretly" in request.prompt for request in away.requests)
    # a local teacher may see them
    done = distil(terminal, project, teacher="small", budget_usd=1)
    assert done.code == 0, done.err
    assert "may not see" not in done.err
    assert "large is stronger than small" in done.err
    assert any("Secretly" in request.prompt for request in here.requests)


def test_a_teacher_with_other_labels_is_refused_and_not_learned_from(
    project: Path, terminal: Terminal, servers: tuple[Standin, Standin]
) -> None:
    servers[1].answer('{"label": "weather", "evidence": "number"}')
    done = distil(terminal, project)
    assert done.code != 0
    assert "no acceptable answer" in done.err
    assert ", ".join(WORDS) in done.err
    assert not (project / "learned").exists()


def test_a_budget_that_ends_half_way_is_a_hard_limit_and_the_next_call_goes_on(
    project: Path, terminal: Terminal, servers: tuple[Standin, Standin]
) -> None:
    whole = json.loads(distil(terminal, project, "--json").out)["spent_usd"]
    cost = float(whole)
    for folder in ("distilled", "learned", ".tierwise"):
        import shutil

        shutil.rmtree(project / folder)
    (project / CERTIFICATES).unlink()
    half = json.loads(distil(terminal, project, "--json", budget_usd=cost / 5).out)
    assert half["certified"] is False
    assert float(half["spent_usd"]) <= cost / 5
    assert not (project / CERTIFICATES).exists()
    paid = servers[1].count
    rest = json.loads(distil(terminal, project, "--json", budget_usd=cost).out)
    assert rest["certified"] is True
    assert float(rest["spent_usd"]) < cost * 0.9
    assert servers[1].count - paid < paid


def test_what_is_paid_is_kept_when_it_is_stopped(
    project: Path, terminal: Terminal, servers: tuple[Standin, Standin]
) -> None:
    import signal

    seen = 0

    def answer(request: Request) -> str:
        nonlocal seen
        seen += 1
        if seen == 30:
            signal.raise_signal(signal.SIGINT) if (
                threading.current_thread() is threading.main_thread()
            ) else signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return right(request)

    servers[1].answer(answer)
    done = distil(terminal, project)
    assert done.code != 0
    kept = len(distilled(project))
    assert 20 <= kept < 100
    servers[1].answer(right)
    calls = servers[1].count
    done = distil(terminal, project)
    assert done.code == 0, done.err
    rows = len(distilled(project))
    assert servers[1].count - calls <= rows - kept


@pytest.mark.parametrize("reviewer", ["", "anna"])
@pytest.mark.parametrize("is_marked", [True, False])
def test_a_teachers_labels_are_no_golden_rows(
    project: Path, terminal: Terminal, *, is_marked: bool, reviewer: str
) -> None:
    assert distil(terminal, project).code == 0
    rows = distilled(project)
    if not is_marked:
        # copied by hand, with a new id and other spaces
        rows = [
            {
                "id": f"x{n}",
                "text": f"{row['text']}  ",
                "label": row["expected"]["label"],
            }
            for n, row in enumerate(rows)
        ]
    if reviewer:
        rows = [{**row, "reviewer": reviewer} for row in rows]
    golden = project / "golden" / "classify.jsonl"
    golden.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text() + "floors: {classify: 0.5}\n")
    certified = terminal("certify", "classify", "-m", "small", "--yes", cwd=project)
    checked = terminal("check", cwd=project)
    if reviewer and not is_marked:
        assert certified.code == 0, certified.err
        assert "no correctness" not in checked.out + checked.err
        return
    assert certified.code != 0
    assert "classify.jsonl:1" in certified.err
    assert "no correctness" in certified.err
    assert checked.code != 0
    assert "no correctness" in " ".join((checked.out + checked.err).split())
    golden.rename(project / "golden" / "classify-hard.jsonl")
    other = terminal(
        *("certify", "classify", "-m", "small", "--yes"),
        *("--golden", "golden/classify-hard.jsonl"),
        cwd=project,
    )
    assert other.code != 0
    assert "no correctness" in other.err


def test_the_labels_of_people_keep_their_classifier(
    project: Path, terminal: Terminal, servers: tuple[Standin, Standin]
) -> None:
    words = list(WORDS.items())
    rows = [
        {
            "id": f"p{n}",
            "text": f"Row {n}: {words[n % 2][1]}.",
            "label": words[n % 2][0],
        }
        for n in range(30)
    ]
    path = project / "golden" / "classify-examples.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert terminal("train", "classify", cwd=project).code == 0
    done = distil(terminal, project)
    assert done.code != 0
    assert "trained on people's labels" in done.err
    assert "classify-distilled" in done.err
    assert servers[1].count == 0


def later(size: int) -> Batch:
    """Documents of a week after, none of which the teacher has seen."""
    words = list(WORDS.values())
    documents = [
        Document(
            id=f"later-{n}",
            text=f"Later, {OPENINGS[n % 7]}, number {n * 7919}, {words[n % 2]}.",
            sensitivity="internal",
        )
        for n in range(size)
    ]
    return Batch(tuple(documents))


def run_later(engine: Engine, batch: Batch) -> str:
    """Run the step over documents, and return the run's id."""
    with engine.recorded_run("week") as run:
        done = engine.run_batch(run, classify.spec, batch, {"labels": list(WORDS)})
    outcomes = [document.outcomes["classify"] for document in done.load()]
    assert {outcome.model for outcome in outcomes} == {"topics"}
    return run.id


def test_nothing_that_is_shown_of_a_run_calls_agreement_correctness(
    project: Path, terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    assert distil(terminal, project).code == 0
    with Engine(Project(project), env={}) as engine:
        run = run_later(engine, later(5))
        capsys.readouterr()
        print_last_screen(summarize_run(engine.ledger.runs, run), engine)
    screen = capsys.readouterr().out
    assert "agreement with large, which is no proof of correctness" in screen
    assert "proven" not in screen
    shown = " ".join(terminal("show", run, cwd=project).out.split())
    assert "certified for agreement with large alone" in shown
    report = project / "report.html"
    terminal("report", run, "--out", report, cwd=project)
    assert "agreement with large, not correctness" in report.read_text()
    explained = terminal("explain", "later-1", "--run", run, "--json", cwd=project)
    [decision] = json.loads(explained.out)
    assert '"agrees_with": {"topics": "large"}' in json.dumps(decision)


def test_labels_of_samples_turn_agreement_into_correctness(
    project: Path, terminal: Terminal
) -> None:
    """Counted samples alone, in their order, and none that is hard is left out."""
    (project / "pyproject.toml").write_text('[tool.tierwise]\nkeep_text = "all"\n')
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text() + "shadow: {share: 1}\n")
    assert distil(terminal, project).code == 0
    batch = later(400)
    with Engine(Project(project), env={}) as engine:
        run_later(engine, batch)
        assert terminal("golden", "samples", "classify", cwd=project).code != 0
        counted = [
            sample
            for sample in engine.ledger.samples.of_step("classify")
            if sample.counted and not sample.shadow
        ]
        aside = {
            document.hash for document in batch.load() if is_set_aside(document.text)
        }
        asked_again = next(each for each in counted if each.document_hash in aside)
        # the last but one has no label, so nothing counts from there on
        for sample in counted[:-2]:
            engine.ledger.samples.label(sample.item, "accepted", "anna")
        engine.ledger.samples.label(asked_again.item, "neither", "anna")
        engine.ledger.samples.label(counted[-1].item, "accepted", "anna")
    hard = asked_again.item
    refused = terminal("golden", "samples", "classify", cwd=project)
    assert refused.code != 0
    assert f"--answer {hard}=LABEL" in refused.err
    assert not (project / "golden" / "classify-sampled.jsonl").exists()
    for answer, words in [("weather", "weather"), ("", "ID=LABEL")]:
        done_ = terminal(
            "golden", "samples", "classify", "--answer", f"{hard}={answer}", cwd=project
        )
        assert done_.code != 0
        assert words in done_.err
    other = next(label for label in WORDS if label != asked_again.value["label"])
    written = terminal(
        "golden", "samples", "classify", "--answer", f"{hard}={other}", cwd=project
    )
    assert written.code == 0, written.err
    assert "may have been taught" in written.err
    path = project / "golden" / "classify-sampled.jsonl"
    golden = [json.loads(line) for line in path.read_text().splitlines()]
    assert 40 < len(golden) < len(counted) - 2
    assert {row["reviewer"] for row in golden} == {"anna"}
    # the answer stays for the next call
    again = terminal("golden", "samples", "classify", cwd=project)
    assert again.code == 0, again.err
    assert [json.loads(line) for line in path.read_text().splitlines()] == golden
    # correctness, in the ordinary way
    rules.write_text(rules.read_text() + "floors: {classify: 0.8}\n")
    certified = terminal(
        *("certify", "classify", "-m", "topics", "--yes"),
        *("--golden", "golden/classify-sampled.jsonl"),
        cwd=project,
    )
    assert certified.code == 0, certified.err
    [certificate] = load_certificates(project / CERTIFICATES).certificates
    assert certificate.covers(0.8)
    explained = terminal(
        "explain", "--step", "classify", "--sensitivity", "confidential", cwd=project
    )
    assert "capable of 0.8" in " ".join(explained.out.split())
