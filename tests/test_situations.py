"""How a run ends and what it says, in every situation in which documents wait or none came.

Each is a command of a user against a provider on a real socket and a real Prefect server. The same
cause has to be in the exit code, in Prefect's state and artifact, on the terminal, in the report's
attention list, and in the command that helps.
"""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from prefect.client.orchestration import get_client
from prefect.exceptions import FailedRun, PrefectHTTPStatusError
from prefect.flow_engine import run_flow

from tests.kit.letters import age
from tests.kit.modules import modules_apart
from tests.kit.projects import PRICE, make_project, model
from tests.kit.standin import Fault, Request, Standin, status, unused_address
from tests.kit.terminal import Terminal
from tierwise.cli.commands import COMMANDS
from tierwise.cli.program import load
from tierwise.errors import Misuse
from tierwise.ledger import DeferredRow, Ledger, RunRow
from tierwise.orchestrate.parameters import refuse_unknown_parameters
from tierwise.project import Project
from tierwise.records import Cause
from tierwise.report.attention import command_again
from tierwise.report.causes import REMEDIES, by_cause, command_for

DOCUMENTS = 4
RULES = "version: 1\nroutes: [{name: all, try: [small]}]\n"
# With retries, which only a flow that raises may set off.
FLOW = '''
from pathlib import Path
from prefect import flow
from tasks.classify import classify
from tierwise import RunSummary, read_documents, recorded_run

HOOKS = []

def applies(document) -> bool:
    return "skip" not in document.text

def completed(flow, run, state):
    HOOKS.append(f"completed as {state.name}")

def failed(flow, run, state):
    HOOKS.append(f"failed as {state.name}")

@flow(name="sort-letters", retries=2, on_completion=[completed], on_failure=[failed])
def sort_letters(source: Path = Path("inbox"), budget_usd: float = 1, only_new: bool = False) -> RunSummary:
    """Sort a folder."""
    with recorded_run(budget_usd=budget_usd) as run:
        letters = read_documents(source, sensitivity="internal", only_new=only_new)
        for future in classify.map(letters, labels=["order"], descriptions={}, only=applies):
            future.result()
        return run.summary()
'''


def good(request: Request) -> str:
    return json.dumps({"label": "order", "evidence": request.document[:8]})


def half(request: Request) -> str | Fault:
    number = int(request.document.split()[1])
    return good(request) if number % 2 else status(500, "boom")


class Inbox:
    """A project with some letters, and a provider that answers all of them."""

    def __init__(self, root: Path, standin: Standin) -> None:
        self.root = root
        self.standin = standin
        small = model("small", standin.url, tier="proprietary")
        make_project(root, small, rules=RULES)
        (root / "flows" / "sort_letters.py").write_text(FLOW)
        (root / "inbox").mkdir()
        standin.answer(good)
        self.letters("Letter {} has an order.")

    def letters(self, text: str) -> None:
        for number in range(DOCUMENTS):
            path = self.root / "inbox" / f"{number}.txt"
            path.write_text(text.format(number))
            os.utime(path, (1, 1))  # old enough for `only_new`

    def edit(self, file: str, before: str, after: str) -> None:
        path = self.root / "routing_rules" / file
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))


Prepare = Callable[[Inbox], None]


def provider(fault: Fault) -> Prepare:
    return lambda inbox: inbox.standin.answer(lambda _: fault)


def catalog(before: str, after: str) -> Prepare:
    return lambda inbox: inbox.edit("catalog.yaml", before, after)


def rules(before: str, after: str) -> Prepare:
    return lambda inbox: inbox.edit("rules.yaml", before, after)


def at(address: str) -> Prepare:
    return lambda inbox: inbox.edit("catalog.yaml", inbox.standin.url, address)


def empty(inbox: Inbox) -> None:
    for path in (inbox.root / "inbox").iterdir():
        path.unlink()


GUARD = "guards: [{name: never, when: {sensitivity_min: public}, allow_tiers: [local]}]\nroutes:"
FLOOR = "floors: {classify: 0.9}\nroutes:"


