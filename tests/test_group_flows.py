"""Flows with groups: planned, run, watched, moved, detached and explained like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from tasks.classify import classify
from tasks.summarize import summarize
from tests.kit.batch_standin import BatchStandin, StandinPrice
from tests.kit.batched import batched_project
from tests.kit.desk import desk_at
from tests.kit.letters import age
from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin, status
from tests.kit.terminal import Terminal
from tierwise import (
    Document,
    group_by,
    read_documents,
    recorded_run,
    task_runner,
    write_documents,
)
from tierwise.errors import Misuse
from tierwise.ledger import Ledger
from tierwise.orchestrate.dry_run import dry_run
from tierwise.orchestrate.process_state import engine
from tierwise.plan import Planner
from tierwise.project import Project
from tierwise.review.queue import find_texts

RULES = "version: 1\nroutes: [{name: all, try: [small]}]\n"


def label_of(document: Document) -> str:
    found = classify.of(document)
    assert found is not None
    return found.label


@flow(name="topics", task_runner=task_runner())
def topics(
    source: Path = Path("in"),
    out: Path = Path("out"),
    done: Path | None = None,
    only_new: bool = False,
    shard: str = "1/1",
) -> Any:
    with recorded_run(budget_usd=1) as run:
        letters = read_documents(
            source,
            sensitivity="internal",
            batch_size=2,
            done=done,
            only_new=only_new,
            shard=shard,
        )
        kinds = classify.map(letters, labels=["order", "other"], descriptions={})
        groups = group_by(kinds, label_of, batch_size=1)
        write_documents(summarize.map(groups, max_words=40), out)
    return run.summary()


def answer(request: Request) -> str:
    text = request.document
    if "label" in (request.schema or {})["properties"]:
        if "unclear" in text:
            return "none"
        label = "order" if "order" in text else "other"
        return json.dumps({"evidence": text.split(",")[0], "label": label})
    return json.dumps({"summary": f"They wrote {text.count('wrote this')} letters."})


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    age(path)


@pytest.fixture
def project(
    tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    standin.answer(answer)
    root = make_project(tmp_path / "project", model("small", standin.url), rules=RULES)
    monkeypatch.chdir(root)
    for number in range(1, 6):
        word = "an order" if number % 2 else "a greeting"
        put(root / f"in/{number}.txt", f"We wrote this as {word}, number {number}.")
    yield root
    engine().retry = None


def results(root: Path, folder: str = "out") -> dict[str, list[str]]:
    """The members of each group in the results whose summary was accepted."""
    lines = (root / folder / "outcomes.jsonl").read_text().splitlines()
    found = {}
    for line in lines:
        row = json.loads(line)
        if row["outcomes"]["summarize"]["status"] == "accepted":
            found[row["id"]] = [member["id"] for member in row["members"]]
    return found


def test_a_flow_with_groups_is_planned_run_and_explained(
    prefect_server: str, project: Path, standin: Standin, terminal: Terminal
) -> None:
    plan = planned(project)
    assert [(row.step, row.documents) for row in plan.routes] == [
        ("classify", 5),
        ("summarize", 1),  # groups of five are assumed
    ]
    assert (plan.documents, sum(plan.assumed.values())) == (5, 5)

    summary = topics()
    assert results(project) == {
        "group/order": ["1.txt", "3.txt", "5.txt"],
        "group/other": ["2.txt", "4.txt"],
    }
    assert standin.count == 5 + 2
    again = topics()
    assert (standin.count, again.run.cost_known) == (7, 0)

    of_group = json.loads(terminal("explain", "group/order", "--json", cwd=project).out)
    assert [row["step"] for row in of_group] == ["group_by", "summarize"]
    assert of_group[1]["members"] == ["1.txt", "3.txt", "5.txt"]
    [of_member] = json.loads(terminal("explain", "3.txt", "--json", cwd=project).out)
    assert of_member["groups"] == ["group/order"]
    assert "group/order" in terminal("explain", "3.txt", cwd=project).out
    assert "5.txt" in terminal("explain", "group/order", cwd=project).out
    # now that it is on record, keys that were paid for are known
    assert planned(project).assumed == {}

    with Ledger.open(root=project) as ledger:
        row = ledger.runs.resolve(summary.run.id)
        [outcome] = ledger.runs.outcomes(row.id, "group/other", "summarize")
        texts = find_texts(ledger, Project(project), row, [outcome.document_hash])
        assert texts[outcome.document_hash].count("We wrote this") == 2
    with desk_at(project) as served:
        browser = served.signed_in()
        page = browser.get(f"/runs/{summary.run.id}/document?id=group/order").text
        assert all(f"{number}.txt" in page for number in (1, 3, 5))
        page = browser.get(f"/runs/{summary.run.id}/document?id=3.txt").text
        assert "group/order" in page
    with pytest.raises(Misuse):
        topics(shard="1/2")


def planned(root: Path) -> Any:
    planner = Planner(Project(root), {})
    try:
        dry_run(topics, {}, planner)
        return planner.plan("topics", {})
    finally:
        planner.close()


def test_a_watched_folder_gives_whole_groups_and_members_wait_for_theirs(
    prefect_server: str, project: Path, standin: Standin
) -> None:
    """A new file brings its group's other members back; nothing is paid twice."""
    moved = {"done": Path("done")}

    def poll(**more: Any) -> Any:
        return topics(only_new=True, **more)

    assert poll().run.documents == 5 + 2
    asked = standin.count
    assert poll().run.documents == 0
    put(project / "in/6.txt", "They wrote this as an order, too.")
    assert poll().run.deferred == 0
    assert results(project)["group/order"] == ["1.txt", "3.txt", "5.txt", "6.txt"]
    assert standin.count == asked + 2

    # A group that no model answered is new again, with all of its members.
    put(project / "in/7.txt", "He wrote this as a greeting, too.")

    def is_out(request: Request) -> Any:
        if "summary" in (request.schema or {})["properties"]:
            return status(503)
        return answer(request)

    standin.answer(is_out)
    assert poll(**moved).run.deferred == 1
    left = {path.name for path in (project / "in").iterdir()}
    assert left == {"2.txt", "4.txt", "7.txt"}
    standin.answer(answer)
    assert poll(**moved).run.deferred == 0
    assert results(project)["group/other"] == ["2.txt", "4.txt", "7.txt"]
    assert list((project / "in").iterdir()) == []


