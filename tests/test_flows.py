"""The flows as a user runs them: Prefect, the command line, real files, and providers on real sockets."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.kit.projects import ROOT, make_project, model
from tests.kit.standin import Standin, status, unused_address
from tests.kit.terminal import Terminal

INBOX = {
    "a.txt": "The parcel with my desk has not arrived, the tracking page says nothing since Monday.",
    "b.txt": "Thank you for the lovely chair, it is the best thing in my whole office. No need to answer.",
    "c.md": "---\nsensitivity: confidential\n---\nAfter my operation I cannot lift the desk, please send somebody.",
}


def answer(topic: str) -> object:
    """A provider that classifies as told and otherwise answers with words of the document."""

    def reply(request: object) -> str:
        properties = request.schema["properties"]  # type: ignore[attr-defined]
        words = " ".join(request.document.split()[:6])  # type: ignore[attr-defined]
        return json.dumps(
            {name: topic if name == "label" else words for name in properties}
        )

    return reply


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(answer("delivery"))
        yield server


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    for name, text in INBOX.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def project(tmp_path: Path, provider: Standin) -> Path:
    return make_project(
        tmp_path / "project",
        model("small", provider.url),
        model("large", provider.url, strength=20),
    )


def test_a_folder_of_messages_is_sorted_summarised_and_answered(
    prefect_server: str,
    terminal: Terminal,
    project: Path,
    inbox: Path,
    provider: Standin,
) -> None:
    """The main job from the command line: files in, files and a table out, exit code 0."""
    done = terminal(
        "run", "support_inbox", "--source", inbox, "--out", project / "out", cwd=project
    )
    assert done.code == 0, done.err
    lines = [
        json.loads(line)
        for line in (project / "out" / "outcomes.jsonl").read_text().splitlines()
    ]
    assert [line["id"] for line in lines] == ["a.txt", "b.txt", "c.md"]
    assert all(
        line["outcomes"][step]["status"] == "accepted"
        for line in lines
        for step in line["outcomes"]
    )
    assert "classify" in done.out
    assert "9" in done.out
    assert "3 documents, 0 deferred, 9 calls" in done.out
    assert "make ui" in done.out
    assert provider.count == 9
    # Outside a terminal the progress is plain lines; the first says what is set up.
    assert "setting up" in done.err.splitlines()[0]
    assert "starting Prefect" in done.err
    assert "3 documents: 3 accepted, 0 deferred." in done.out
    assert "classify: 3 by " in done.out
    assert "tierwise show " in done.out
    assert "tierwise explain a.txt classify" in done.out


def test_a_second_run_pays_nothing_and_a_fresh_one_pays_again(
    prefect_server: str,
    terminal: Terminal,
    project: Path,
    inbox: Path,
    provider: Standin,
) -> None:
    """Results are the same bytes; what was paid is reused."""
    command = ("run", "support_inbox", "--source", inbox, "--out")
    terminal(*command, project / "one", cwd=project)
    again = terminal(*command, project / "two", cwd=project)
    assert provider.count == 9
    assert "9 reused" in again.out
    assert (project / "one/outcomes.jsonl").read_bytes() == (
        project / "two/outcomes.jsonl"
    ).read_bytes()
    terminal(*command, project / "three", "--fresh", cwd=project)
    assert provider.count == 18


def test_praise_is_not_answered(
    prefect_server: str,
    terminal: Terminal,
    project: Path,
    inbox: Path,
    provider: Standin,
) -> None:
    """A step that does not apply is skipped with its reason and costs nothing."""
    provider.answer(answer("praise"))
    terminal(
        "run", "support_inbox", "--source", inbox, "--out", project / "out", cwd=project
    )
    line = json.loads((project / "out" / "outcomes.jsonl").read_text().splitlines()[0])
    assert line["outcomes"]["draft"] | {"value": None} == line["outcomes"]["draft"]
    assert line["outcomes"]["draft"]["status"] == "skipped"
    assert "needs_reply" in line["outcomes"]["draft"]["reason"]
    assert provider.count == 6


def test_prefect_shows_task_runs_named_for_people_and_the_summary(
    prefect_server: str, terminal: Terminal, project: Path, inbox: Path
) -> None:
    """An operator sees what was done to which documents, and the table of the run."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    done = terminal(
        "run",
        "support_inbox",
        "--source",
        inbox,
        "--out",
        project / "out",
        "--json",
        cwd=project,
    )
    flow_run_id = json.loads(done.out)["run"]["flow_run_id"]
    with get_client(sync_client=True) as client:
        chosen = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run_id]))
        for _ in range(100):
            names = {run.name for run in client.read_task_runs(flow_run_filter=chosen)}
            if len(names) == 3:
                break
        artifacts = client.read_artifacts(flow_run_filter=chosen)
    assert names == {
        f"{step} · documents 1-3 of 3" for step in ("classify", "summarize", "draft")
    }
    shown = {artifact.key: artifact.data for artifact in artifacts if artifact.key}
    assert set(shown) == {"support-inbox-summary", "support-inbox-attention"}
    assert "small" in shown["support-inbox-summary"]


