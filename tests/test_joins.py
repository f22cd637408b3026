"""`join(a, b)`: the outcomes of steps that ran side by side, in one document each."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.runtime import flow_run
from pydantic import BaseModel

from tests.kit.projects import make_project, model
from tests.kit.standin import Request, Standin, status
from tierwise import (
    RunSummary,
    join,
    read_documents,
    recorded_run,
    redact,
    step,
    task_runner,
    write_documents,
)
from tierwise.documents import iter_documents
from tierwise.errors import Misuse, TierwiseError
from tierwise.orchestrate import documents as reading
from tierwise.orchestrate.batch_task import call_now
from tierwise.orchestrate.dry_run import dry_run
from tierwise.orchestrate.joining import joined_document
from tierwise.plan import Planner
from tierwise.project import Project
from tierwise.records import Batch, Document, Outcome, Status

STEPS = ("first", "second", "third")
PATIENCE_S = 30.0
PROMPT = """---
step: {step}
version: 1
max_output_tokens: 60
---
{{% block system %}}The {step} step. Answer with a JSON object.{{% endblock %}}
{{% block user %}}{{{{ document }}}}{{% endblock %}}
"""


class Label(BaseModel):
    """A label."""

    label: str


first, second, third = (step(name, returns=Label) for name in STEPS)


def answer(request: Request) -> str:
    """The name of the step is the answer."""
    return json.dumps({"label": step_of(request)})


def step_of(request: Request) -> str:
    return next(name for name in STEPS if f"The {name} step" in str(request.body))


@pytest.fixture
def provider() -> Iterator[Standin]:
    with Standin() as server:
        server.answer(answer)
        yield server


@pytest.fixture
def project(tmp_path: Path, provider: Standin, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with six letters and three steps."""
    root = make_project(tmp_path / "project", model("small", provider.url))
    rules = "version: 1\nroutes: [{name: all, try: [small]}]\n"
    (root / "routing_rules" / "rules.yaml").write_text(rules)
    for name in STEPS:
        (root / "prompts" / f"{name}.md.j2").write_text(PROMPT.format(step=name))
    (root / "inbox").mkdir()
    for number in range(1, 7):
        (root / "inbox" / f"{number}.txt").write_text(f"Letter {number}: a desk.")
    monkeypatch.chdir(root)
    return root


def read(source: str = "inbox") -> Any:
    return read_documents(Path(source), sensitivity="internal", batch_size=2)


def both(letters: Any) -> Any:
    return join(first.map(letters), second.map(letters))


def flow_of(use: Callable[[Any], Any], **settings: Any) -> Any:
    @flow(name="side-by-side", task_runner=task_runner())
    def side_by_side() -> RunSummary:
        with recorded_run(**settings) as run:
            write_documents(use(read()), Path("out"))
        return run.summary()

    return side_by_side


def written(root: Path) -> dict[str, dict[str, Any]]:
    """By document: its outcomes, as they were written."""
    lines = (root / "out" / "outcomes.jsonl").read_text().splitlines()
    return {row["id"]: row["outcomes"] for row in map(json.loads, lines)}


def labels(outcomes: dict[str, Any]) -> dict[str, str]:
    return {name: each["value"]["label"] for name, each in outcomes.items()}


def all_three(letters: Any) -> Any:
    return third.map(both(letters))


def joined_alone(letters: Any) -> Any:
    return both(letters)


def with_what_was_read(letters: Any) -> Any:
    return join(letters, first.map(letters), second.map(letters))


def with_an_earlier_step(letters: Any) -> Any:
    begun = first.map(letters)
    return join(second.map(begun), begun)


def twice(letters: Any) -> Any:
    begun = first.map(letters)
    return third.map(join(join(begun, second.map(letters)), begun))


def of_lists(letters: Any) -> Any:
    done = [[future.result() for future in s.map(letters)] for s in (first, second)]
    return join(*done)


def half_a_list(letters: Any) -> Any:
    done = [future.result() for future in first.map(letters)]
    return join(second.map(letters), done)


def after_others(letters: Any) -> Any:
    begun = first.map(letters)
    return join(begun, second.map(letters), wait_for=[begun[0]])


SHAPES: dict[Callable[[Any], Any], tuple[str, ...]] = {
    all_three: STEPS,
    joined_alone: STEPS[:2],
    with_what_was_read: STEPS[:2],
    with_an_earlier_step: STEPS[:2],
    twice: STEPS,
    of_lists: STEPS[:2],
    half_a_list: STEPS[:2],
    after_others: STEPS[:2],
}


@pytest.mark.parametrize("order", ["depth", "breadth"])
def test_every_document_has_the_outcomes_of_all_branches(
    prefect_server: str, project: Path, order: str
) -> None:
    for use, steps in SHAPES.items():
        summary = flow_of(use, order=order)()
        assert (summary.run.documents, summary.run.deferred) == (6, 0), use.__name__
        outcomes = written(project)
        assert len(outcomes) == 6
        for each in outcomes.values():
            assert labels(each) == {name: name for name in steps}, use.__name__