@flow(name="folder", task_runner=task_runner())
def by_word(
    out: Path = Path("out"), done: Path | None = None, only_new: bool = False
) -> Any:
    with recorded_run(budget_usd=1) as run:
        letters = read_documents(
            Path("in"), sensitivity="internal", done=done, only_new=only_new
        )
        groups = group_by(
            letters, lambda letter: "order" if "order" in letter.text else "other"
        )
        write_documents(summarize.map(groups, max_words=40), out)
    return run.summary()


def test_documents_may_be_grouped_before_any_step(
    prefect_server: str, project: Path, standin: Standin, terminal: Terminal
) -> None:
    """They are on record with their group: done with it, explained, and moved."""
    assert by_word(only_new=True).run.documents == 5 + 2
    assert standin.count == 2
    assert by_word(only_new=True).run.documents == 0
    [of_member] = json.loads(terminal("explain", "3.txt", "--json", cwd=project).out)
    assert of_member["groups"] == ["group/order"]
    put(project / "in/6.txt", "They wrote this as an order, too.")
    by_word(done=Path("done"))
    assert list((project / "in").iterdir()) == []
    assert standin.count == 3
    assert terminal("audit", "verify", cwd=project).code == 0


GROUPED = """
from pathlib import Path

from prefect import flow
from tasks.classify import classify
from tasks.summarize import summarize
from tierwise import (
    RunSummary, group_by, read_documents, recorded_run, task_runner, write_documents
)


@flow(task_runner=task_runner())
def two_steps(source: Path = Path("inbox"), budget_usd: float = 1.0) -> RunSummary:
    \"\"\"Sort a folder, and sum up each label.\"\"\"
    with recorded_run(budget_usd=budget_usd) as run:
        inbox = read_documents(source, sensitivity="internal")
        kinds = classify.map(inbox, labels=["delivery", "invoice"])
        groups = group_by(kinds, lambda document: classify.of(document).label)
        write_documents(summarize.map(groups, max_words=50), Path("out"))
    return run.summary()
"""


@pytest.mark.usefixtures("own_modules")
def test_groups_wait_for_provider_batches_and_are_resumed(
    prefect_server: str, terminal: Terminal, tmp_path: Path
) -> None:
    """No group is asked about while a member may still come; nothing is paid twice."""
    with BatchStandin() as provider:
        provider.prices["small"] = StandinPrice(input=1, output=2)
        provider.turnaround_s = 3600.0
        root = batched_project(tmp_path, provider, 3)
        (root / "flows" / "two_steps.py").write_text(GROUPED)
        detach = ("run", "two_steps", "--within", "6h", "--detach", "--json")
        first = outcomes(terminal, root, *detach)
        assert first == {"classify": {"waiting": 3}}
        provider.finish()
        second = outcomes(terminal, root, "resume", "--json")
        assert second["summarize"] == {"waiting": 1}
        provider.finish()
        last = outcomes(terminal, root, "resume", "--json")
        assert last["summarize"] == {"accepted": 1}
        assert [len(batch.items) for batch in provider.batches.values()] == [3, 1]
        members = results(root)["group/delivery"]
        assert members == ["00000.txt", "00001.txt", "00002.txt"]


def outcomes(terminal: Terminal, root: Path, *arguments: str) -> dict[str, Any]:
    done = terminal(*arguments, cwd=root)
    assert done.code in (0, 3), done.err
    found: dict[str, Any] = json.loads(done.out)["outcomes"]
    return found