@dataclass(frozen=True)
class Situation:
    """What is prepared, and what has to come of it."""

    prepare: Prepare
    says: str  # the terminal, and the artifact where documents wait
    cause: Cause | None = None
    faults: str = ""  # in the attention list
    options: tuple[str, ...] = ()
    code: int = 0
    prefect: str = "Completed"  # the name of the state; Failed has its type as well
    command: str = ""  # in the attention list


def failed(prepare: Prepare, cause: Cause, says: str, command: str, **more: Any) -> Situation:  # fmt: skip
    """All documents wait, and not for a person by design."""
    return Situation(prepare, says, cause, code=1, prefect="Failed", command=command, **more)  # fmt: skip


SITUATIONS = {
    "all 500": failed(
        provider(status(500, "boom")),
        "outage",
        "small: server error 500 at 127.0.0.1",
        "tierwise retry RUN",
        faults="small: server errors",
    ),
    "all 429": failed(
        provider(status(429)),
        "outage",
        "too many requests (429) at 127.0.0.1",
        "tierwise retry RUN",
        faults="small: rate limit",
    ),
    "no such host": failed(
        at("https://no-such-host.invalid"),
        "outage",
        "no such host at https://no-such-host.invalid: is the address right?",
        "tierwise retry RUN",
        faults="small: cannot be reached",
    ),
    "nothing listens": failed(
        at(unused_address()),
        "outage",
        "is the server running?",
        "tierwise retry RUN",
        faults="small: cannot be reached",
    ),
    "wrong key": failed(
        provider(status(401, "bad")),
        "setup",
        "the key is missing, wrong or not allowed",
        "tierwise doctor",
        faults="small: key refused",
    ),
    "account empty": failed(
        provider(status(402, "no credit")),
        "setup",
        "no credit left at 127.0.0.1",
        "tierwise doctor",
        faults="small: no credit left",
    ),
    "key not set": failed(
        catalog("api_key: test", 'api_key: "${NO_SUCH_KEY}"'),
        "setup",
        "set NO_SUCH_KEY",
        "tierwise doctor",
    ),
    "request refused": failed(
        provider(status(400, "bad")),
        "refused",
        "the provider rejected the request (400)",
        "tierwise explain 0.txt classify --run RUN",
        faults="small: request rejected",
    ),
    "budget empty": failed(
        lambda _: None,
        "budget",
        "No money left: 4 documents",
        "tierwise run sort_letters --source inbox --budget-usd 1",
        options=("--budget-usd", "0"),
    ),
    "no price": failed(
        catalog(PRICE, "unknown"),
        "unpriced",
        "unknown price; add the model to budget.allow_unpriced",
        "tierwise models",
    ),
    "a guard": failed(
        rules("routes:", GUARD),
        "no_model",
        "guard never",
        "tierwise explain 0.txt classify --run RUN",
    ),
    "no good answer": failed(
        provider(Fault(text="no JSON")),
        "failed_checks",
        "small: schema",
        "tierwise review RUN",
    ),
    "unreadable": failed(
        lambda inbox: inbox.letters(""),
        "unreadable",
        "the file is empty",
        "tierwise show RUN --documents",
    ),
    "half of them 500": Situation(
        lambda inbox: inbox.standin.answer(half),
        "small: server error 500 at 127.0.0.1",
        "outage",
        prefect="NeedsAttention",
        command="tierwise retry RUN",
        faults="small: server errors",
    ),
    "review by design": Situation(
        rules("try: [small]", "try: [small], review: human"),
        "For a person's review: 4 documents",
        "review",
        prefect="NeedsAttention",
        command="tierwise review RUN",
    ),
    "no certificate": Situation(
        rules("routes:", FLOOR),
        "Each answer of the first model in its route passed all checks.",
        command="tierwise certify classify",
    ),
    "all skipped": Situation(
        lambda inbox: inbox.letters("skip {}"),
        "Every document was skipped: no step applied to it.",
    ),
    "empty folder": Situation(
        empty,
        "Nothing new in inbox: there are no documents.",
        options=("--only-new", "true"),
        prefect="NothingNew",
    ),
}


