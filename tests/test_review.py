"""What waits for a person, what a person decides, and what later runs make of it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.kit.ledgers import DATABASES, migrated_url
from tests.kit.projects import make_project, model
from tests.kit.standin import Standin
from tests.kit.terminal import Done, Terminal
from tierwise.cascade.known_outcomes import Retry
from tierwise.engine import Engine
from tierwise.errors import Misuse
from tierwise.explain.diff import past
from tierwise.project import Project
from tierwise.records import Batch, Document
from tierwise.review.queue import edit, find_item, plan_retry, planned
from tierwise.steps.checks import evidence_is_quoted, label_is_allowed
from tierwise.steps.step import Step

LABELS = {"labels": ["billing", "delivery"], "descriptions": {}}
TEXTS = {
    "a.txt": "The parcel with my desk has not arrived and nobody answers the phone.",
    "b.txt": "Please send the invoice for my desk once more, the first one got lost.",
    "c.txt": "The doctor says that I must not lift the desk, so send somebody to carry it.",
}
INVENTED = json.dumps({"label": "delivery", "evidence": "words that nobody wrote"})
MINE = '{"label": "billing", "evidence": "send the invoice"}'


class Classification(BaseModel):
    label: str
    evidence: str


class Note(BaseModel):
    note: str


CLASSIFY = Step(
    name="classify",
    returns=Classification,
    prompt="classify",
    choices={"label": "labels"},
    checks=(label_is_allowed, evidence_is_quoted),
)
SUMMARIZE = Step(name="summarize", returns=Note, prompt="summarize")
RULES = """
version: 1
routes:
  - {name: default, try: [small]}
"""


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(INVENTED)
        yield server


@pytest.fixture(params=DATABASES)
def project(request: pytest.FixtureRequest, tmp_path: Path, provider: Standin) -> Path:
    """A project with three messages and one model, whose answers fail until a test says otherwise."""
    root = make_project(tmp_path, model("small", provider.url), rules=RULES)
    (root / "pyproject.toml").write_text(
        f'[tool.tierwise]\nledger_url = "{migrated_url(request.param, tmp_path)}"\n'
    )
    (root / "inbox").mkdir()
    for name, text in TEXTS.items():
        (root / "inbox" / name).write_text(text)
    return root


def documents(*names: str) -> tuple[Document, ...]:
    """Some of the messages; the last one is confidential."""
    made = (
        Document(id=name, text=TEXTS[name], sensitivity="internal")
        for name in names or TEXTS
    )
    return tuple(
        replace(d, sensitivity="confidential") if d.id == "c.txt" else d for d in made
    )


def run(
    project: Path, *names: str, retry: Retry | None = None
) -> tuple[str, dict[str, Document]]:
    """A run over the messages: classify, then summarize. Its id, and the documents."""
    with Engine(Project(project), env={}) as engine:
        engine.retry = retry
        context = engine.start_run("support-inbox", parameters={"source": "inbox"})
        batch = engine.run_batch(context, CLASSIFY, Batch(documents(*names)), LABELS)
        batch = engine.run_batch(context, SUMMARIZE, batch, {"max_words": 9})
        engine.finish_run(context, "completed")
        return context.id, {document.id: document for document in batch.load()}


def status(documents: dict[str, Document], step: str = "classify") -> list[str]:
    return [document.outcomes[step].status for document in documents.values()]


def test_what_waits_is_listed_with_its_reason_its_faults_and_its_cost(
    project: Path, terminal: Terminal
) -> None:
    run(project)
    done = terminal("review", cwd=project)
    assert done.code == 0, done.err
    assert "3 wait" in done.out
    assert "small grounding" in done.out
    assert "words that are not in the document" in done.out
    assert "confidential" in done.out
    [first, *_] = json.loads(terminal("review", "--json", cwd=project).out)
    assert (
        first["document"],
        first["step"],
        first["attempts"][0]["failed"].keys(),
    ) == (
        "a.txt",
        "classify",
        {"grounding"},
    )
    assert float(first["cost_usd"]) > 0


def test_one_document_is_shown_with_its_text_and_every_answer(
    project: Path, terminal: Terminal
) -> None:
    """The text is found again in the run's source."""
    run(project)
    out = terminal("review", "latest", "b.txt", cwd=project).out
    assert TEXTS["b.txt"] in out
    assert "words that nobody wrote" in out
    assert "failed grounding" in out


