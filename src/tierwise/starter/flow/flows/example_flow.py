"""example_flow: say here what this job is for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field

from tasks.example_step import example_step
from tierwise import (
    RunSummary,
    Sensitivity,
    read_documents,
    recorded_run,
    task_runner,
    write_documents,
)


@flow(name="example-flow", task_runner=task_runner())
def example_flow(
    source: Path = Path("examples"),
    sensitivity: Sensitivity = "internal",
    budget_usd: Annotated[float, Field(ge=0)] = 1.0,
    out: Path = Path("out/example_flow"),
    only_new: bool = False,
) -> RunSummary:
    """Say here what this job is for.

    Args:
        source: a folder or file of documents.
        sensitivity: the least sensitivity of the documents; a document can only raise its own.
        budget_usd: the most that the run may spend, in USD.
        out: the folder for the results: one file for each document, and outcomes.jsonl with a line for each.
        only_new: skip documents that an earlier run finished; for a watched folder.
    """
    with recorded_run(budget_usd=budget_usd) as run:
        documents = read_documents(source, sensitivity=sensitivity, only_new=only_new)
        done = example_step.map(
            documents,
            **EXAMPLE_PARAMETERS,
        )
        write_documents(done, out)
    return run.summary()