@pytest.fixture
def inbox(tmp_path: Path, standin: Standin) -> Iterator[Inbox]:
    with modules_apart():
        yield Inbox(tmp_path / "p", standin)


@dataclass(frozen=True)
class Ended:
    """A run as the ledger and Prefect have it."""

    run: RunRow
    deferred: list[DeferredRow]
    state: Any
    tags: list[str]
    attempts: int  # of the flow
    artifact: str


def last_run(root: Path) -> Ended:
    with Ledger.open(root=root) as ledger:
        [run] = ledger.runs.newest(1)
        deferred = ledger.runs.deferred(run.id)
    assert run.flow_run_id
    of_run = {"artifacts": {"flow_run_id": {"any_": [run.flow_run_id]}}}
    with get_client(sync_client=True) as client:
        flow_run: Any = client.read_flow_run(run.flow_run_id)  # type: ignore[arg-type]
        artifacts = client.request("POST", "/artifacts/filter", json=of_run).json()
    pages = [each["data"] for each in artifacts if each["key"] == "sort-letters-attention"]  # fmt: skip
    return Ended(run, deferred, flow_run.state, flow_run.tags, flow_run.run_count, "".join(pages))  # fmt: skip


def attention(terminal: Terminal, root: Path, run: str) -> tuple[str, str]:
    """What `tierwise show` lists of a run, and the section of its report."""
    items = json.loads(terminal("show", run, "--json", cwd=root).out)["attention"]
    shown = "\n".join(f"{item['text']}: {item['command']}" for item in items)
    page = Path(terminal("report", run, cwd=root).out.strip()).read_text()
    section = page[page.index('id="attention"') :]
    return shown, html.unescape(section[: section.index("</section>")])


@pytest.mark.parametrize("name", SITUATIONS)
def test_a_run_says_how_it_ended_and_what_helps(
    prefect_server: str, terminal: Terminal, inbox: Inbox, name: str
) -> None:
    wanted = SITUATIONS[name]
    wanted.prepare(inbox)
    done = terminal("run", "sort_letters", *wanted.options, cwd=inbox.root)
    ended = last_run(inbox.root)
    shown, section = attention(terminal, inbox.root, ended.run.id)
    printed = " ".join(done.out.split())
    assert done.code == wanted.code, done.err
    assert {row.cause for row in ended.deferred} == ({wanted.cause} - {None})
    assert ended.run.state == ("waiting" if wanted.code else "completed")

    # Prefect: the type for those who ask for it, the name for automations, and never a retry.
    expected_type = "FAILED" if wanted.code else "COMPLETED"
    assert (ended.state.type.value, ended.state.name) == (expected_type, wanted.prefect)
    assert ended.attempts == 1

    assert wanted.says in printed
    if wanted.cause is not None:
        title = REMEDIES[wanted.cause].title
        assert title in printed
        assert f"{title[1:]}: " in ended.state.message
        assert wanted.says in ended.artifact or title in wanted.says
        assert f"## {title}: {len(ended.deferred)}" in ended.artifact
        assert f"{title}: {len(ended.deferred)} documents" in shown
        assert f"{title}: {len(ended.deferred)} documents" in section
        assert "NeedsAttention" in ended.tags
    command = wanted.command.replace("RUN", ended.run.id)
    for place in (shown, section):
        assert wanted.faults in place
        assert command in place
    if wanted.cause is not None:
        assert command in printed

    # What is not so, is said nowhere.
    said = printed + shown + section + ended.artifact
    assert ("a price is missing" in said.lower()) == (name == "no price")
    assert "circuit open" not in said
    assert ("in force" in section) == (name == "no certificate")
    first_passed = "Each answer of the first model in its route passed all checks."
    assert (first_passed in printed) == (name == "no certificate")