def test_a_text_that_was_changed_since_is_not_shown_as_the_one_that_was_asked_about(
    project: Path, terminal: Terminal
) -> None:
    run(project)
    (project / "inbox" / "b.txt").write_text("Something else altogether.")
    out = terminal("review", "latest", "b.txt", cwd=project).out
    assert "not kept" in out
    assert "Something else" not in out


def test_an_edited_answer_is_accepted_at_once_and_taken_by_the_next_run(
    project: Path, terminal: Terminal, provider: Standin
) -> None:
    """The next run does not ask for it again, and goes on to the next step."""
    first, _ = run(project)
    calls = provider.count
    done = terminal(
        "review",
        first,
        "b.txt",
        "--edit",
        MINE,
        "--by",
        "ada",
        "--note",
        "an invoice",
        cwd=project,
    )
    assert done.code == 0, done.err
    assert "edited by ada: an invoice" in done.out
    shown = json.loads(
        terminal("show", first, "--documents", "--json", cwd=project).out
    )
    [line] = [
        d
        for d in shown["documents"]
        if (d["document"], d["step"]) == ("b.txt", "classify")
    ]
    assert line["status"] == "accepted"
    assert shown["run"]["deferred"] == 2
    _, again = run(project, "b.txt")
    outcome = again["b.txt"].outcomes["classify"]
    assert (outcome.status, outcome.value, outcome.model) == (
        "accepted",
        json.loads(MINE),
        None,
    )
    assert "edited by ada" in outcome.reason
    assert again["b.txt"].outcomes["summarize"].status != "skipped"
    assert all(
        "classify" not in str(r.body.get("response_format"))
        for r in provider.requests[calls:]
    )


def test_an_answer_that_does_not_fit_the_step_is_refused_and_nothing_is_decided(
    project: Path, terminal: Terminal
) -> None:
    first, _ = run(project)
    for wrong, why in [
        ('{"label": "praise", "evidence": "x"}', "label: 'praise' is not one of"),
        ('{"label": "billing"}', "'evidence' is a required property"),
        ('{"label": "billing", "evidence": 5}', "evidence: 5 is not of type"),
        ("{nonsense", "does not fit"),
    ]:
        done = terminal("review", first, "b.txt", "--edit", wrong, cwd=project)
        assert (done.code, done.out) == (2, "")
        assert why in done.err
    assert "3 wait" in terminal("review", first, cwd=project).out


