"""What is certified is what runs: a golden row is asked about as production asks about its document."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flows.support_inbox import support_inbox
from tasks.draft import draft
from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin
from tests.kit.terminal import Terminal
from tierwise.documents import iter_documents
from tierwise.engine import Engine
from tierwise.errors import ConfigError
from tierwise.orchestrate.dry_run import dry_run
from tierwise.plan.dry_run_engine import DryRunEngine
from tierwise.project import Project
from tierwise.records import Batch, Document, Outcome
from tierwise.steps.examples import load_golden

LABEL = {"label": "billing", "evidence": "invoice"}
GERMAN = (
    "Guten Tag, meine Rechnung vom Mai stimmt nicht, bitte prüfen Sie das. Anna Vogt"
)
PARAMETERS = {"sender": "The team", "max_words": 60}
REPLY = "Guten Tag, vielen Dank. Wir prüfen Ihre Rechnung und melden uns. The team"
RULES = """
version: 1
floors: {draft: 0.1}
routes:
  - {name: all, try: [writer]}
"""
QUERIES = """
{% if metadata.queries is defined %}
Queries: {{ metadata.queries }}
{% endif %}
Write the reply of"""


@pytest.fixture
def project(tmp_path: Path, standin: Standin) -> Path:
    standin.answer(json.dumps({"reply": REPLY}))
    root = make_project(tmp_path / "project", model("writer", standin.url), rules=RULES)
    prompt = root / "prompts" / "draft.md.j2"
    prompt.write_text(prompt.read_text().replace("Write the reply of", QUERIES, 1))
    (root / "golden").mkdir()
    (root / "golden" / "draft.yaml").write_text(json.dumps({"parameters": PARAMETERS}))
    return root


def write(root: Path, *rows: dict[str, Any]) -> Path:
    path = root / "golden" / "draft.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(number: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"g{number}",
        "text": f"{GERMAN} {number}\n",
        "outcomes": {"classify": LABEL},
        "metadata": {"queries": ["Was ist offen?"]},
        "must_mention": ["Rechnung"],
        **changes,
    }


def asked(request: Request) -> Any:
    return request.body["messages"]


def test_certify_sends_what_production_sends(
    terminal: Terminal, project: Path, standin: Standin
) -> None:
    """Language, metadata and the outcome of the earlier step are in both prompts, byte for byte."""
    write(project, *(row(n) for n in range(5)))
    done = terminal("certify", "draft", "--yes", "-m", "writer", "--json", cwd=project)
    assert done.code == 0, done.err
    [measured] = json.loads(done.out)
    assert (measured["right"], measured["n"]) == (5, 5)
    measured_prompts = [asked(request) for request in standin.requests]

    inbox = project / "inbox"
    inbox.mkdir()
    text = f'---\nqueries: ["Was ist offen?"]\n---\n{GERMAN} 0\n'
    (inbox / "a.md").write_text(text)
    [document] = iter_documents(inbox, sensitivity="internal")
    outcome = Outcome(
        step="classify", status="accepted", value=LABEL, sensitivity="internal"
    )
    with Engine(Project(project), env={}) as engine:
        engine.fresh = True
        run = engine.start_run("test")
        batch = Batch((document.with_outcome(outcome),))
        engine.run_batch(run, draft.spec, batch, PARAMETERS)
    sent = asked(standin.last)
    assert "billing" in sent[-1]["content"]
    assert 'in the language "de"' in sent[-1]["content"]
    assert "Was ist offen?" in sent[-1]["content"]
    assert sent in measured_prompts


def test_a_row_may_say_its_language_and_else_it_is_detected(project: Path) -> None:
    path = write(
        project,
        row(0),
        row(1, language="fr"),
        row(2, text="0815"),
    )
    languages = [e.document().language for e in load_golden(path, at_least=1).examples]
    assert languages == ["de", "fr", None]


def test_what_a_row_says_of_the_document_is_part_of_the_golden_sets_identity(
    project: Path,
) -> None:
    """A row that says nothing keeps the identity that it had before rows could say it."""
    bare = row(0, outcomes={}, metadata={})
    hashes = [
        load_golden(write(project, each), at_least=1).hash
        for each in (
            bare,
            row(0, outcomes={}),
            row(0, metadata={}),
            row(0, metadata={}, outcomes={"classify": {"label": "defect"}}),
            {**bare, "language": "de"},
        )
    ]
    assert len(set(hashes)) == 5
    del bare["outcomes"], bare["metadata"]
    assert load_golden(write(project, bare), at_least=1).hash == hashes[0]


def test_a_row_without_outcomes_that_the_prompt_reads_is_refused(
    terminal: Terminal, project: Path, standin: Standin
) -> None:
    """It would be certified on a prompt that production never sends."""
    rows = [row(n) for n in range(5)]
    del rows[3]["outcomes"]
    path = write(project, *rows)
    done = terminal("certify", "draft", "--yes", "-m", "writer", cwd=project)
    says = (
        "the prompt of draft reads outcomes of earlier steps (classify), and this row gives "
        'none, so another prompt would be measured; add "outcomes": {"classify": {…}} with '
        'their answers, or "outcomes": {} for a document without them, or use '
        "`tierwise certify draft --through FLOW`"
    )
    assert (done.code, standin.count) == (2, 0)
    assert done.err == f"tierwise: {path}:4: {says}\n"
    done = terminal("check", cwd=project)
    assert f"golden/draft.jsonl:4: error: {says}" in done.out
    write(project, *rows[:3], row(3, outcomes={}), rows[4])
    done = terminal("certify", "draft", "--yes", "-m", "writer", cwd=project)
    assert done.code == 0, done.err


def test_a_row_that_the_prompt_does_not_fit_is_found_before_the_first_call(
    terminal: Terminal, project: Path, standin: Standin
) -> None:
    path = write(project, *(row(n, outcomes={"classify": {}}) for n in range(5)))
    done = terminal("certify", "draft", "--yes", "-m", "writer", cwd=project)
    assert (done.code, standin.count) == (2, 0)
    assert done.err.startswith(
        f"tierwise: {path}:1: the prompt draft does not fit this row: "
    )
    assert done.err.endswith(
        "; give the row the outcomes and metadata that production has\n"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"language": 7},
            "`language` is the document's, a code such as 'de' (found 7); "
            "a right answer of that name goes under `expected`",
        ),
        (
            {"metadata": "x"},
            "`metadata` is the document's, and must be an object (found 'x'); "
            "a right answer of that name goes under `expected`",
        ),
        (
            {"outcomes": ["classify"]},
            "`outcomes` is the document's, and must be an object (found ['classify']); "
            "a right answer of that name goes under `expected`",
        ),
        (
            {"outcomes": {"classify": "billing"}},
            "the outcome of 'classify' must be an object with the fields of its answer "
            "(found 'billing')",
        ),
    ],
)
def test_a_damaged_field_of_the_document_is_an_error_with_its_place(
    project: Path, changes: dict[str, Any], says: str
) -> None:
    path = write(project, row(0), row(1, **changes))
    with pytest.raises(ConfigError) as caught:
        load_golden(path, at_least=1)
    assert str(caught.value) == f"{path}:2: {says}"


def test_a_csv_file_has_outcomes_and_metadata_as_json(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(
        'text,outcomes,metadata,language,label\n"my text","{""a"": {""b"": 1}}",,de,x\n'
    )
    [example] = load_golden(path, at_least=1).examples
    assert (example.outcomes, example.metadata) == ({"a": {"b": 1}}, {})
    assert (example.language, dict(example.expected)) == ("de", {"label": "x"})


def test_golden_add_writes_the_outcomes_of_earlier_steps(
    terminal: Terminal, project: Path, standin: Standin
) -> None:
    """What the document had when it came to the step, so that the row is measured as it ran."""
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(
        rules.read_text().replace(
            "  - {name: all",
            "  - {name: checked, when: {step: [draft]}, try: [writer], "
            "review: human}\n  - {name: all",
        )
    )
    classified = json.dumps({"label": "billing", "evidence": "meine Rechnung vom Mai"})
    reply = json.dumps({"reply": REPLY})
    standin.answer(
        lambda request: classified if "label" in str(asked(request)[0]) else reply
    )
    from tests.kit.steps import CLASSIFY, LABELS

    with Engine(Project(project), env={}) as engine:
        run = engine.start_run("inbox")
        document = Document(
            id="a.txt", text=GERMAN, sensitivity="internal", language="de"
        )
        engine.ledger.retention.keep([document])
        batch = engine.run_batch(run, CLASSIFY, Batch((document,)), LABELS)
        engine.run_batch(run, draft.spec, batch, PARAMETERS)
        engine.finish_run(run, "completed")
    done = terminal("review", "latest", "a.txt", "--approve", cwd=project)
    assert done.code == 0, done.err
    terminal("golden", "add", "--step", "draft", "--to", "examples", cwd=project)
    path = project / "golden" / "draft-examples.jsonl"
    [added] = [json.loads(line) for line in path.read_text().splitlines()]
    assert added["outcomes"] == {"classify": json.loads(classified)}
    assert added["expected"] == {"reply": REPLY}


# ---- --through ----------------------------------------------------------------------------------


@pytest.fixture
def inbox(project: Path, standin: Standin) -> Path:
    """A project whose flow classifies, summarises and drafts, and rows without outcomes."""
    folder = project / "examples" / "inbox"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_text("A message that is no golden row, and is left alone.")
    rows = []
    for number in range(7):
        bare = row(number, text=f"{GERMAN} {number}")
        del bare["outcomes"], bare["metadata"]
        rows.append(bare)
    rows[3]["text"] = "Vielen Dank, der Tisch ist wunderbar, ein Lob von Anna. 3"
    rows[4]["text"] = "Guten Tag, unleserlich unleserlich unleserlich, Anna Vogt. 4"
    write(project, *rows)

    def answer(request: Request) -> str:
        system = str(asked(request)[0])
        if "write replies" in system:
            return json.dumps({"reply": REPLY})
        if "sort documents" in system:
            words = " ".join(request.document.split()[:4])
            label = "praise" if "Lob" in request.document else "billing"
            return json.dumps({"label": label, "evidence": words})
        if "unleserlich" in str(request.body):
            return "no"
        return json.dumps({"summary": "Anna Vogt schreibt uns wegen ihrer Rechnung."})

    standin.answer(answer)
    return project


def drafted(standin: Standin) -> list[str]:
    """The last message of each call for a draft."""
    return [
        asked(request)[-1]["content"]
        for request in standin.requests
        if "write replies" in str(asked(request)[0])
    ]


def test_documents_can_be_taken_through_the_earlier_steps_of_a_flow(
    terminal: Terminal, inbox: Path, standin: Standin
) -> None:
    """Those that production would not ask about are left out; the flow's parameters count."""
    through = ("--through", "support_inbox --source examples/inbox")
    done = terminal(
        *("certify", "draft", "--yes", "-m", "writer", "--json", *through), cwd=inbox
    )
    assert done.code == 0, done.err
    [measured] = json.loads(done.out)
    assert (measured["n"], measured["right"]) == (5, 5)
    assert "7 examples through support_inbox up to draft: about " in done.err
    assert "left out g3: the flow's `only=` leaves it out of draft" in done.err
    assert "left out g4: summarize deferred it: " in done.err
    prompts = drafted(standin)
    assert len(prompts) == 5
    assert all("Topic: billing" in prompt for prompt in prompts)
    assert all('in the language "de"' in prompt for prompt in prompts)
    assert not any("is left alone" in str(request.body) for request in standin.requests)
    # production sends the very same, so nothing is paid twice
    source = inbox / "examples" / "inbox" / "a.txt"
    source.write_text(f"{GERMAN} 0")
    calls = standin.count
    with closing(DryRunEngine(Project(inbox), {})) as engine:
        dry_run(support_inbox, {"source": source.parent}, engine)
        [run] = engine.ledger.runs.outcomes(
            engine.ledger.runs.resolve("latest").id, "a.txt", "draft"
        )
    assert run.outcome.status == "accepted"
    assert standin.count == calls