def test_a_run_that_finds_nothing_new_says_what_it_looked_at(
    prefect_server: str, terminal: Terminal, inbox: Inbox
) -> None:
    watch = ("run", "sort_letters", "--only-new", "true")
    for path in (inbox.root / "inbox").iterdir():
        age(path)
    terminal(*watch, cwd=inbox.root)
    done = terminal(*watch, cwd=inbox.root)
    nothing = "othing new in inbox: 4 documents were done before"
    assert (done.code, nothing in done.out) == (0, True)
    assert "passed all checks" not in done.out
    ended = last_run(inbox.root)
    assert (ended.state.name, ended.tags) == ("NothingNew", ["NothingNew"])
    assert nothing in ended.state.message
    _, section = attention(terminal, inbox.root, ended.run.id)
    shown = terminal("show", ended.run.id, cwd=inbox.root).out
    assert "no document in inbox went through this run" in shown
    assert "Nothing was looked at: no document in inbox went through this run." in section  # fmt: skip


def test_a_missing_source_is_misuse_and_fails_the_run(
    prefect_server: str, terminal: Terminal, inbox: Inbox
) -> None:
    done = terminal("run", "sort_letters", "--source", "nowhere", cwd=inbox.root)
    assert done.code == 2
    assert "nowhere: there is no such file or folder" in done.err
    assert last_run(inbox.root).state.name == "Failed"


@pytest.mark.parametrize(
    ("setting", "fault", "code"),
    [("never", status(500), 0), ("0 %", None, 1), ("49.9 %", None, 1), ("50 %", None, 0)],
)  # fmt: skip
def test_the_share_of_waiting_documents_that_fails_a_run_is_a_setting(
    prefect_server: str,
    terminal: Terminal,
    inbox: Inbox,
    setting: str,
    fault: Fault | None,
    code: int,
) -> None:
    inbox.standin.answer(half if fault is None else lambda _: fault)
    settings = inbox.root / "pyproject.toml"
    settings.write_text(f'[tool.tierwise]\nfail_when_waiting = "{setting}"\n')
    assert terminal("run", "sort_letters", cwd=inbox.root).code == code
    assert last_run(inbox.root).state.is_failed() == bool(code)


