"""Runs in provider batches as a person starts, leaves, resumes, lists and cancels them."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.kit.batch_standin import BatchStandin, StandinPrice
from tests.kit.batched import answer, batched_project
from tests.kit.desk import desk_at
from tests.kit.projects import PRICE
from tests.kit.standin import Fault, Request, status
from tests.kit.terminal import Done, Terminal
from tierwise.ledger import Ledger
from tierwise.orchestrate import resuming
from tierwise.orchestrate.run_options import span_of
from tierwise.policy.catalog import Catalog
from tierwise.project import Project
from tierwise.records import Attempt
from tierwise.report.batch_progress import batch_progress

pytestmark = pytest.mark.usefixtures("own_modules", "prefect_server")
DOCUMENTS = 3


@pytest.fixture
def provider() -> Iterator[BatchStandin]:
    with BatchStandin() as standin:
        standin.prices["small"] = StandinPrice(input=1, output=2)
        standin.turnaround_s = 3600.0
        yield standin


@pytest.fixture
def project(tmp_path: Path, provider: BatchStandin) -> Path:
    return batched_project(tmp_path, provider, DOCUMENTS)


def run(terminal: Terminal, project: Path, *options: str) -> dict[str, Any]:
    """Run the flow detached, and return its summary."""
    done = terminal(
        "run",
        "two_steps",
        "--within",
        "6h",
        "--detach",
        *options,
        "--json",
        cwd=project,
    )
    assert done.code == 3, done.err
    return summary_of(done)


def summary_of(done: Done) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(done.out)
    return summary


def open_batches(terminal: Terminal, project: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(
        terminal("batches", "--json", cwd=project).out
    )
    return rows


def attempts(project: Path, run_id: str) -> list[Attempt]:
    of_project = Project(project)
    with Ledger.open(of_project.ledger_url, root=project) as ledger:
        return list(ledger.runs.attempts(run_id))


def test_a_detached_run_is_resumed_step_by_step_at_half_the_price(
    terminal: Terminal, project: Path, provider: BatchStandin
) -> None:
    first = run(terminal, project)
    run_id = first["run"]["id"]
    assert first["run"]["state"] == "detached"
    assert first["outcomes"] == {
        "classify": {"waiting": DOCUMENTS},
        "summarize": {"waiting": DOCUMENTS},
    }
    state = json.loads(terminal("status", "--json", cwd=project).out)
    [in_batches] = state["in_batches"]
    assert (in_batches["run_id"], in_batches["is_detached"]) == (run_id, True)
    assert in_batches["progress"]["items"] == DOCUMENTS
    assert f"tierwise resume {run_id}" in terminal("status", cwd=project).out
    assert f"tierwise resume {run_id}" in terminal("runs", cwd=project).out
    told = terminal("explain", "00001.txt", "classify", "--json", cwd=project)
    [decision] = json.loads(told.out)
    assert decision["transports"]["small"][0] == "batch"
    results = project / "out"
    assert [path.name for path in results.iterdir()] == ["outcomes.jsonl"]
    [batch] = open_batches(terminal, project)
    assert (batch["run_id"], batch["items"]) == (run_id, DOCUMENTS)
    assert batch["expected_end"] == pytest.approx(time.time() + 3600, abs=120)

    # Nothing is done yet: the run ends as it did, and sends nothing again.
    again = terminal("resume", "--json", cwd=project)
    assert again.code == 3, again.err
    assert len(provider.batches) == 1

    provider.finish()
    second = terminal("resume", "--json", cwd=project)
    assert second.code == 3, second.err
    assert summary_of(second)["run"]["id"] == run_id
    assert summary_of(second)["outcomes"]["classify"] == {"accepted": DOCUMENTS}

    provider.finish()
    last = terminal("resume", cwd=project)
    assert last.code == 0, last.err
    assert run_id in last.out
    assert open_batches(terminal, project) == []
    made = attempts(project, run_id)
    assert [attempt.transport for attempt in made] == ["batch"] * 2 * DOCUMENTS
    paid = sum((attempt.cost or Decimal(0) for attempt in made), Decimal(0))
    assert paid * 1_000_000 == provider.billed
    shown = terminal("explain", "00001.txt", "classify", cwd=project)
    assert "batch" in shown.out
    assert terminal("audit", "verify", cwd=project).code == 0
    assert terminal("resume", cwd=project).code == 2

    # The same documents online, in another project, give the same bytes.
    other = batched_project(project / "other", provider, DOCUMENTS)
    online = terminal("run", "two_steps", "--transport", "online", cwd=other)
    assert online.code == 0, online.err
    for path in results.iterdir():
        assert (other / "out" / path.name).read_bytes() == path.read_bytes()


def test_the_same_command_goes_on_with_the_run_that_waits(
    terminal: Terminal, project: Path, provider: BatchStandin
) -> None:
    first = run(terminal, project)
    provider.finish()
    second = run(terminal, project)
    assert second["run"]["id"] == first["run"]["id"]
    assert second["outcomes"]["classify"] == {"accepted": DOCUMENTS}
    # Other parameters are another run.
    third = run(terminal, project, "--budget-usd", "2")
    assert third["run"]["id"] != first["run"]["id"]
    unclear = terminal("resume", cwd=project)
    assert unclear.code == 2


def test_a_cancelled_batch_is_asked_again(
    terminal: Terminal, project: Path, provider: BatchStandin
) -> None:
    run_id = run(terminal, project)["run"]["id"]
    [batch] = open_batches(terminal, project)
    assert terminal("batches", "--cancel", "nothing-like-it", cwd=project).code == 2
    done = terminal("batches", "--cancel", batch["id"][:-3], cwd=project)
    assert done.code == 0, done.err
    assert f"tierwise resume {run_id}" in done.out
    resumed = terminal("resume", run_id, "--json", cwd=project)
    assert resumed.code == 3, resumed.err
    [second] = open_batches(terminal, project)
    assert second["id"] != batch["id"]
    listed = json.loads(terminal("batches", "--all", "--json", cwd=project).out)
    assert {row["id"] for row in listed} == {batch["id"], second["id"]}


def test_batches_are_listed_as_their_provider_has_them_now(
    terminal: Terminal, project: Path, provider: BatchStandin
) -> None:
    run_id = run(terminal, project)["run"]["id"]
    [before] = open_batches(terminal, project)
    assert (before["state"], before["succeeded"]) == ("in_progress", 0)
    provider.finish()
    recorded = terminal("batches", "--no-ask", "--json", cwd=project)
    assert json.loads(recorded.out) == [before]
    [after] = open_batches(terminal, project)
    assert (after["state"], after["succeeded"]) == ("ended", DOCUMENTS)

    # What is over cannot be cancelled, which is no fault; its answers wait.
    late = terminal("batches", "--cancel", before["id"], "--json", cwd=project)
    assert (late.code, json.loads(late.out)["state"]) == (0, "ended")

    # A provider that does not answer leaves the list as it is.
    provider.order("poll", fault=status(503, "overloaded"))
    unreachable = terminal("batches", "--json", cwd=project)
    assert unreachable.code == 0
    assert json.loads(unreachable.out) == [after]
    assert before["id"] in unreachable.err
    assert run_id in unreachable.out


def test_progress_in_words(terminal: Terminal, project: Path) -> None:
    run_id = run(terminal, project)["run"]["id"]
    of_project = Project(project)
    with Ledger.open(of_project.ledger_url, root=project) as ledger:
        rows = ledger.batches.open_batches(run_id)
        taken = ledger.batches.seconds_taken
        progress = batch_progress(rows, of_project.catalog, taken)
        assert progress is not None
        assert (progress.batches, progress.items, progress.done) == (1, DOCUMENTS, 0)
        assert progress.percent == 0
        assert progress.expected_end is not None
        # A model that is in the catalog no more has no expected end.
        nothing = Catalog.model_validate({"version": 1, "tiers": {}, "models": {}})
        without = batch_progress(rows, nothing, taken)
        assert without is not None
        assert without.expected_end is None
        assert batch_progress([], of_project.catalog, taken) is None


def test_the_desk_shows_a_batch_in_flight_and_an_alert_once_it_is_late(
    terminal: Terminal, project: Path, provider: BatchStandin
) -> None:
    run_id = run(terminal, project)["run"]["id"]
    [batch] = open_batches(terminal, project)
    alert = f"batch: {batch['id']}"
    with desk_at(project) as desk:
        browser = desk.signed_in()
        shown = browser.get("/").text
        row = shown.partition(f"<code>{batch['id']}</code>")[2].partition("</tr>")[0]
        cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
        assert cells[0] == "small"
        assert cells[2:5] == [str(DOCUMENTS), "0", "0"]
        assert f"/runs/{run_id}" in row
        assert alert not in browser.get("/alerts").text

        age_batch(project, submitted_at=time.time() - 90_000, expires_at=1.0)
        late = browser.get("/alerts").text
        assert alert in late
        assert f'href="/runs/{run_id}"' in late
        assert browser.post("/alerts/acknowledge", {"alert": alert}).status_code == 303
        assert "/alerts/acknowledge" not in browser.get("/alerts").text

        # One that never reached its provider is late after an hour, whatever else is known.
        age_batch(project, created_at=time.time() - 4000, submitted_at=None)
        assert batch["id"] in browser.get("/alerts").text
        age_batch(project, submitted_at=time.time(), expires_at=time.time() + 3600)
        assert batch["id"] not in browser.get("/alerts").text

        provider.finish()
        resumed = terminal("resume", "--json", cwd=project)
        assert resumed.code == 3, resumed.err
        after = browser.get("/").text
        assert batch["id"] not in after
        [second] = open_batches(terminal, project)
        assert second["id"] in after


def age_batch(project: Path, **times: float | None) -> None:
    """Set times of the batch on record, as they are when hours have passed."""
    columns = ", ".join(f"{name} = ?" for name in times)
    with closing(sqlite3.connect(project / ".tierwise" / "ledger.db")) as database:
        database.execute(f"UPDATE batches SET {columns}", tuple(times.values()))
        database.commit()


def test_a_guard_keeps_documents_out_of_the_batch(
    terminal: Terminal, project: Path, provider: BatchStandin
) -> None:
    secret = project / "inbox" / "00000.txt"
    secret.write_text("---\nsensitivity: confidential\n---\nMy parcel has not arrived.")
    run_id = run(terminal, project)["run"]["id"]
    [batch] = open_batches(terminal, project)
    assert batch["items"] == DOCUMENTS - 1
    made = attempts(project, run_id)
    assert {attempt.document_id for attempt in made} == {"00000.txt"}
    assert {attempt.transport for attempt in made} == {"online"}


def test_check_warns_of_a_route_to_batches_that_a_model_does_not_have(
    terminal: Terminal, project: Path
) -> None:
    rules = project / "routing_rules" / "rules.yaml"
    text = rules.read_text()
    rules.write_text(text.replace("try: [small]", "try: [small], transport: batch"))
    assert "no batches" not in terminal("check", "--json", cwd=project).out
    catalog = project / "routing_rules" / "catalog.yaml"
    lines = catalog.read_text().splitlines(keepends=True)
    catalog.write_text("".join(line for line in lines if "batch:" not in line))
    assert "no batches" in terminal("check", "--json", cwd=project).out


def test_a_run_goes_on_by_itself_once_a_batch_is_over_or_its_deadline_is_near(
    terminal: Terminal,
    project: Path,
    provider: BatchStandin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resuming, "_LOOKS_EVERY_S", 0.0)
    of_project = Project(project)
    run_id = run(terminal, project)["run"]["id"]
    assert resuming.ready_runs(of_project) == []
    soon = time.time() + 6 * 3600 - 200
    with monkeypatch.context() as later:
        later.setattr(time, "time", lambda: soon)
        assert resuming.ready_runs(of_project) == [run_id]

    provider.finish()
    assert resuming.ready_runs(of_project) == [run_id]
    said: list[str] = []
    begun: list[str] = []

    class Process:
        def poll(self) -> int | None:
            return 3

    def begin(_: resuming.Resuming, ready: str) -> Process:
        begun.append(ready)
        return Process()

    monkeypatch.setattr(resuming.Resuming, "_begin", begin)
    watch = resuming.Resuming(of_project, said.append)
    watch.look()
    assert (begun, said) == ([run_id], [])
    watch.look()
    assert len(said) == 1
    assert begun == [run_id, run_id]


def test_a_run_that_is_resumed_late_does_not_miss_its_deadline(
    terminal: Terminal, project: Path, provider: BatchStandin
) -> None:
    """Its batch hangs; the deadline of 4 minutes is in danger 2 minutes before it."""
    done = terminal(
        *("run", "two_steps", "--within", "4min", "--transport", "batch"),
        *("--detach", "--json"),
        cwd=project,
    )
    assert done.code == 3, done.err
    # At its resumption, less is left than a further batch could take: it waits, and goes online.
    run_id = summary_of(done)["run"]["id"]
    with closing(sqlite3.connect(project / ".tierwise" / "ledger.db")) as database:
        change = "UPDATE runs SET started_at = ? WHERE id = ?"
        database.execute(change, (time.time() - 175, run_id))
        database.commit()
    resumed = terminal("resume", "--json", cwd=project)
    assert resumed.code == 0, resumed.err
    assert summary_of(resumed)["run"]["id"] == run_id
    made = attempts(project, run_id)
    assert {attempt.transport for attempt in made} == {"online"}


def test_a_stopped_run_is_continued_in_a_new_run_and_stays_sealed(
    terminal: Terminal, project: Path, provider: BatchStandin
) -> None:
    """Its calls are at the provider, and are neither sent again nor added to its records."""
    first = run(terminal, project)["run"]["id"]
    of_project = Project(project)
    with Ledger.open(of_project.ledger_url, root=project) as ledger:
        ledger.finish_run(first, "cancelled")
    provider.finish()
    for code in (3, 0):
        resumed = terminal("resume", first, "--json", cwd=project)
        assert resumed.code == code, resumed.err
        assert summary_of(resumed)["run"]["id"] != first
        # Of the two, one is sealed, and one has not ended.
        assert terminal("audit", "verify", cwd=project).code == 0
        provider.finish()
    assert len(provider.batches) == 2
    assert terminal("audit", "verify", cwd=project).code == 0


def test_the_commands_about_a_run_know_its_batches(
    terminal: Terminal, project: Path, provider: BatchStandin
) -> None:
    """`status`, `report`, `reprice` and `retry`, of a run that paid in batches."""
    catalog = project / "routing_rules" / "catalog.yaml"
    catalog.write_text(catalog.read_text().replace(f"price: {PRICE}", "price: unknown"))
    rules = project / "routing_rules" / "rules.yaml"
    rules.write_text(rules.read_text() + "budget: {allow_unpriced: [small]}\n")
    letter = project / "inbox" / "00001.txt"

    def refused_letter(request: Request) -> str | Fault:
        return status(400) if "number 1 " in request.document else answer(request)

    provider.answer(refused_letter)
    run_id = run(terminal, project)["run"]["id"]
    assert terminal("status", cwd=project).code in (0, 1)
    for code in (3, 0):
        provider.finish()
        done = terminal("resume", "--json", cwd=project)
        assert done.code == code, done.err
    assert summary_of(done)["outcomes"]["classify"] == {"accepted": 2, "deferred": 1}
    page = project / "page.html"
    report = terminal("report", run_id, "--out", page, cwd=project)
    assert report.code == 0, report.err
    assert run_id in page.read_text()

    # The price was unknown; with it, each call costs what it costs in a batch.
    catalog.write_text(catalog.read_text().replace("price: unknown", f"price: {PRICE}"))
    repriced = terminal("reprice", "--model", "small", "--apply", cwd=project)
    assert repriced.code == 0, repriced.err
    shown = json.loads(terminal("show", run_id, "--json", cwd=project).out)["run"]
    assert Decimal(shown["cost_known"]) * 1_000_000 == provider.billed
    assert shown["cost_unknown"] == 0

    # What was refused is asked again, in a batch as well, and only that.
    provider.answer(answer)
    retried = terminal("retry", run_id, "--json", cwd=project)
    assert retried.code == 3, retried.err
    again = summary_of(retried)["run"]["id"]
    assert again != run_id
    [batch] = open_batches(terminal, project)
    assert (batch["run_id"], batch["items"]) == (again, 1)
    for code in (3, 0):
        provider.finish()
        resumed = terminal("resume", "--json", cwd=project)
        assert resumed.code == code, resumed.err
    asked = [each for each in attempts(project, again) if not each.reused]
    assert {each.document_id for each in asked} == {letter.name}
    assert {each.transport for each in asked} == {"batch"}
    assert set(provider.billed_items().values()) == {1}
    assert terminal("audit", "verify", cwd=project).code == 0


def test_a_flow_with_parameters_for_the_deadline_is_resumed_with_them(
    terminal: Terminal, project: Path, provider: BatchStandin
) -> None:
    """As Prefect's form and deployments give them: the time in ISO 8601."""
    flow = project / "flows" / "two_steps.py"
    text = flow.read_text()
    text = text.replace("from pathlib", "from datetime import timedelta\nfrom pathlib")
    text = text.replace(
        "budget_usd: float = 1.0,",
        "budget_usd: float = 1.0,\n    within: timedelta | None = None,\n"
        "    detach: bool = False,",
    )
    text = text.replace(
        "recorded_run(budget_usd=budget_usd)",
        "recorded_run(budget_usd=budget_usd, within=within, detach=detach)",
    )
    flow.write_text(text)
    # 300 hours: a number of seconds with seven digits.
    begun = terminal(
        *("run", "two_steps", "--within", "300h", "--detach", "--json"), cwd=project
    )
    assert begun.code == 3, begun.err
    record = summary_of(begun)["run"]
    [ready] = open_batches(terminal, project)
    for code in (3, 0):
        provider.finish()
        resumed = terminal("resume", "--json", cwd=project)
        assert resumed.code == code, resumed.err
        assert summary_of(resumed)["run"]["id"] == record["id"] == ready["run_id"]
    of_project = Project(project)
    with Ledger.open(of_project.ledger_url, root=project) as ledger:
        parameters = ledger.runs.resolve(record["id"]).parameters
    assert span_of(parameters["within"]) == timedelta(hours=300)
    assert {each.transport for each in attempts(project, record["id"])} == {"batch"}