def _labels(label: str) -> Any:
    def answer(request: Request) -> str:
        system = str(asked(request)[0])
        if "write replies" in system:
            return json.dumps({"reply": REPLY})
        if "sort documents" in system:
            words = " ".join(request.document.split()[:4])
            return json.dumps({"label": label, "evidence": words})
        return json.dumps({"summary": "Anna Vogt schreibt uns."})

    return answer


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            "contract_intake",
            "tierwise: the flow contract_intake does not come to the step draft; "
            "name a flow that calls it, with the options that it needs\n",
        ),
        ("", "tierwise: --through needs the name of a flow\n"),
        ("support_inbx", "did you mean 'support_inbox'?\n"),
        ("support_inbox --sorce x", "did you mean '--source'?\n"),
    ],
)
def test_a_flow_that_documents_cannot_be_taken_through_is_misuse(
    terminal: Terminal, inbox: Path, words: str, says: str
) -> None:
    folder = inbox / "examples" / "contracts"
    folder.mkdir()
    (folder / "a.txt").write_text("A contract between two parties.")
    done = terminal("certify", "draft", "--yes", "--through", words, cwd=inbox)
    assert done.code == 2
    assert done.err.endswith(says)


def test_too_few_documents_that_arrive_prove_nothing(
    terminal: Terminal, inbox: Path, standin: Standin
) -> None:
    standin.answer(_labels("praise"))
    done = terminal(
        "certify", "draft", "--yes", "--through", "support_inbox", cwd=inbox
    )
    assert done.code == 2
    assert done.err.endswith(
        "tierwise: 0 examples of 7 came to draft, which is too few to prove anything; "
        "it takes at least 5\n"
    )
