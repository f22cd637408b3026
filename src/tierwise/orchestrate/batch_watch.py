"""The provider batches of a run while it waits for them: in the terminal and in Prefect.

Prefect only shows: anything that fails here is a warning, never the end of a run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tierwise.cascade import RunContext
from tierwise.engine import StepRunner
from tierwise.errors import LedgerError
from tierwise.orchestrate.prefect_ui import log_to_run, warn_on_failure
from tierwise.report.batch_progress import BatchProgress, batch_progress

_LOOKS_EVERY_S = 5.0


@contextmanager
def batches_watched(
    runner: StepRunner, run: RunContext, flow_run_id: str | None
) -> Iterator[None]:
    """Show the open batches that the run waits for inside this block, every few seconds."""
    catalog = runner.policy.catalog
    if all(model.batch is None for model in catalog.models.values()):
        yield
        return
    watch = _Watch(runner, run, shows_in_prefect=flow_run_id is not None)
    # With the flow run's context, so that Prefect knows whose artifact it is.
    context = copy_context()
    thread = threading.Thread(
        target=context.run, args=(watch.look_until_closed,), daemon=True
    )
    thread.name = "tierwise watches batches"
    thread.start()
    try:
        yield
    finally:
        watch.closing.set()
        thread.join()
        runner.batches_text = ""


class _Watch:
    def __init__(
        self, runner: StepRunner, run: RunContext, *, shows_in_prefect: bool
    ) -> None:
        self.closing = threading.Event()
        self._runner = runner
        self._run = run
        self._shows_in_prefect = shows_in_prefect
        self._bar: Any = None
        self._shown: tuple[int, int] | None = None  # batches and items done

    def look_until_closed(self) -> None:
        while not self.closing.wait(_LOOKS_EVERY_S):
            self._look()

    def _look(self) -> None:
        batches = self._runner.ledger.batches
        try:
            # Those of another run too, which this one waits for.
            followed = self._runner.followed_batches
            rows = [
                row
                for row in batches.open_batches()
                if row.run_id == self._run.id or row.id in followed
            ]
            progress = batch_progress(
                rows, self._runner.policy.catalog, batches.seconds_taken
            )
        except LedgerError:
            return  # it is away, which the run itself finds out
        if progress is None:
            self._runner.batches_text = ""
            return
        text = progress.sentence(time.time())
        self._runner.batches_text = text
        shown = (progress.batches, progress.done)
        if self._shows_in_prefect and shown != self._shown:
            self._shown = shown
            with warn_on_failure():
                self._show(progress, text)

    def _show(self, progress: BatchProgress, text: str) -> None:
        log_to_run("waiting for %s", text)
        if self._bar is None:
            self._bar = create_progress_artifact(
                progress=progress.percent, description=f"Provider batches: {text}"
            )
            return
        update_progress_artifact(
            self._bar,
            progress=progress.percent,
            description=f"Provider batches: {text}",
        )
