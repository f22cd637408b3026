"""The queue over all runs: what waits, since when, and what a later run settled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kit.ledgers import DATABASES, DOCUMENT, RUN, migrated_url
from tests.kit.projects import make_project
from tests.kit.terminal import Terminal
from tierwise.ledger import Decision, Ledger, RunFolders
from tierwise.records import Outcome, id_in_run
from tierwise.review.queue import find_item, reject, reopen

DAY = 86400


@pytest.fixture(params=DATABASES)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(migrated_url(request.param, tmp_path), root=tmp_path) as opened:
        yield opened


def deferred(cause: Any = "review", step: str = "classify") -> Outcome:
    return Outcome(step=step, status="deferred", cause=cause, reason=f"for {cause}")


def accepted(step: str = "classify") -> Outcome:
    return Outcome(step=step, status="accepted", value={"label": "a"})


def record(
    ledger: Ledger,
    number: int,
    documents: dict[str, Outcome | list[Outcome]],
    *,
    sources: tuple[str, ...] = ("inbox",),
    flow: str = "support-inbox",
    state: Any = "completed",
    text: str = "",
    parameters: dict[str, Any] | None = None,
) -> None:
    """A run with outcomes; from its second source on, ids begin with the source."""
    info = replace(
        RUN,
        id=f"run-{number}",
        flow=flow,
        started_at=RUN.started_at + number * DAY,
        parameters=parameters or {},
    )
    ledger.start_run(info)

    async def story() -> None:
        for name, outcomes in documents.items():
            # one text for each letter, whatever its folder
            own = text or f"The text of {name.rpartition('//')[2]}"
            document = replace(DOCUMENT, id=name, text=own)
            for outcome in outcomes if isinstance(outcomes, list) else [outcomes]:
                await ledger.record_outcome(
                    info.id, document, outcome, question=f"q-{outcome.step}"
                )

    asyncio.run(story())
    folders = [
        RunFolders(source=source, output="out", is_further=place > 0)
        for place, source in enumerate(sources)
    ]
    ledger.folders.record(info.id, folders if documents else [])
    ledger.finish_run(info.id, state)


def decide(ledger: Ledger, run: int, name: str, word: Any, value: Any = None) -> None:
    document = replace(DOCUMENT, id=name, text=f"The text of {name}")
    ledger.reviews.decide(
        Decision(
            run_id=f"run-{run}",
            document_id=name,
            document_hash=document.hash,
            step="classify",
            question="q-classify",
            decision=word,
            value=value,
            reviewer="ada",
            reviewed_at=1.0,
        )
    )


def queue(ledger: Ledger) -> list[tuple[str, str]]:
    """Run and document of what waits for a person or a retry, the oldest first."""
    return [
        (row.run_id, row.document_id)
        for row in ledger.runs.queue()
        if not row.is_decided
    ]


def test_empty_runs_hide_nothing(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred(), "b": accepted()})
    record(ledger, 2, {})
    record(ledger, 3, {"c": deferred("budget")})
    record(ledger, 4, {})
    assert queue(ledger) == [("run-1", "a"), ("run-3", "c")]
    assert list(ledger.runs.waiting()) == ["run-3", "run-1"]


def test_what_a_later_run_settled_is_gone(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred(), "b": deferred(), "c": deferred()})
    record(ledger, 2, {"a": accepted(), "b": deferred()})
    assert sorted(queue(ledger)) == [("run-1", "c"), ("run-2", "b")]


def test_another_tenants_letter_of_the_same_name_and_text_still_waits(
    ledger: Ledger,
) -> None:
    record(ledger, 1, {"a": deferred()}, sources=("tenants/one",))
    record(ledger, 2, {"a": accepted()}, sources=("tenants/two",))
    assert queue(ledger) == [("run-1", "a")]
    record(ledger, 3, {"a": accepted()}, sources=("tenants/one",))
    assert queue(ledger) == []


def test_another_flow_of_the_same_folder_settles_nothing(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred()})
    record(ledger, 2, {"a": accepted()}, flow="digest")
    assert queue(ledger) == [("run-1", "a")]


def test_another_text_of_the_same_name_settles_nothing(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred()})
    record(ledger, 2, {"a": accepted()}, text="Another letter of that name.")
    assert queue(ledger) == [("run-1", "a")]


def test_a_file_that_could_not_be_read_is_settled_by_its_replacement(
    ledger: Ledger,
) -> None:
    unreadable = deferred("unreadable", "read")
    record(ledger, 1, {"a.pdf": unreadable, "b.pdf": unreadable})
    record(ledger, 2, {"a.pdf": accepted()}, sources=("elsewhere",))
    assert len(queue(ledger)) == 2
    record(ledger, 3, {"a.pdf": accepted()})
    assert queue(ledger) == [("run-1", "b.pdf")]


def record_unread(
    ledger: Ledger, number: int, reason: str, source: str = "inbox"
) -> None:
    """A run that could not read `a.pdf`."""
    run = replace(RUN, id=f"run-{number}", started_at=RUN.started_at + number * DAY)
    ledger.start_run(run)
    document = replace(DOCUMENT, id="a.pdf", text="")
    outcome = replace(deferred("unreadable", "read"), reason=reason)
    asyncio.run(ledger.record_outcome(run.id, document, outcome))
    ledger.folders.record(run.id, [RunFolders(source=source, output="out")])
    ledger.finish_run(run.id, "completed")


def test_a_dismissed_file_is_asked_about_again_only_for_another_reason(
    ledger: Ledger,
) -> None:
    record_unread(ledger, 1, "it has a password")
    record_unread(ledger, 2, "it has a password", source="elsewhere")
    reject(ledger, find_item(ledger, "run-1", "a.pdf"), by="ada")
    assert queue(ledger) == [("run-2", "a.pdf")]
    reject(ledger, find_item(ledger, "run-2", "a.pdf"), by="ada")
    record_unread(ledger, 3, "it has a password")
    assert queue(ledger) == []
    record_unread(ledger, 4, "it is empty")
    assert queue(ledger) == [("run-4", "a.pdf")]
    reject(ledger, find_item(ledger, "run-4", "a.pdf"), by="ada")
    assert queue(ledger) == []
    # Taken back: it waits again, in its newest run.
    reopen(ledger, find_item(ledger, "run-4", "a.pdf"), by="ada")
    assert queue(ledger) == [("run-4", "a.pdf")]


def test_a_second_source_of_a_run_is_the_same_as_a_first_one(ledger: Ledger) -> None:
    both = ("one", "one/two")
    of_two = id_in_run("one/two", "a")
    record(ledger, 1, {"a": deferred(), of_two: deferred()}, sources=both)
    record(ledger, 2, {"a": accepted()}, sources=("one/two",))
    assert queue(ledger) == [("run-1", "a")]
    record(ledger, 3, {"a": deferred()}, sources=("one/two",))
    record(ledger, 4, {of_two: accepted()}, sources=both)
    assert queue(ledger) == [("run-1", "a")]


@pytest.mark.parametrize("state", ["failed", "cancelled", "running"])
def test_a_run_that_did_not_go_through_settles_nothing(
    ledger: Ledger, state: Any
) -> None:
    record(ledger, 1, {"a": deferred()})
    if state == "running":
        ledger.start_run(replace(RUN, id="run-2", started_at=RUN.started_at + 2 * DAY))
        document = replace(DOCUMENT, id="a", text="The text of a")
        asyncio.run(ledger.record_outcome("run-2", document, accepted()))
    else:
        record(ledger, 2, {"a": accepted()}, state=state)
    assert queue(ledger) == [("run-1", "a")]


def test_what_a_failed_run_deferred_waits(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred("budget")}, state="failed")
    assert queue(ledger) == [("run-1", "a")]


def test_a_document_waits_since_its_first_deferral(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred("budget"), "b": accepted()})
    [first] = ledger.runs.queue()
    record(ledger, 2, {"a": deferred("review"), "b": deferred()})
    record(ledger, 3, {})
    rows = {row.document_id: row for row in ledger.runs.queue()}
    assert rows["a"].waits_since == first.waits_since
    assert (rows["a"].run_id, rows["a"].cause) == ("run-2", "review")
    assert rows["b"].waits_since > first.waits_since


def test_settled_between_two_deferrals_begins_a_new_wait(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred()})
    [first] = ledger.runs.queue()
    record(ledger, 2, {"a": accepted()})
    record(ledger, 3, {"a": deferred()})
    [again] = ledger.runs.queue()
    assert again.waits_since > first.waits_since


def test_decided_documents_wait_for_nobody_and_rejected_ones_for_nothing(
    ledger: Ledger,
) -> None:
    record(ledger, 1, {"a": deferred(), "b": deferred(), "c": deferred()})
    decide(ledger, 1, "a", "approved", {"label": "a"})
    decide(ledger, 1, "b", "rejected")
    assert queue(ledger) == [("run-1", "c")]
    decided = [row.document_id for row in ledger.runs.queue() if row.is_decided]
    assert decided == ["a"]
    decide(ledger, 1, "a", "reopened")
    decide(ledger, 1, "b", "reopened")
    assert {name for _, name in queue(ledger)} == {"a", "b", "c"}


def test_a_decision_in_an_earlier_run_counts_for_the_newest(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred(), "b": deferred()})
    record(ledger, 2, {"a": deferred(), "b": deferred()})
    decide(ledger, 1, "a", "edited", {"label": "a"})
    decide(ledger, 1, "b", "rejected")
    [row] = ledger.runs.queue()
    assert (row.document_id, row.is_decided) == ("a", True)


def test_a_step_that_a_later_run_accepted_waits_no_more(ledger: Ledger) -> None:
    """The newest run of a document decides about all of its steps."""
    record(ledger, 1, {"a": [deferred(step="classify"), deferred(step="tag")]})
    record(ledger, 2, {"a": [accepted("classify"), deferred(step="tag")]})
    assert [(row.run_id, row.step) for row in ledger.runs.queue()] == [("run-2", "tag")]


def test_measurements_are_no_runs_of_the_queue(ledger: Ledger) -> None:
    record(ledger, 1, {"a": deferred()}, flow="certify classify")
    assert queue(ledger) == []
    assert ledger.runs.span().runs == 0


def test_runs_without_folders_on_record_are_of_the_source_in_their_parameters(
    ledger: Ledger,
) -> None:
    one, two = {"source": "one"}, {"source": "two"}
    record(ledger, 1, {"a": deferred()}, sources=(), parameters=one)
    record(ledger, 2, {"a": accepted()}, sources=(), parameters=two)
    assert queue(ledger) == [("run-1", "a")]
    record(ledger, 3, {"a": accepted()}, sources=("one",))
    assert queue(ledger) == []


def test_the_newest_run_is_one_that_did_something(ledger: Ledger) -> None:
    record(ledger, 1, {})
    assert ledger.runs.resolve("latest").id == "run-1"
    record(ledger, 2, {"a": accepted()})
    record(ledger, 3, {})
    assert ledger.runs.resolve("latest").id == "run-2"
    assert [
        run.id for run in ledger.runs.empty_since(ledger.runs.resolve("latest"))
    ] == ["run-3"]


def test_the_queue_is_read_by_an_index(
    ledger: Ledger,
) -> None:
    """Texts that no run deferred are not read: a ledger may have 100,000 documents."""
    record(ledger, 1, {f"d{n}": accepted() for n in range(50)} | {"late": deferred()})
    plan = _plan(ledger)
    assert "ix_outcomes_deferred" in plan or "ix_outcomes_document_hash" in plan, plan


def _plan(ledger: Ledger) -> str:
    from sqlalchemy import text
    from sqlalchemy.dialects import postgresql, sqlite

    from tierwise.ledger.views.runs import is_measurement
    from tierwise.ledger.views.waiting import outcomes_query

    with ledger.runs._database.reading() as connection:
        is_sqlite = connection.dialect.name == "sqlite"
        dialect = sqlite.dialect() if is_sqlite else postgresql.dialect()
        query = outcomes_query(is_measurement() == 0).compile(
            dialect=dialect, compile_kwargs={"literal_binds": True}
        )
        if not is_sqlite:
            connection.execute(text("SET LOCAL enable_seqscan = off"))
        explain = "EXPLAIN QUERY PLAN" if is_sqlite else "EXPLAIN"
        rows = connection.exec_driver_sql(f"{explain} {str(query).replace('%', '%%')}")
        return json.dumps([[str(cell) for cell in row] for row in rows])


# --- the commands --------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = make_project(tmp_path)
    url = migrated_url("sqlite", tmp_path)
    (root / "pyproject.toml").write_text(f'[tool.tierwise]\nledger_url = "{url}"\n')
    return root


@pytest.fixture
def its_ledger(project: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{project / 'ledger.db'}", root=project) as opened:
        yield opened


def test_an_empty_queue_says_what_was_looked_at(
    project: Path, its_ledger: Ledger, terminal: Terminal
) -> None:
    assert "the ledger has no runs yet" in terminal("review", cwd=project).out
    record(its_ledger, 1, {"a": accepted()})
    record(its_ledger, 2, {}, flow="digest")
    out = terminal("review", cwd=project).out
    assert "nothing waits in 2 runs of 2 flows since 2026-09-22" in out


def test_review_lists_what_waits_over_all_runs_by_flow(
    project: Path, its_ledger: Ledger, terminal: Terminal
) -> None:
    record(its_ledger, 1, {"a": deferred("budget"), "b": deferred()})
    record(its_ledger, 2, {"m": deferred("unreadable", "read")}, flow="minutes")
    record(its_ledger, 3, {})
    out = terminal("review", cwd=project).out
    assert "support-inbox: 2 wait, the oldest for" in out
    assert "minutes: 1 wait" in out
    assert "inbox" in out
    assert "unreadable" in out
    for options, names in [
        ((), ["a", "b", "m"]),
        (("--flow", "support_inbox"), ["a", "b"]),
        (("--cause", "budget"), ["a"]),
        (("--step", "read"), ["m"]),
        (("--older-than", "1w"), []),
        (("--limit", 1), ["a"]),
    ]:
        done = terminal("review", "--json", *options, cwd=project)
        assert [row["document"] for row in json.loads(done.out)] == names, options
    [row] = json.loads(terminal("review", "--json", "--step", "read", cwd=project).out)
    assert (row["flow"], row["source"], row["cause"], row["run"]) == (
        "minutes",
        "inbox",
        "unreadable",
        "run-2",
    )
    assert row["age_s"] >= 0
    for wrong, named in [
        (("--cause", "money"), "budget"),
        (("--flow", "nonsense"), "minutes"),
        (("--older-than", "soon"), "30m"),
        (("run-1", "--cause", "budget"), "leave out the run"),
    ]:
        done = terminal("review", *wrong, cwd=project)
        assert (done.code, done.out) == (2, "")
        assert named in done.err
    out = terminal("review", "--limit", 1, cwd=project).out
    assert "2 more with" in out
    assert (
        "3 documents wait" in terminal("review", "--older-than", "1w", cwd=project).out
    )


def test_a_document_of_the_list_is_decided_by_its_name(
    project: Path, its_ledger: Ledger, terminal: Terminal
) -> None:
    record(its_ledger, 1, {"a": deferred(), "b": deferred()}, sources=("one",))
    record(its_ledger, 2, {"b": deferred()}, sources=("two",))
    record(its_ledger, 3, {})
    done = terminal("review", "a", "--reject", "--by", "ada", cwd=project)
    assert (done.code, "a, classify: rejected by ada" in done.out) == (0, True), (
        done.err
    )
    done = terminal("review", "b", "--reject", cwd=project)
    assert (done.code, "run-1" in done.err, "run-2" in done.err) == (2, True, True)
    done = terminal("review", "nothing", "--reject", cwd=project)
    assert done.code == 2
    names = json.loads(terminal("review", "--json", cwd=project).out)
    assert [row["run"] for row in names] == ["run-1", "run-2"]


def test_show_and_report_are_about_the_newest_run_that_did_something(
    project: Path, its_ledger: Ledger, terminal: Terminal
) -> None:
    record(its_ledger, 1, {"a": deferred(), "b": accepted()})
    record(its_ledger, 2, {"b": accepted()})
    record(its_ledger, 3, {})
    record(its_ledger, 4, {})
    done = terminal("show", cwd=project)
    assert "1 documents, 0 deferred" in done.out
    assert "2 later runs" in done.out
    assert "had nothing new" in done.out
    assert "1 document waits over all runs: tierwise review" in done.out
    assert (
        json.loads(terminal("show", "--json", cwd=project).out)["run"]["id"] == "run-2"
    )
    assert "later run" not in terminal("show", "run-2", cwd=project).out
    done = terminal("report", cwd=project)
    assert done.out.strip().endswith("run-2.html")
    assert "2 later runs" in done.err


def test_what_a_later_run_settled_is_not_on_the_attention_list(
    project: Path, its_ledger: Ledger, terminal: Terminal
) -> None:
    record(its_ledger, 1, {"a": deferred(), "b": deferred("budget")})

    def attention() -> str:
        data = json.loads(terminal("show", "run-1", "--json", cwd=project).out)
        return json.dumps(data["attention"])

    assert "review run-1" in attention()
    record(its_ledger, 2, {"a": accepted()})
    assert "review run-1" not in attention()
    assert "1 document in classify" in attention()
    record(its_ledger, 3, {"b": accepted()})
    assert "1 document in classify" not in attention()


def test_retry_all_says_where_nothing_waits_and_what_cannot_be_asked(
    project: Path, its_ledger: Ledger, terminal: Terminal
) -> None:
    record(its_ledger, 1, {"a": accepted()})
    done = terminal("retry", "--all", cwd=project)
    assert (done.code, "nothing waits in 1 run of 1 flow" in done.err) == (0, True)
    assert terminal("retry", "run-1", "--all", cwd=project).code == 2
    assert terminal("retry", "--cause", "budget", cwd=project).code == 2