def test_an_answer_may_come_from_a_file_or_an_editor(
    project: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = run(project)
    (project / "mine.json").write_text(MINE)
    assert (
        terminal("review", first, "a.txt", "--edit", "mine.json", cwd=project).code == 0
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"cp {project / 'mine.json'}")
    done = terminal("review", first, "b.txt", "--editor", cwd=project)
    assert (done.code, "edited by" in done.out) == (0, True), done.err
    monkeypatch.setenv("EDITOR", "false")
    done = terminal("review", first, "c.txt", "--editor", cwd=project)
    assert (done.code, "nothing was decided" in done.err) == (2, True)


def test_an_answer_that_failed_a_check_can_be_approved_by_its_number(
    project: Path, terminal: Terminal
) -> None:
    """A person overrules the checks; what is no answer at all stays out."""
    first, _ = run(project)
    assert (
        "there is no attempt 4"
        in terminal(
            "review", first, "a.txt", "--approve", "--attempt", 4, cwd=project
        ).err
    )
    assert (
        terminal(
            "review", first, "a.txt", "--approve", "--attempt", 1, cwd=project
        ).code
        == 0
    )
    shown = json.loads(
        terminal(
            "review", first, "a.txt", "--step", "classify", "--json", cwd=project
        ).out
    )
    assert (shown["status"], shown["value"]) == ("accepted", json.loads(INVENTED))


def test_an_answer_that_waits_for_a_look_is_approved_as_it_is(
    project: Path, terminal: Terminal, provider: Standin
) -> None:
    (project / "routing_rules" / "rules.yaml").write_text(
        RULES.replace("try: [small]", "try: [small], review: human")
    )
    provider.answer(json.dumps({"label": "delivery", "evidence": "has not arrived"}))
    first, before = run(project, "a.txt")
    assert status(before) == ["deferred"]
    assert "delivery" in terminal("review", cwd=project).out
    assert terminal("review", first, "a.txt", "--approve", cwd=project).code == 0
    _, after = run(project, "a.txt")
    outcome = after["a.txt"].outcomes["classify"]
    assert (outcome.status, outcome.value["label"], outcome.model) == (
        "accepted",
        "delivery",
        "small",
    )


def test_a_rejected_document_is_done_with_and_later_steps_skip_it(
    project: Path, terminal: Terminal, provider: Standin
) -> None:
    first, _ = run(project, "a.txt")
    terminal("review", first, "a.txt", "--reject", "--note", "spam", cwd=project)
    assert "nothing waits" in terminal("review", cwd=project).out
    calls = provider.count
    _, after = run(project, "a.txt")
    assert status(after) == ["rejected"]
    assert (
        after["a.txt"].outcomes["summarize"].status,
        after["a.txt"].outcomes["summarize"].reason,
    ) == (
        "skipped",
        "classify was rejected",
    )
    assert provider.count == calls


def test_the_last_decision_counts_all_stay_and_one_can_be_taken_back(
    project: Path, terminal: Terminal
) -> None:
    first, _ = run(project, "b.txt")
    for arguments in (["--reject"], ["--edit", MINE], ["--reopen"]):
        assert (
            terminal(
                "review",
                first,
                "b.txt",
                "--step",
                "classify",
                *arguments,
                "--by",
                "ada",
                cwd=project,
            ).code
            == 0
        )
    shown = json.loads(
        terminal(
            "review", first, "b.txt", "--step", "classify", "--json", cwd=project
        ).out
    )
    assert shown["status"] == "deferred"
    assert [d["decision"] for d in shown["decisions"]] == [
        "rejected",
        "edited",
        "reopened",
    ]
    _, after = run(project, "b.txt")
    assert status(after) == ["deferred"]
    done = terminal(
        "review", first, "b.txt", "--step", "classify", "--reopen", cwd=project
    )
    assert (done.code, "nothing was decided" in done.err) == (2, True)


def test_a_decision_holds_for_the_same_text_and_question_only(project: Path) -> None:
    """Other parameters ask something else; another name for the same text does not."""
    first, _ = run(project, "b.txt")
    with Engine(Project(project), env={}) as engine:
        edit(
            engine.ledger,
            find_item(engine.ledger, first, "b.txt", "classify"),
            MINE,
            by="ada",
        )
        context = engine.start_run("other")
        copy = Document(id="copy.txt", text=TEXTS["b.txt"], sensitivity="confidential")
        [same] = engine.run_batch(context, CLASSIFY, Batch((copy,)), LABELS).load()
        [other] = engine.run_batch(
            context, CLASSIFY, Batch((copy,)), LABELS | {"labels": ["billing", "x"]}
        ).load()
        [longer] = engine.run_batch(
            context, CLASSIFY, Batch((replace(copy, text=copy.text + "!"),)), LABELS
        ).load()
    assert (
        same.outcomes["classify"].status,
        same.outcomes["classify"].sensitivity,
    ) == (
        "accepted",
        "confidential",
    )
    assert other.outcomes["classify"].status == "deferred"
    assert longer.outcomes["classify"].status == "deferred"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["latest", "nobody.txt"], "no document named 'nobody.txt'"),
        (["latest", "a.txt", "--approve", "--reject"], "decide once"),
        (["--approve"], "name the document"),
        (["latest", "a.txt", "--attempt", "1"], "goes with --approve"),
        (["latest", "a.txt", "--step", "draft"], "no outcome of the step 'draft'"),
        (["-i"], "asks at a terminal"),
    ],
)
def test_a_wrong_command_says_what_is_right(
    project: Path, terminal: Terminal, arguments: list[str], why: str
) -> None:
    run(project, "a.txt")
    done = terminal("review", *arguments, cwd=project)
    assert (done.code, why in done.err) == (2, True), done.err


