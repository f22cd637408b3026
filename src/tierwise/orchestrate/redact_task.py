"""`redact` as a Prefect task over a batch, like a step, but without a model."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

from prefect import get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import MissingContextError

from tierwise.documents.redaction.redact import REGIONS, STEP, Redaction
from tierwise.orchestrate.dry_run import BatchTask
from tierwise.orchestrate.flows import _task_run_name, current_run
from tierwise.records import Batch, Sensitivity


def _redact(
    batch: Batch,
    *,
    to: Sensitivity,
    restricted_to: Sensitivity | None = None,
    also: Sequence[str | re.Pattern[str]] = (),
    regions: Sequence[str] = REGIONS,
) -> Batch:
    """Take personal data out of documents, and lower those that then pass a second look.

    One that does not pass keeps its sensitivity and goes on, with the reason on record. The parameters are
    those of `tierwise.documents.redaction.redact.Redaction`.
    """
    run = current_run()
    redaction = Redaction(
        to=to, restricted_to=restricted_to, also=tuple(also), regions=tuple(regions)
    )
    originals = batch.load()
    done = batch.with_documents(tuple(map(redaction.apply, originals)))
    for before, document in zip(originals, done.load(), strict=True):
        run.engine.record(run.context, before, document.outcomes[STEP])
    _log_kept(done)
    return run.hold(done)


redact = BatchTask(
    _redact,
    name=STEP,
    task_run_name=_task_run_name(STEP),  # type: ignore[arg-type] # Prefect asks for a class method of its own
    cache_policy=NO_CACHE,
    persist_result=False,  # document text stays out of Prefect's storage
)


def _log_kept(batch: Batch) -> None:
    """How many were lowered, and a line for each that was not."""
    try:
        logger: logging.LoggerAdapter[logging.Logger] | logging.Logger = get_run_logger()
    except MissingContextError:  # called without Prefect
        return
    outcomes = [(document.id, document.outcomes[STEP]) for document in batch.load()]
    kept = [
        (name, outcome)
        for name, outcome in outcomes
        if outcome.reason and outcome.status == "accepted"
    ]
    logger.info("%s: %d documents, %d not lowered", STEP, len(outcomes), len(kept))
    for name, outcome in kept:
        logger.warning("%s left %s %s: %s", STEP, name, outcome.sensitivity, outcome.reason)
