"""The public types, checked by mypy: what a flow's author can rely on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_type

from prefect import Task
from prefect.futures import PrefectFutureList
from prefect.task_runners import TaskRunner
from pydantic import BaseModel

from tierwise import (
    Batch,
    Check,
    Document,
    RunSummary,
    StepTask,
    Verdict,
    check,
    documents_from,
    read_documents,
    recorded_run,
    redact,
    step,
    task_runner,
    write_documents,
)


class Output(BaseModel):
    text: str


class Other(BaseModel):
    words: int


def needs_it(document: Document) -> bool:
    return document.language == "en"


@check("length")
def not_empty(output: Output, document: Document) -> str | None:
    return None if output.text else "empty"


@check("known")
async def is_known(output: Output, document: Document) -> str | None:
    return None if output.text else "empty"


def flow_body() -> RunSummary:
    assert_type(task_runner(), TaskRunner[Any])
    shout = step("shout", returns=Output, checks=[not_empty])
    shout_as_task: Task[..., Batch] = shout
    assert_type(shout_as_task, Task[..., Batch])
    assert_type(shout, StepTask[Output])
    redact_as_task: Task[..., Batch] = redact
    assert_type(redact_as_task, Task[..., Batch])
    assert_type(not_empty, Check)
    assert_type(is_known, Check)
    assert_type(not_empty(Output(text=""), Document(id="a", text=""), {}), Verdict)
    with recorded_run(budget_usd=1.0) as run:
        batches = read_documents(Path("in"), sensitivity="internal")
        assert_type(batches, Sequence[Batch])
        rows = [{"id": 1, "text": "a"}]
        assert_type(documents_from(rows, sensitivity="internal"), Sequence[Batch])
        assert_type(documents_from([Document(id="a", text="b")]), Sequence[Batch])
        assert_type(write_documents(batches, Path("out")), Path)
        done = shout.map(batches, only=needs_it, labels=["a", "b"])
        assert_type(done, PrefectFutureList[Batch])
        assert_type(shout.map(done, returns=Other), PrefectFutureList[Batch])
        assert_type(redact.map(done, to="internal"), PrefectFutureList[Batch])
        assert_type(write_documents(done, Path("out")), Path)
        document = batches[0].load()[0]
        assert_type(shout.of(document), Output | None)
        assert_type(shout.of(document, Other), Other | None)
        value: Any = batches[0].load()[0].value("shout")
        assert_type(value, Any)
    return run.summary()


def mistakes() -> None:
    """Each of these is an error for mypy: it would report an ignore that is not needed."""
    import tierwise

    str(tierwise.reed_documents)  # type: ignore[attr-defined]
    from tierwise import reed_documents  # type: ignore[attr-defined] # noqa: F401

    shout = step("shout", returns=Output)
    shout.map(Path("in"))  # type: ignore[arg-type]
    shout.map([], only="needs_it")  # type: ignore[arg-type]
    shout.map([], returns=Output(text=""))  # type: ignore[arg-type]
    output = shout.of(Document(id="a", text=""))
    str(output.text)  # type: ignore[union-attr]
    step("shout", returns=str)  # type: ignore[type-var]