def test_the_same_flow_goes_to_three_tiers_by_configuration_alone(
    prefect_server: str,
    terminal: Terminal,
    tmp_path: Path,
    inbox: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """classify to a local server, summarize to a Clarifai-hosted model, draft to Anthropic: seen at the sockets."""
    (inbox / "c.md").unlink()
    monkeypatch.setenv("CLARIFAI_PAT", "clarifai-key")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "anthropic-key")
    with Standin() as local, Standin() as clarifai, Standin() as anthropic:
        for server in (local, clarifai, anthropic):
            server.answer(answer("delivery"))
        hosted = "openai/https://clarifai.com/mistralai/completion/models/Ministral-3-3B-Instruct-2512"
        root = make_project(
            tmp_path / "project",
            model("house", local.url),
            model("ministral", clarifai.clarifai_url, tier="clarifai")
            .replace("openai/ministral", hosted)
            .replace("/v1/v1", "/v1")
            .replace("api_key: test", 'api_key: "${CLARIFAI_PAT|CLARIFAI_API_KEY}"'),
            model("claude", anthropic.url, tier="proprietary")
            .replace("openai/claude", "anthropic/claude-haiku-5-5")
            .replace("/v1", "")
            .replace("api_key: test", 'api_key: "${ANTHROPIC_API_KEY}"'),
            rules="""
            version: 1
            routes:
              - {name: classify, when: {step: classify}, try: [house]}
              - {name: summarize, when: {step: summarize}, try: [ministral]}
              - {name: draft, try: [claude]}
            """,
        )
        done = terminal(
            "run", "support_inbox", "--source", inbox, "--out", root / "out", cwd=root
        )
    assert done.code == 0, done.err
    assert {r.path for r in local.requests} == {"/v1/chat/completions"}
    assert {r.model for r in local.requests} == {"house"}
    assert all(
        "sort documents" in r.body["messages"][0]["content"] for r in local.requests
    )

    assert {r.path for r in clarifai.requests} == {"/v2/ext/openai/v1/chat/completions"}
    assert {r.model for r in clarifai.requests} == {hosted.removeprefix("openai/")}
    assert {r.headers["authorization"] for r in clarifai.requests} == {
        "Bearer clarifai-key"
    }
    assert all(
        "summarize documents" in r.body["messages"][0]["content"]
        for r in clarifai.requests
    )

    assert {r.path for r in anthropic.requests} == {"/v1/messages"}
    assert {r.model for r in anthropic.requests} == {"claude-haiku-5-5"}
    assert {r.headers["x-api-key"] for r in anthropic.requests} == {"anthropic-key"}
    assert all(
        "write replies" in json.dumps(r.body["system"]) for r in anthropic.requests
    )
    assert (local.count, clarifai.count, anthropic.count) == (2, 2, 2)


def test_contracts_give_terms_with_quotations_a_summary_and_a_risk(
    prefect_server: str,
    terminal: Terminal,
    project: Path,
    provider: Standin,
    tmp_path: Path,
) -> None:
    """The second flow on the shipped contracts, all four formats."""

    def reply(request: object) -> str:
        properties = request.schema["properties"]  # type: ignore[attr-defined]
        words = " ".join(request.document.split()[:5])  # type: ignore[attr-defined]
        values = {"label": "low", "evidence": words, "summary": words}
        return json.dumps(
            {
                name: values.get(name, {"quote": words, "value": words})
                for name in properties
            }
        )

    provider.answer(reply)
    shutil.copytree(ROOT / "examples" / "contracts", tmp_path / "contracts")
    done = terminal(
        "run",
        "contract_intake",
        "--source",
        tmp_path / "contracts",
        "--out",
        project / "out",
        cwd=project,
    )
    assert done.code == 0, done.err
    lines = [
        json.loads(line)
        for line in (project / "out" / "outcomes.jsonl").read_text().splitlines()
    ]
    assert len(lines) == 4
    for line in lines:
        assert {step: o["status"] for step, o in line["outcomes"].items()} == {
            "extract": "accepted",
            "summarize": "accepted",
            "classify": "accepted",
        }
        assert set(line["outcomes"]["extract"]["value"]) == {
            "first_party",
            "second_party",
            "effective_date",
            "governing_law",
            "term",
        }