def test_a_document_that_could_not_be_read_is_dismissed_but_never_accepted(
    project: Path, terminal: Terminal
) -> None:
    from tierwise.records import Outcome

    with Engine(Project(project), env={}) as engine:
        context = engine.start_run("flow")
        unread = Document(id="x.pdf", text="")
        engine.record(
            context,
            unread,
            Outcome(step="read", status="deferred", reason="the file is empty"),
        )
        engine.finish_run(context, "completed")
    for refused in ("--approve", "--edit={}"):
        done = terminal("review", context.id, "x.pdf", refused, cwd=project)
        assert done.code == 2
    note = "an empty scan"
    done = terminal(
        "review", context.id, "x.pdf", "--reject", "--note", note, cwd=project
    )
    assert done.code == 0, done.err
    assert "x.pdf" not in terminal("review", "--json", cwd=project).out
    assert terminal("review", context.id, "x.pdf", "--reopen", cwd=project).code == 0
    assert "x.pdf" in terminal("review", "--json", cwd=project).out
    # Sent again: the next retry reads the file.
    assert terminal("review", context.id, "x.pdf", "--again", cwd=project).code == 0
    assert "x.pdf" not in terminal("review", "--json", cwd=project).out
    assert terminal("audit", "verify", cwd=project).code == 0


def at_a_terminal(project: Path, typed: list[tuple[str, str]], *arguments: str) -> Done:
    """The command on a real terminal: each text is typed when its prompt stands there and a key is waited for."""
    control, terminal = pty.openpty()
    command = [sys.executable, "-m", "tierwise", "review", *arguments]
    child = subprocess.Popen(
        command, cwd=project, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE
    )
    os.close(terminal)
    shown, seen = "", 0
    for prompt, text in typed:
        while prompt not in shown[seen:]:
            shown += os.read(control, 65536).decode()
        seen = len(shown)
        while len(text) == 1 and termios.tcgetattr(control)[3] & termios.ICANON:
            time.sleep(0.01)
        os.write(control, text.encode())
    with contextlib.suppress(OSError):  # the other side is closed
        while part := os.read(control, 65536):
            shown += part.decode()
    errors = child.communicate(timeout=60)[1]
    os.close(control)
    return Done(child.returncode, shown, errors.decode())


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_keys_decide_one_after_the_other_at_a_terminal(
    project: Path, terminal: Terminal
) -> None:
    """Approve the first, reject the second with a note, skip the third."""
    first, _ = run(project)
    typed = [("q quit", "a"), ("q quit", "r"), ("Why", "spam\n"), ("q quit", "s")]
    done = at_a_terminal(project, typed, first, "-i", "--by", "ada")
    assert done.code == 0, done.err
    assert "2 decided, 1 still wait" in done.out
    assert TEXTS["a.txt"][:40] in done.out
    shown = [
        json.loads(
            terminal(
                "review", first, n, "--step", "classify", "--json", cwd=project
            ).out
        )
        for n in TEXTS
    ]
    assert [s["status"] for s in shown] == ["accepted", "rejected", "deferred"]
    assert shown[1]["decisions"][0]["note"] == "spam"


def test_a_retry_asks_only_what_waited_and_takes_the_rest_as_it_was(
    project: Path, provider: Standin
) -> None:
    """The documents that are left out keep their outcomes, deferred ones too, so that results are complete again."""
    first, _ = run(project)
    provider.answer(
        json.dumps({"label": "delivery", "evidence": "the desk", "note": "a desk"})
    )
    calls = provider.count
    with Engine(Project(project), env={}) as engine:
        plan = plan_retry(engine.ledger, first, "classify").retry
        some = replace(plan, again=frozenset({"a.txt"}))
    _, after = run(project, retry=some)
    assert status(after) == ["deferred", "deferred", "deferred"]
    assert provider.count == calls, (
        "the failed answer was paid, so it is reused and fails again"
    )
    (project / "prompts" / "classify.md.j2").write_text(
        (project / "prompts" / "classify.md.j2")
        .read_text()
        .replace("You sort documents.", "You sort letters.")
    )
    provider.answer(
        lambda r: json.dumps(
            {"label": "delivery", "evidence": r.document[:20], "note": "a desk"}
        )
    )
    retried, after = run(project, retry=some)
    assert status(after) == ["accepted", "deferred", "deferred"]
    assert status(after, "summarize") == ["accepted", "skipped", "skipped"]
    assert provider.count == calls + 2
    with Engine(Project(project), env={}) as engine:
        found = past(engine.ledger, [engine.ledger.runs.resolve(retried)])
    decisions = [(case.document_id, case.features.step) for case in found.cases]
    assert decisions == [("a.txt", "classify"), ("a.txt", "summarize")], (
        "what was taken over is a decision of the earlier run"
    )


