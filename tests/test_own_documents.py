"""Documents that a flow makes itself: `documents_from`, planned, sampled and run as files are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, task, unmapped

from tasks.classify import classify
from tasks.summarize import summarize
from tests.kit.projects import make_project, model
from tests.kit.standin import Standin
from tierwise import Batch, Document, documents_from, recorded_run, write_documents
from tierwise.documents import Shard, iter_items
from tierwise.errors import Misuse
from tierwise.orchestrate.dry_run import dry_run
from tierwise.plan import Planner, Sampler
from tierwise.project import Project

LABELS = ["order", "complaint"]
ROWS = [
    {"id": "A1", "text": "The desk came broken, I want another one.", "from": "Jo"},
    {"id": "A2", "text": "Bitte senden Sie mir noch zwei Stühle für mein Büro."},
    {"id": "A3", "text": "  ", "amount": 12},
    {"id": "A4", "text": "The desk came broken, I want another one."},
    {"id": "A1", "text": "A second letter with the number of the first."},
    {"text": "One without a number, about a lamp.", "sensitivity": "confidential"},
]


@pytest.fixture
def standin() -> Iterator[Standin]:
    with Standin() as server:
        yield server


@pytest.fixture
def project(
    tmp_path: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch
) -> Project:
    root = make_project(tmp_path / "project", model("small", standin.url))
    rules = "version: 1\nroutes: [{name: all, try: [small]}]\n"
    (root / "routing_rules" / "rules.yaml").write_text(rules)
    monkeypatch.chdir(root)
    return Project(root)


def test_a_mapping_is_read_like_a_row_of_a_file() -> None:
    """Ids are unique, languages known, repeated texts marked, empty ones deferred."""
    documents = list(iter_items(ROWS, sensitivity="internal"))
    assert [each.id for each in documents] == ["A1", "A2", "A3", "A4", "5", "6"]
    assert [each.language for each in documents[:2]] == ["en", "de"]
    assert documents[0].metadata == {"id": "A1", "from": "Jo"}
    assert documents[2].metadata == {"id": "A3", "amount": "12"}
    assert documents[2].outcomes["read"].status == "deferred"
    assert documents[3].metadata == {"id": "A4", "duplicate_of": "A1"}
    levels = [each.sensitivity for each in documents]
    assert levels == ["internal"] * 5 + ["confidential"]


def test_what_says_nothing_is_restricted() -> None:
    [document] = iter_items([{"id": 7, "content": "A desk."}], text_column="content")
    assert (document.id, document.sensitivity) == ("7", "restricted")


def test_a_document_keeps_what_it_has() -> None:
    """What the flow says is the least sensitivity."""
    made = Document(
        id="a",
        text="Ein Tisch.",
        sensitivity="internal",
        language="sv",
        metadata={"x": "y"},
    )
    [kept] = iter_items([made])
    assert kept == made or kept.sensitivity_source != made.sensitivity_source
    assert (kept.sensitivity, kept.language, kept.metadata) == (
        "internal",
        "sv",
        {"x": "y"},
    )
    [raised] = iter_items([made], sensitivity="confidential")
    assert raised.sensitivity == "confidential"


def test_ids_of_databases_stay(tmp_path: Path) -> None:
    key = UUID(int=7)
    [document] = iter_items([{"id": key, "text": "A desk.", "when": key}])
    assert document.id == str(key)
    assert document.metadata == {"id": str(key), "when": str(key)}


def test_what_is_no_document_is_refused() -> None:
    with pytest.raises(
        Misuse, match="document 2 is a str; give Documents, or mappings"
    ):
        list(iter_items([ROWS[0], "text"]))  # type: ignore[list-item]


def test_a_text_beyond_the_limit_is_deferred() -> None:
    [document] = iter_items([{"id": "a", "text": "ä" * 6}], max_bytes=10)
    assert "12 bytes, more than the limit of 10" in document.outcomes["read"].reason


def test_shards_hold_every_document_once() -> None:
    rows = [{"id": f"n{n}", "text": f"Letter {n}."} for n in range(40)]
    parts = [
        [each.id for each in iter_items(rows, shard=Shard(number, 3))]
        for number in (1, 2, 3)
    ]
    assert sorted(chain.from_iterable(parts)) == sorted(row["id"] for row in rows)
    assert all(parts)


@task
def enrich(batch: Batch, labels: list[str]) -> Batch:
    assert labels == LABELS
    return batch


@task
async def count(batches: list[Batch]) -> int:
    return sum(batch.size for batch in batches)


@flow
def beneath(number: int) -> int:
    return number + 1


def steps_alone(batches: Any) -> Any:
    return classify.map(batches, labels=LABELS, descriptions={})


def with_own_tasks(batches: Any) -> Any:
    """A plain task that is mapped, one that is submitted over a list, and a flow of its own."""
    enriched = enrich.map(steps_alone(batches), unmapped(LABELS))
    number = count.submit(enriched)
    assert beneath(number.result()) > 1
    return summarize.map(enriched, max_words=20)


def in_batches_of_its_own(_: Any) -> Any:
    """Documents that are in no batch of ours."""
    made = [
        Document(id=f"x{n}", text=f"Letter {n}.", sensitivity="public")
        for n in range(9)
    ]
    return steps_alone([Batch(tuple(made[:5])), Batch(tuple(made[5:]))])


Work = Callable[[Any], Any]


def own_flow(work: Work, rows: Any = ROWS, **settings: Any) -> Any:
    @flow(name="own")
    def own() -> Any:
        with recorded_run() as run:
            letters = documents_from(
                iter(rows), sensitivity="internal", batch_size=2, **settings
            )
            write_documents(work(letters), Path("out"))
        return run.summary()

    return own


@pytest.mark.parametrize("work", [steps_alone, with_own_tasks])
def test_a_run(prefect_server: str, project: Project, work: Work) -> None:
    summary = own_flow(work)()
    assert (summary.run.documents, summary.run.deferred) == (6, 1)
    lines = (project.root / "out/outcomes.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [
        "A1",
        "A2",
        "A3",
        "A4",
        "5",
        "6",
    ]


def test_only_what_is_new(
    prefect_server: str, project: Project, standin: Standin
) -> None:
    """By id and text, in runs of the same flow."""
    own_flow(steps_alone, ROWS[:2], only_new=True)()
    assert standin.count == 2
    summary = own_flow(steps_alone, ROWS[:4], only_new=True)()
    assert summary.run.documents == 2
    own_flow(steps_alone, [], only_new=True)()


def test_no_document_at_all_is_a_mistake(prefect_server: str, project: Project) -> None:
    with pytest.raises(Misuse, match="documents_from got no document"):
        own_flow(steps_alone, [])()


@pytest.mark.parametrize(
    ("work", "documents"),
    [(steps_alone, 6), (with_own_tasks, 6), (in_batches_of_its_own, 10)],
)
def test_a_plan_and_a_sample(
    project: Project, standin: Standin, work: Work, documents: int
) -> None:
    """Own tasks are called as functions; a sample asks about the chosen documents alone."""
    with closing(Planner(project, {})) as planner:
        dry_run(own_flow(work), {}, planner)
        plan = planner.plan("own", {})
    assert (standin.count, plan.documents) == (0, documents)
    chosen = ["A2", "x1", "x7"]
    with closing(Sampler(project, "own", chosen, {})) as sampler:
        dry_run(own_flow(work), {}, sampler)
        sampler.sample(of=documents)
    asked = {request.document for request in standin.requests}
    wanted = {each["text"] for each in ROWS if each.get("id") == "A2"}
    if work is in_batches_of_its_own:
        wanted = {"Letter 1.", "Letter 7."}
    assert asked == wanted


def test_a_failing_task_of_its_own_ends_the_plan_with_its_place(
    project: Project,
) -> None:
    @task
    def fail(batch: Batch) -> Batch:
        raise LookupError("no such customer")

    def work(batches: Any) -> Any:
        return fail.map(batches)

    with (
        closing(Planner(project, {})) as planner,
        pytest.raises(
            Exception, match=r"LookupError: no such customer \(.*test_own_doc"
        ),
    ):
        dry_run(own_flow(work), {}, planner)