def test_a_file_that_cannot_be_read_is_deferred_with_its_reason_and_the_rest_goes_on(
    prefect_server: str, terminal: Terminal, project: Path, inbox: Path
) -> None:
    (inbox / "broken.pdf").write_bytes(b"%PDF-1.4 not really")
    (inbox / "empty.txt").write_text("")
    done = terminal(
        "run", "support_inbox", "--source", inbox, "--out", project / "out", cwd=project
    )
    assert done.code == 0, done.err
    lines = {
        line["id"]: line["outcomes"]
        for line in map(
            json.loads, (project / "out" / "outcomes.jsonl").read_text().splitlines()
        )
    }
    assert len(lines) == 5
    assert (
        lines["broken.pdf"]["read"]["status"]
        == lines["empty.txt"]["read"]["status"]
        == "deferred"
    )
    assert lines["a.txt"]["draft"]["status"] == "accepted"
    assert "5 documents, 2 deferred" in done.out
    assert "broken.pdf" in done.out


def test_strict_makes_a_deferred_document_a_failure(
    prefect_server: str, terminal: Terminal, project: Path, inbox: Path
) -> None:
    (inbox / "empty.txt").write_text("")
    command = (
        "run",
        "support_inbox",
        "--strict",
        "--source",
        inbox,
        "--out",
        project / "out",
    )
    assert terminal(*command, cwd=project).code == 1


def test_a_missing_folder_is_misuse(
    prefect_server: str, terminal: Terminal, project: Path
) -> None:
    done = terminal("run", "support_inbox", "--source", "no/such/folder", cwd=project)
    assert done.code == 2
    assert "no/such/folder" in done.err
    assert "Traceback" not in done.err


def test_a_server_that_refuses_connections_defers_everything_and_fails(
    prefect_server: str, terminal: Terminal, tmp_path: Path, inbox: Path
) -> None:
    """Nothing is lost: every document is in the results, with the reason."""
    (
        inbox / "b.txt"
    ).unlink()  # one document a model: one that fails five times in a row rests for half a minute
    rules = """
    version: 1
    routes:
      - {name: confidential, when: {sensitivity_min: confidential}, try: [small]}
      - {name: rest, try: [large]}
    """
    entries = (model(name, unused_address()) for name in ("small", "large"))
    root = make_project(tmp_path / "p", *entries, rules=rules)
    done = terminal(
        "run", "support_inbox", "--source", inbox, "--out", root / "out", cwd=root
    )
    assert done.code == 1
    assert "Deferred: 2" in done.out
    lines = [
        json.loads(line)
        for line in (root / "out" / "outcomes.jsonl").read_text().splitlines()
    ]
    assert [line["outcomes"]["classify"]["status"] for line in lines] == [
        "deferred"
    ] * 2


def test_an_unset_key_defers_with_the_variable_to_set(
    prefect_server: str,
    terminal: Terminal,
    tmp_path: Path,
    inbox: Path,
    provider: Standin,
) -> None:
    keyed = model("small", provider.url, tier="proprietary").replace(
        "api_key: test", 'api_key: "${NO_SUCH_KEY}"'
    )
    root = make_project(tmp_path / "p", keyed, rules=RULES_SMALL)
    done = terminal(
        "run", "support_inbox", "--source", inbox, "--out", root / "out", cwd=root
    )
    assert done.code == 1
    assert "set NO_SUCH_KEY" in done.out
    assert provider.count == 0


RULES_SMALL = dedent(
    """
    version: 1
    routes: [{name: all, try: [small]}]
    """
)


def test_answers_of_every_bad_kind_end_in_an_accepted_or_deferred_document(
    prefect_server: str,
    terminal: Terminal,
    project: Path,
    inbox: Path,
    provider: Standin,
) -> None:
    """Faults in a row through the whole flow: nothing is lost."""
    provider.faults([status(500), status(429, retry_after=0), status(400), status(503)])
    done = terminal(
        "run", "support_inbox", "--source", inbox, "--out", project / "out", cwd=project
    )
    assert done.code == 0, done.err
    lines = (project / "out" / "outcomes.jsonl").read_text().splitlines()
    assert len(lines) == 3


@pytest.mark.parametrize("flow", ["support_inbox", "contract_intake"])
def test_the_flows_say_what_they_take(
    terminal: Terminal, project: Path, flow: str
) -> None:
    """`tierwise run FLOW --help` lists the flow's own options with their defaults."""
    done = terminal("run", flow, "--help", cwd=project)
    assert done.code == 0
    for option in ("--source", "--sensitivity", "--budget-usd", "--out"):
        assert option in done.out
    # An option of the command is listed once, also where the flow has a parameter for it.
    options = re.findall(r"^[ │]+(--[\w-]+)", done.out, re.MULTILINE)
    assert "--detach" in options
    assert len(options) == len(set(options))