def test_a_retry_chooses_by_step_and_reason(project: Path) -> None:
    first, _ = run(project)
    with Engine(Project(project), env={}) as engine:
        assert plan_retry(engine.ledger, first).waiting == frozenset(TEXTS)
        for_grounding = plan_retry(engine.ledger, first, "classify", "GROUNDING")
        assert for_grounding.waiting == frozenset(TEXTS)
        for step, reason in (("draft", ""), (None, "budget")):
            with pytest.raises(
                Misuse, match=r"deferred no such document; 3 were deferred in all"
            ):
                plan_retry(engine.ledger, first, step, reason)


def test_what_a_later_run_settled_is_not_deferred_anew_by_a_retry_of_the_old_run(
    project: Path, provider: Standin
) -> None:
    """A retry that means other documents lets it through, with the answer paid for then."""
    first, _ = run(project)
    with Engine(Project(project), env={}) as engine:
        every = plan_retry(engine.ledger, first).retry
    prompt = project / "prompts" / "classify.md.j2"
    old = "You sort documents."
    prompt.write_text(prompt.read_text().replace(old, "You sort letters."))
    provider.answer(
        lambda r: json.dumps(
            {"label": "delivery", "evidence": r.document[:20], "note": "a desk"}
        )
    )
    run(project, retry=replace(every, again=frozenset({"b.txt"})))
    with Engine(Project(project), env={}) as engine:
        waiting = {row.document_id for row in engine.ledger.runs.queue()}
        assert waiting == {"a.txt", "c.txt"}
        plan = planned(engine.ledger, first, frozenset({"a.txt"}), waiting)
    assert plan.waiting == frozenset({"a.txt"})
    _, after = run(project, retry=plan.retry)
    assert status(after) == ["accepted", "accepted", "deferred"]


def test_after_a_review_a_retry_goes_on_with_the_later_steps(
    project: Path, provider: Standin
) -> None:
    first, before = run(project, "b.txt")
    assert status(before, "summarize") == ["skipped"]
    with Engine(Project(project), env={}) as engine:
        edit(
            engine.ledger,
            find_item(engine.ledger, first, "b.txt", "classify"),
            MINE,
            by="ada",
        )
        plan = plan_retry(engine.ledger, first).retry
    provider.answer('{"note": "an invoice"}')
    _, after = run(project, "b.txt", retry=plan)
    assert (status(after), status(after, "summarize")) == (["accepted"], ["accepted"])


FLOW = '''
from pathlib import Path

from prefect import flow

from tasks.classify import classify
from tierwise import RunSummary, read_documents, recorded_run, write_documents


@flow(name="sort-inbox")
def sort_inbox(
    source: Path = Path("inbox"), labels: list[str] = ["billing"], limit: int | None = None, deep: bool = True
) -> RunSummary:
    """Sort a folder."""
    with recorded_run() as run:
        sorted_ = classify.map(read_documents(source, sensitivity="internal"), labels=labels)
        write_documents(sorted_, Path("out"))
    return run.summary()
'''


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_retry_runs_the_flow_again_with_the_same_parameters(
    prefect_server: str,
    project: Path,
    terminal: Terminal,
    provider: Standin,
    own_modules: None,
) -> None:
    """Lists and missing values are given again as they were; the results hold every document of the run."""
    (project / "flows" / "sort_inbox.py").write_text(FLOW)
    provider.answer(
        lambda r: INVENTED if "invoice" in r.document else answer(r.document)
    )
    done = terminal(
        "run",
        "sort_inbox",
        "--labels",
        '["billing", "delivery", "praise"]',
        cwd=project,
    )
    assert "1 deferred" in done.out, done.err
    (project / "inbox" / "new.txt").write_text(
        "A message that came later and is none of this run's business."
    )
    assert terminal("review", "latest", "b.txt", "--edit", MINE, cwd=project).code == 0
    calls = provider.count
    done = terminal("retry", cwd=project)
    assert done.code == 0, done.err
    assert "1 of 3 documents" in done.err
    assert "Of 1 that waited, 1 are done and 0 still wait." in done.err
    assert provider.count == calls
    lines = [
        json.loads(line)
        for line in (project / "out" / "outcomes.jsonl").read_text().splitlines()
    ]
    assert [(line["id"], line["outcomes"]["classify"]["status"]) for line in lines] == [
        (n, "accepted") for n in TEXTS
    ]
    assert lines[1]["outcomes"]["classify"]["value"] == json.loads(MINE)


