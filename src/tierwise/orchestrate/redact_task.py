"""`redact` as a Prefect task over a batch, like a step, but without a model."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from prefect.cache_policies import NO_CACHE

from tierwise.documents.redaction.redact import REGIONS, STEP, Redaction
from tierwise.orchestrate.batch_task import BatchTask, task_run_name
from tierwise.orchestrate.prefect_ui import log_to_run
from tierwise.orchestrate.runs import current_run
from tierwise.records import Batch, Document, Sensitivity


def _redact(
    batch: Batch,
    *,
    to: Sensitivity,
    restricted_to: Sensitivity | None = None,
    also: Sequence[str | re.Pattern[str]] = (),
    regions: Sequence[str] = REGIONS,
) -> Batch:
    """Take personal data out of documents, and lower those that then pass a second look.

    A document that does not pass keeps its sensitivity and continues, with the reason on record.
    The parameters are those of `tierwise.documents.redaction.redact.Redaction`.
    """
    run = current_run()
    redaction = Redaction(
        to=to, restricted_to=restricted_to, also=tuple(also), regions=tuple(regions)
    )
    originals = batch.load()
    redacted = [redaction.apply(document) for document in originals]
    for original, document in zip(originals, redacted, strict=True):
        run.engine.record(run.context, original, document.outcomes[STEP])
    _log_not_lowered(redacted)
    return run.hold(batch.with_documents(tuple(redacted)))


redact = BatchTask(
    _redact,
    name=STEP,
    task_run_name=task_run_name(STEP),  # type: ignore[arg-type] # Prefect asks for a class method of its own
    cache_policy=NO_CACHE,
    persist_result=False,  # document text stays out of Prefect's storage
)


def _log_not_lowered(documents: Sequence[Document]) -> None:
    """Log one line for the batch, and one for each document that keeps its sensitivity."""
    outcomes = {document.id: document.outcomes[STEP] for document in documents}
    kept = {
        name: outcome
        for name, outcome in outcomes.items()
        if outcome.reason and outcome.status == "accepted"
    }
    log_to_run("%s: %d documents, %d not lowered", STEP, len(outcomes), len(kept))
    for name, outcome in kept.items():
        log_to_run(
            "%s left %s %s: %s",
            STEP,
            name,
            outcome.sensitivity,
            outcome.reason,
            level=logging.WARNING,
        )
