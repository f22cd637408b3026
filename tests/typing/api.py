"""The public types, checked by mypy: what a flow's author can rely on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, assert_type

from prefect import Task
from prefect.task_runners import TaskRunner
from pydantic import BaseModel

from tierwise import (
    Batch,
    Check,
    Document,
    RunSummary,
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


@check("length")
def not_empty(output: Output, document: Document) -> str | None:
    return None if output.text else "empty"


def flow_body() -> RunSummary:
    assert_type(task_runner(), TaskRunner[Any])
    shout = step("shout", returns=Output, checks=[not_empty])
    shout_as_task: Task[..., Batch] = shout
    assert_type(shout_as_task, Task[..., Batch])
    redact_as_task: Task[..., Batch] = redact
    assert_type(redact_as_task, Task[..., Batch])
    assert_type(not_empty, Check)
    assert_type(not_empty(Output(text=""), Document(id="a", text=""), {}), Verdict)
    with recorded_run(budget_usd=1.0) as run:
        batches = read_documents(Path("in"), sensitivity="internal")
        assert_type(batches, Sequence[Batch])
        rows = [{"id": 1, "text": "a"}]
        assert_type(documents_from(rows, sensitivity="internal"), Sequence[Batch])
        assert_type(documents_from([Document(id="a", text="b")]), Sequence[Batch])
        assert_type(write_documents(batches, Path("out")), Path)
        value: Any = batches[0].load()[0].value("shout")
        assert_type(value, Any)
    return run.summary()
