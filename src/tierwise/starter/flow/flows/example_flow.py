"""example_flow: say here what this job is for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import flow, unmapped
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
        sensitivity: of documents that do not say it themselves; they can only say a higher one.
        budget_usd: no call is made that could spend more than this in all.
        out: folder for the results, one file a document and one line each in outcomes.jsonl.
        only_new: leave out documents that an earlier run brought to an end; for a folder that is watched.
    """
    with recorded_run(budget_usd=budget_usd) as run:
        documents = read_documents(source, sensitivity=sensitivity, only_new=only_new)
        done = example_step.map(
            documents,
            **EXAMPLE_PARAMETERS,
        )
        write_documents(done, out)
    return run.summary()
