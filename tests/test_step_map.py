"""`STEP.map(batches, …)`: one task run a batch, and every other argument goes to each as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task, unmapped

from tasks.classify import classify
from tests.kit.projects import make_project, model
from tests.kit.standin import Standin
from tierwise import RunSummary, read_documents, recorded_run
from tierwise.errors import Misuse
from tierwise.orchestrate.dry_run import dry_run
from tierwise.plan import Planner
from tierwise.project import Project

LABELS = ["order", "complaint"]
DESCRIPTIONS = {"order": "wants goods", "complaint": "is unhappy"}


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        yield server


@pytest.fixture
def project(
    tmp_path: Path, provider: Standin, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """A project with two letters, and batches of one."""
    root = make_project(tmp_path / "project", model("small", provider.url))
    rules = "version: 1\nroutes: [{name: all, try: [small]}]\n"
    (root / "routing_rules" / "rules.yaml").write_text(rules)
    (root / "inbox").mkdir()
    for number in (1, 2):
        (root / "inbox" / f"{number}.txt").write_text(f"Letter {number}: a desk.")
    monkeypatch.chdir(root)
    return Project(root)


@task
def labels_of_the_day() -> list[str]:
    return LABELS


Sort = Callable[[Any], Any]


def by_lists(batches: Any) -> Any:
    return classify.map(batches, labels=LABELS, descriptions=DESCRIPTIONS)


def by_unmapped(batches: Any) -> Any:
    return classify.map(
        batches, labels=unmapped(LABELS), descriptions=unmapped(DESCRIPTIONS)
    )


def by_a_future(batches: Any) -> Any:
    labels = labels_of_the_day.submit()
    return classify.map(batches, labels=labels, descriptions=DESCRIPTIONS)


def by_an_unmapped_future(batches: Any) -> Any:
    labels = labels_of_the_day.submit()
    return classify.map(batches, labels=unmapped(labels), descriptions=DESCRIPTIONS)


ALIKE = pytest.mark.parametrize(
    "sort", [by_lists, by_unmapped, by_a_future, by_an_unmapped_future]
)


def make_flow(sort: Sort) -> Any:
    @flow(name="sort-letters")
    def sort_letters() -> RunSummary:
        with recorded_run() as run:
            letters = read_documents(
                Path("inbox"), sensitivity="internal", batch_size=1
            )
            for future in sort(letters):
                future.result()
        return run.summary()

    return sort_letters


@ALIKE
def test_lists_and_mappings_go_to_every_batch_as_they_are(
    prefect_server: str, project: Project, provider: Standin, sort: Sort
) -> None:
    """With `unmapped` around them or without; a future of another task is resolved."""
    summary = make_flow(sort)()
    assert (summary.run.documents, summary.run.deferred) == (2, 0)
    allowed = [
        request.schema["properties"]["label"]["enum"] for request in provider.requests
    ]
    assert allowed == [LABELS, LABELS]
    assert all("wants goods" in str(request.body) for request in provider.requests)


@pytest.mark.parametrize("sort", [by_lists, by_unmapped, by_a_future])
def test_a_plan_maps_in_the_same_way(project: Project, sort: Sort) -> None:
    planner = Planner(project, {})
    try:
        dry_run(make_flow(sort), {}, planner)
        plan = planner.plan("sort-letters", {})
    finally:
        planner.close()
    assert [row.documents for row in plan.routes] == [2]
    assert plan.waiting == ()


def test_a_batch_alone_is_submitted_not_mapped(
    prefect_server: str, project: Project
) -> None:
    def sort_one(batches: Any) -> Any:
        return classify.map(batches[0], labels=LABELS)

    with pytest.raises(Misuse, match=r"classify\.map takes a list of batches"):
        make_flow(sort_one)()
