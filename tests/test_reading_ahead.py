"""Work begins on the first batch while later ones are read."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from tasks.classify import classify
from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin
from tierwise import RunSummary, read_documents, recorded_run, write_documents
from tierwise.documents import iter_documents
from tierwise.errors import Misuse
from tierwise.orchestrate import documents as reading
from tierwise.orchestrate.batch_reader import BatchReader
from tierwise.project import Project
from tierwise.records import Batch, Document

LABELS = ["delivery", "praise"]
PATIENCE_S = 20.0


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        yield server


@pytest.fixture
def project(
    tmp_path: Path, provider: Standin, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """A project with five letters and one file that cannot be read."""
    root = make_project(tmp_path / "project", model("small", provider.url))
    rules = "version: 1\nroutes: [{name: all, try: [small]}]\n"
    (root / "routing_rules" / "rules.yaml").write_text(rules)
    (root / "inbox").mkdir()
    for number in range(1, 6):
        (root / "inbox" / f"{number}.txt").write_text(f"Letter {number}: a desk.")
    (root / "inbox" / "6.bin").write_bytes(b"\0\1")
    monkeypatch.chdir(root)
    return Project(root)


def run_flow(use: Any, batch_size: int = 2, **options: Any) -> RunSummary:
    @flow(name="sort-letters")
    def sort_letters() -> RunSummary:
        with recorded_run() as run:
            use(
                read_documents(
                    Path("inbox"),
                    sensitivity="internal",
                    batch_size=batch_size,
                    **options,
                )
            )
        return run.summary()

    return sort_letters()


def sort_and_write(letters: Any) -> None:
    write_documents(classify.map(letters, labels=LABELS), Path("out"))


def test_the_first_batch_is_asked_before_the_last_document_is_read(
    prefect_server: str,
    project: Project,
    provider: Standin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = threading.Event()

    def answer(request: Request) -> str:
        asked.set()
        return json.dumps({"label": "delivery", "evidence": "a desk"})

    def slow_documents(*args: Any, **kwargs: Any) -> Iterator[Document]:
        for number, document in enumerate(iter_documents(*args, **kwargs), 1):
            if number == 4 and not asked.wait(PATIENCE_S):
                pytest.fail("nothing was asked while documents were left to read")
            yield document

    provider.answer(answer)
    monkeypatch.setattr(reading, "iter_documents", slow_documents)
    summary = run_flow(sort_and_write)
    assert (summary.run.documents, summary.run.deferred) == (6, 1)
    assert len((project.root / "out" / "outcomes.jsonl").read_text().splitlines()) == 6


def test_what_no_step_works_on_is_read_and_on_record_all_the_same(
    prefect_server: str, project: Project
) -> None:
    """The file that cannot be read is in the last batch."""
    summary = run_flow(lambda letters: None)
    assert [row.document_id for row in summary.deferred] == ["6.bin"]


def test_batches_can_be_used_as_a_list(prefect_server: str, project: Project) -> None:
    seen: dict[str, Any] = {}

    def use(letters: Any) -> None:
        assert letters
        seen["first"] = letters[0].label
        seen["sizes"] = [batch.size for batch in letters]
        seen["last"] = letters[-1].label
        seen["length"] = len(letters)
        seen["slice"] = [batch.first for batch in letters[1:]]
        seen["sum"] = len(letters + letters) + len(letters[:1] + letters)
        seen["elsewhere"] = [b.size for b in pickle.loads(pickle.dumps(letters))]

    run_flow(use)
    assert seen == {
        "first": "documents 1-2",
        "sizes": [2, 2, 2],
        "last": "documents 5-6 of 6",
        "length": 3,
        "slice": [3, 5],
        "sum": 10,
        "elsewhere": [2, 2, 2],
    }


def test_states_are_returned_where_they_are_asked_for(
    prefect_server: str, project: Project
) -> None:
    states: list[Any] = []

    def use(letters: Any) -> None:
        states.extend(classify.map(letters, labels=LABELS, return_state=True))

    run_flow(use)
    assert [state.name for state in states] == ["Completed"] * 3


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"shard": "9/8"}], ids=["batch_size", "shard"]
)
def test_what_is_wrong_with_a_source_is_an_error_before_any_step(
    prefect_server: str, project: Project, options: Any
) -> None:
    reached = []
    with pytest.raises(Misuse):
        run_flow(reached.append, **options)
    assert reached == []


def test_an_error_of_reading_is_raised_each_time() -> None:
    """Else a second look would take the batches so far for all there are."""

    def unread() -> Iterator[Batch]:
        yield Batch((Document(id="1", text="one"),))
        raise Misuse("the disk is gone")

    batches = BatchReader(unread())
    assert batches
    for _ in range(2):
        with pytest.raises(Misuse, match="the disk is gone"):
            len(batches)