def answer(text: str) -> str:
    return json.dumps({"label": "delivery", "evidence": text[:20]})


def test_a_run_that_was_no_flow_cannot_be_tried_again(
    project: Path, terminal: Terminal
) -> None:
    with Engine(Project(project), env={}) as engine:
        context = engine.start_run("certify classify: small")
        engine.run_batch(context, CLASSIFY, Batch(documents("a.txt")), LABELS)
        engine.finish_run(context, "completed")
    done = terminal("retry", cwd=project)
    assert (done.code, "a flow that this project does not have" in done.err) == (
        2,
        True,
    ), done.err


def test_decisions_become_golden_rows_once_and_confidential_ones_only_when_asked(
    project: Path, terminal: Terminal
) -> None:
    """Approved and edited ones, with where they are from; never a text that stands in either file."""
    first, _ = run(project)
    for name in ("a.txt", "b.txt", "c.txt"):
        terminal("review", first, name, "--edit", MINE, "--by", "ada", cwd=project)
    done = terminal("golden", "add", first, cwd=project)
    assert "2 added to golden/classify.jsonl" in done.out, done.err
    assert "left out c.txt: it is confidential" in done.err
    rows = [
        json.loads(line)
        for line in (project / "golden" / "classify.jsonl").read_text().splitlines()
    ]
    assert [row["id"] for row in rows] == ["a.txt", "b.txt"]
    assert rows[1]["text"] == TEXTS["b.txt"]
    assert rows[1]["expected"] == json.loads(MINE)
    assert (rows[1]["source"], rows[1]["reviewer"], rows[1]["sensitivity"]) == (
        f"{first}/b.txt",
        "ada",
        "internal",
    )
    done = terminal(
        "golden",
        "add",
        first,
        "--to",
        "examples",
        "--include-confidential",
        cwd=project,
    )
    assert "1 added to golden/classify-examples.jsonl" in done.out
    assert "left out a.txt: its text is in classify.jsonl already" in done.err
    done = terminal("golden", "add", first, cwd=project)
    assert "nothing was added" in done.out


def test_golden_rows_are_read_as_examples_whatever_the_answer_holds(
    project: Path, terminal: Terminal
) -> None:
    from tierwise.steps.examples import load_golden

    first, _ = run(project, "a.txt", "b.txt")
    (project / "golden").mkdir()
    (project / "golden" / "classify.jsonl").write_text(
        '{"id": "a.txt", "text": "other", "label": "billing"}'
    )
    terminal("review", first, "a.txt", "--edit", MINE, cwd=project)
    done = terminal("golden", "add", first, cwd=project)
    assert done.code == 0, done.err
    one, two = load_golden(project / "golden" / "classify.jsonl", at_least=1).examples
    assert (one.id, two.id, two.text, dict(two.expected)) == (
        "a.txt",
        "a.txt~2",
        TEXTS["a.txt"],
        json.loads(MINE),
    )


def test_without_a_decision_there_is_nothing_to_learn(
    project: Path, terminal: Terminal
) -> None:
    first, _ = run(project, "a.txt")
    terminal("review", first, "a.txt", "--reject", cwd=project)
    done = terminal("golden", "add", first, cwd=project)
    assert (done.code, "no answer was approved or edited" in done.err) == (2, True)