def test_the_next_step_begins_while_documents_are_read(
    prefect_server: str,
    project: Path,
    provider: Standin,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = threading.Event()

    def noting(request: Request) -> str:
        if step_of(request) == "third":
            asked.set()
        return answer(request)

    def slow_documents(*args: Any, **kwargs: Any) -> Iterator[Document]:
        for number, document in enumerate(iter_documents(*args, **kwargs), 1):
            if number == 6 and not asked.wait(PATIENCE_S):
                pytest.fail("no joined batch went on while documents were left to read")
            yield document

    provider.answer(noting)
    monkeypatch.setattr(reading, "iter_documents", slow_documents)
    summary = flow_of(all_three)()
    assert (summary.run.documents, summary.run.deferred) == (6, 0)


def test_a_document_that_stopped_in_a_branch_is_skipped_and_the_step_is_named(
    prefect_server: str, project: Path, provider: Standin
) -> None:
    def refusing(request: Request) -> Any:
        if step_of(request) == "second" and "Letter 3" in request.document:
            return status(400)
        return answer(request)

    provider.answer(refusing)
    flow_of(all_three)()
    outcomes = written(project)["3.txt"]
    assert outcomes["first"]["status"] == "accepted"
    assert outcomes["second"]["status"] == "deferred"
    assert outcomes["third"]["status"] == "skipped"
    assert outcomes["third"]["reason"] == "second was deferred"
    assert written(project)["4.txt"]["third"]["status"] == "accepted"


def test_prefect_shows_both_branches_as_inputs(
    prefect_server: str, project: Path
) -> None:
    ids: list[Any] = []

    def noting(letters: Any) -> Any:
        ids.append(flow_run.get_id())
        return all_three(letters)

    flow_of(noting)()
    with get_client(sync_client=True) as client:
        runs = client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=100
        )
    names = {run.id: run.name.partition(" · ")[0] for run in runs}
    joined = [run for run in runs if names[run.id] == "join"]
    assert len(joined) == 3
    for run in joined:
        given = [each for inputs in run.task_inputs.values() for each in inputs]
        steps = {names[each.id] for each in given if each.input_type == "task_run"}
        assert steps == {"first", "second"}


def test_states_are_returned_where_they_are_asked_for(
    prefect_server: str, project: Path
) -> None:
    seen: list[Any] = []

    def use(letters: Any) -> Any:
        begun = first.map(letters, return_state=True)
        seen.extend(join(begun, second.map(letters), return_state=True))
        return third.map(seen)

    flow_of(use)()
    assert [state.name for state in seen] == ["Completed"] * 3
    assert all(labels(each).keys() == set(STEPS) for each in written(project).values())


def same_step_twice(letters: Any) -> Any:
    return join(first.map(letters), first.map(letters, only=lambda document: True))


def same_step_further_on(letters: Any) -> Any:
    return join(second.map(first.map(letters)), first.map(letters))


def other_reading(letters: Any) -> Any:
    return join(first.map(letters), second.map(read("others")))


def longer_reading(letters: Any) -> Any:
    return join(first.map(letters), second.map(read("more")))


def redacted_in_one(letters: Any) -> Any:
    return join(first.map(letters), redact.map(letters, to="internal"))


def nothing(letters: Any) -> Any:
    return join()


def one_batch(letters: Any) -> Any:
    return join(first.map(letters), letters[0])


WRONG = (
    same_step_twice,
    same_step_further_on,
    other_reading,
    longer_reading,
    redacted_in_one,
    nothing,
    one_batch,
)


@pytest.mark.parametrize("order", ["depth", "breadth"])
def test_what_cannot_be_joined_is_refused(
    prefect_server: str, project: Path, order: str
) -> None:
    (project / "others").mkdir()
    (project / "more").mkdir()
    (project / "inbox" / "1.txt").write_text("Write to ann@example.org about the desk.")
    for number in range(1, 7):
        (project / "others" / f"{number}.txt").write_text(f"Other {number}")
    for number in range(1, 10):
        (project / "more" / f"{number}.txt").write_text(f"Other {number}")
    for use in WRONG:
        with pytest.raises(TierwiseError, match="join"):
            flow_of(use, order=order)()


def test_a_plan_joins_as_the_run_does(project: Path) -> None:
    for use, steps in SHAPES.items():
        planner = Planner(Project(project), {})
        try:
            dry_run(flow_of(use), {}, planner)
            plan = planner.plan("side-by-side", {})
        finally:
            planner.close()
        assert {row.step: row.documents for row in plan.routes} == dict.fromkeys(
            steps, 6
        )
        assert plan.waiting == ()


# ---- one document


def outcome(name: str, status: Status = "accepted", **fields: Any) -> Outcome:
    return Outcome(step=name, status=status, sensitivity="internal", **fields)


LETTER = Document(id="a.txt", text="Hello", sensitivity="internal")


def test_a_joined_document_is_as_sensitive_as_its_strictest_branch() -> None:
    strict = Document(
        id="a.txt",
        text="Hello",
        sensitivity="confidential",
        sensitivity_source="document",
    )
    for branches in ([LETTER, strict], [strict, LETTER]):
        joined = joined_document(branches)
        assert joined.sensitivity == "confidential"
        assert joined.sensitivity_source == "document"


@pytest.mark.parametrize("stopped", ["deferred", "rejected", "waiting"])
def test_a_joined_document_is_stopped_where_a_branch_is(stopped: Status) -> None:
    kept = LETTER.with_outcome(outcome("first", value={"label": "x"}))
    other = LETTER.with_outcome(outcome("second", stopped))
    for branches in ([kept, other], [other, kept]):
        found = joined_document(branches).stopped
        assert found is not None
        assert (found.step, found.status) == ("second", stopped)


def test_an_outcome_that_both_have_is_the_same_one() -> None:
    shared = LETTER.with_outcome(outcome("first", value={"label": "x"}))
    one = shared.with_outcome(outcome("second", value={"label": "y"}))
    assert list(joined_document([shared, one]).outcomes) == ["first", "second"]
    changed = shared.with_outcome(outcome("first", value={"label": "z"}))
    with pytest.raises(Misuse):
        joined_document([one, changed])


def test_a_batch_alone_is_refused() -> None:
    """As it is, and as the result of a future."""
    batch = Batch((LETTER,))
    for alone in (batch, call_now(lambda: batch)):
        with pytest.raises(Misuse):
            join([batch], alone)
