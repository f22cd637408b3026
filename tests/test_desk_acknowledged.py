"""Acknowledged alerts: on record, once, by several people at once, with undo."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.kit.desk import ServedDesk, desk_at
from tests.kit.ledgers import RUN
from tests.kit.projects import make_project, model
from tests.kit.reported_runs import record
from tests.kit.terminal import Terminal
from tierwise.audit.verify import verify_ledger
from tierwise.desk.acknowledged import take_over_old_file
from tierwise.errors import Misuse
from tierwise.ledger import Ledger
from tierwise.ledger.people.acknowledgements import Acknowledgement

ALERT = "failed: run-1"
OTHER = "batch: b1"


def records(ledger: Ledger) -> list[dict[str, Any]]:
    """The audit trail's records of acknowledgements."""
    return [
        dict(record)
        for block in ledger.seals.blocks()
        if block.kind == "acknowledgement"
        for record in block.records
    ]


def test_the_first_of_several_people_has_it_and_each_request_counts_once(
    url: str, tmp_path: Path
) -> None:
    """Each with a ledger of their own, as desks in several processes have."""
    people = ("ada", "bob", "cy", "dee")

    def press(name: str) -> list[Acknowledgement]:
        with Ledger.open(url, root=tmp_path) as ledger:
            facet = ledger.acknowledgements
            return [facet.acknowledge(ALERT, by=name, request=name) for _ in range(3)]

    with ThreadPoolExecutor(len(people)) as pool:
        pressed = [each for many in pool.map(press, people) for each in many]
    with Ledger.open(url, root=tmp_path) as ledger:
        [first] = {each.by for each in pressed}
        assert ledger.acknowledgements.standing()[ALERT].by == first
        [row] = records(ledger)
        assert (row["by"], row["decision"], row["alert"]) == (
            first,
            "acknowledged",
            ALERT,
        )
        assert not verify_ledger(ledger.seals).faults


def test_one_is_taken_back_by_its_person_and_that_is_on_record(
    url: str, tmp_path: Path
) -> None:
    with Ledger.open(url, root=tmp_path) as ledger:
        facet = ledger.acknowledgements
        made = facet.acknowledge(ALERT, by="ada", request="r1")
        facet.acknowledge(OTHER, by="bob", request="r2")
        with pytest.raises(Misuse):
            facet.withdraw(ALERT, by="bob", request="r3")
        assert facet.withdraw(ALERT, by="ada", request="r4")
        assert facet.withdraw(ALERT, by="ada", request="r4")  # sent twice
        assert not facet.withdraw(ALERT, by="ada", request="r5")
        assert set(facet.standing()) == {OTHER}
        assert facet.withdraw(OTHER, by="root", request="r6", may_be_others=True)
        # The same alert may be acknowledged again, by another person.
        assert facet.acknowledge(ALERT, by="bob", request="r7").by == "bob"
        rows = records(ledger)
        assert [(row["decision"], row["by"], row["undoes"]) for row in rows] == [
            ("acknowledged", "ada", None),
            ("acknowledged", "bob", None),
            ("withdrawn", "ada", made.number),
            ("withdrawn", "root", 2),
            ("acknowledged", "bob", None),
        ]
        assert not verify_ledger(ledger.seals).faults


def test_one_from_before_its_alert_began_is_of_an_earlier_alert(
    url: str, tmp_path: Path
) -> None:
    """A model that is out again has the same name as the last time."""
    with Ledger.open(url, root=tmp_path) as ledger:
        facet = ledger.acknowledgements
        first = facet.acknowledge("outage: m", by="ada", request="r1", since=5.0)
        assert first.counts_for(5.0)
        assert first.counts_for(None)
        later = first.at + 1
        assert not first.counts_for(later)
        second = facet.acknowledge("outage: m", by="bob", request="r2", since=later)
        assert second.by == "bob"
        assert facet.standing()["outage: m"].by == "bob"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose last run failed."""
    root = make_project(tmp_path / "project", model("large", "http://127.0.0.1:1"))
    with Ledger.open(root=root) as ledger:
        ledger.start_run(replace(RUN, started_at=time.time() - 60))
        record(ledger, "a.txt")
        ledger.finish_run(RUN.id, "failed")
    return root


@pytest.fixture
def desk(root: Path) -> Iterator[ServedDesk]:
    with desk_at(root) as served:
        yield served


def test_the_page_acknowledges_undoes_and_names_the_person(desk: ServedDesk) -> None:
    rita = desk.signed_in("reviewer", "rita")
    bob = desk.signed_in("reviewer", "bob")
    form = {"alert": ALERT, "request": "once"}
    for _ in range(2):
        assert rita.post("/alerts/acknowledge", form).status_code == 303
    page = bob.get("/alerts").text
    assert "<td>rita, " in page
    # Another reviewer has no way to undo it, an admin has.
    assert "/alerts/withdraw" not in page
    assert bob.post("/alerts/withdraw", {"alert": ALERT}).status_code == 400
    viewer = desk.signed_in("viewer")
    assert viewer.post("/alerts/withdraw", {"alert": ALERT}).status_code == 403
    assert "/alerts/withdraw" in desk.signed_in().get("/alerts").text
    assert rita.post("/alerts/withdraw", {"alert": ALERT}).status_code == 303
    assert "/alerts/acknowledge" in bob.get("/alerts").text
    words = [row["decision"] for row in records(desk.ledger)]
    assert words == ["acknowledged", "withdrawn"]


def test_the_trail_has_it_in_both_formats_and_sees_a_change(
    root: Path, terminal: Terminal, tmp_path: Path
) -> None:
    with Ledger.open(root=root) as ledger:
        ledger.acknowledgements.acknowledge(ALERT, by="ada", request="r1")
    for form in ("jsonl", "csv"):
        path = tmp_path / f"trail.{form}"
        done = terminal("audit", "export", "--format", form, "-o", path, cwd=root)
        assert done.code == 0, done.err
        assert ALERT in path.read_text(encoding="utf-8")
        assert terminal("audit", "verify", path, cwd=root).code == 0
    with closing(sqlite3.connect(root / ".tierwise" / "ledger.db")) as database:
        database.execute("UPDATE acknowledgements SET by = 'bob'")
        database.commit()
    assert terminal("audit", "verify", cwd=root).code == 1
    assert terminal("audit", "verify", tmp_path / "trail.csv", cwd=root).code == 1


def test_the_file_of_an_older_version_is_taken_over_once(desk: ServedDesk) -> None:
    at = time.time() - 5
    path = desk.project.root / ".tierwise" / "desk" / "acknowledged.json"
    # The run ended a moment ago, so its alert began after this one was written.
    old = {OTHER: {"by": "ann", "at": at}, ALERT: {"by": "ann", "at": at + 60}}
    text = json.dumps(old)
    path.write_text(text)
    reviewer = desk.signed_in("reviewer")
    assert "<td>ann, " in reviewer.get("/alerts").text
    assert not path.exists()
    rows = records(desk.ledger)
    assert {(row["by"], row["alert"]) for row in rows} == {
        ("ann", ALERT),
        ("ann", OTHER),
    }
    # A copy that comes back, as from a backup, adds nothing.
    path.write_text(text)
    take_over_old_file(desk.ledger, desk.project.root)
    assert records(desk.ledger) == rows
    for damaged in ("{", "[]", '{"a": 1}', '{"a": {"by": "x", "at": null}}'):
        path.write_text(damaged)
        assert reviewer.get("/alerts").status_code == 200
        assert not path.exists()
    assert records(desk.ledger) == rows
    assert not verify_ledger(desk.ledger.seals).faults