def test_the_setting_is_refused_where_it_is_no_share(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Project(inbox.root).fail_when_waiting == 50
    monkeypatch.setenv("TIERWISE_FAIL_WHEN_WAITING", "never")
    assert Project(inbox.root).fail_when_waiting == 100
    for wrong in ("50", "100 %", "-1 %", "half"):
        monkeypatch.setenv("TIERWISE_FAIL_WHEN_WAITING", wrong)
        with pytest.raises(Misuse, match="TIERWISE_FAIL_WHEN_WAITING is"):
            _ = Project(inbox.root).fail_when_waiting


def test_a_flow_that_python_calls_returns_its_summary_and_its_state_is_failed(
    prefect_server: str, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller gets the result, the exit code and the hooks of a failed run; nothing is retried."""
    inbox.standin.answer("no JSON")
    monkeypatch.chdir(inbox.root)
    flow = Project(inbox.root).load_flow("sort_letters")
    summary = flow()
    hooks = sys.modules["flows.sort_letters"].HOOKS
    assert (summary.run.deferred, summary.exit_code) == (DOCUMENTS, 1)
    assert hooks == ["failed as Failed"]
    state = flow(return_state=True)
    assert (state.is_failed(), state.name) == (True, "Failed")
    with pytest.raises(FailedRun, match="4 of 4 documents wait"):
        state.result()
    assert last_run(inbox.root).attempts == 1
    inbox.standin.answer(good)
    inbox.letters("Parcel {} is an order.")
    hooks.clear()
    assert flow(return_state=True).is_completed()
    assert flow().exit_code == 0
    assert hooks == ["completed as Completed"] * 2


# ---- parameters that a flow does not take


def test_an_unknown_parameter_of_a_deployment_is_refused_in_the_ui_and_the_api(
    prefect_server: str, inbox: Inbox
) -> None:
    """And where a server took it, at the start of the run, with the name that was meant."""
    flow = Project(inbox.root).load_flow("sort_letters")
    with get_client(sync_client=True) as client:
        deployment = client.create_deployment(
            client.create_flow(flow),
            "letters",
            parameter_openapi_schema=flow.parameters.model_dump(),
            enforce_parameter_schema=True,
        )
        refuse_unknown_parameters()
        url = f"/deployments/{deployment}/create_flow_run"
        good = {"parameters": {"source": "inbox", "only_new": True}}
        assert client.request("POST", url, json=good).status_code == 201  # type: ignore[arg-type]
        with pytest.raises(PrefectHTTPStatusError) as refused:
            client.request("POST", url, json={"parameters": {"sorce": "inbox"}})  # type: ignore[arg-type]
    answer = refused.value.response
    assert answer.status_code == 409
    assert "'sorce' is not one of ['source', 'budget_usd', 'only_new']" in answer.text

    state = run_flow(flow, parameters={"sorce": "inbox"}, return_type="state")
    assert state.is_failed()
    assert "no parameter named 'sorce'; did you mean 'source'?" in state.message
    assert inbox.standin.count == 0


def test_up_refuses_a_deployment_with_an_unknown_parameter_before_it_starts_anything(
    terminal: Terminal, inbox: Inbox
) -> None:
    """Of the deployment or of one of its schedules; `check` finds both."""
    (inbox.root / "prefect.yaml").write_text(
        "deployments:\n"
        "  - name: letters\n"
        "    entrypoint: flows/sort_letters.py:sort_letters\n"
        "    parameters: {source: inbox}\n"
        "    schedules: [{cron: '0 * * * *', parameters: {only_nwe: true}}]\n"
    )
    meant = "sort_letters takes no parameter named 'only_nwe'; did you mean 'only_new'?"
    done = terminal("up", cwd=inbox.root)
    assert (done.code, f"prefect.yaml:5: {meant}" in done.err) == (2, True)
    assert not (inbox.root / ".tierwise" / "services" / "server.pid").exists()
    checked = terminal("check", "--no-flows", cwd=inbox.root)
    assert f"prefect.yaml:5: error: {meant}" in checked.out


# ---- the table of remedies


RUN = RunRow(
    id="20261128-120000-abcd",
    flow="sort-letters",
    flow_run_id="f",
    flow_run_name=None,
    state="waiting",
    started_at=0,
    finished_at=1,
    documents=1,
    accepted=0,
    deferred=1,
    attempts=0,
    reused=0,
    cost_known=Decimal(0),
    cost_unknown=0,
    budget_usd=Decimal(2),
    parameters={"source": "my inbox", "budget_usd": 2},
    policy_hash="",
    tierwise_version="",
)


def test_every_cause_has_a_title_and_a_remedy() -> None:
    assert set(REMEDIES) == set(get_args(Cause))
    assert len({remedy.title for remedy in REMEDIES.values()}) == len(REMEDIES)


@pytest.mark.parametrize("cause", [None, *get_args(Cause)])
def test_each_remedys_command_is_one_that_the_command_line_takes(
    cause: Cause | None,
) -> None:
    """The command itself parses it, so that a renamed command or option is found."""
    row = DeferredRow(
        document_id="a b.txt",
        step="classify",
        reason="why",
        cause=cause,
        model=None,
        sensitivity="internal",
    )
    [(remedy, _, rows)] = by_cause([row])
    line = command_for(remedy, RUN, rows[0], command_again(RUN))
    program, name, *words = shlex.split(line)
    assert program == "tierwise"
    [command] = [load(each) for each in COMMANDS if each.name == name]
    context = command.make_context(name, words)
    takes_flow_options = name == "run"
    assert bool(context.args) == takes_flow_options
    for command_in_text in re.findall(r"`tierwise (\w+)", remedy.text):
        assert command_in_text in {each.name for each in COMMANDS}
