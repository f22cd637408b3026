"""The figures of some runs, together with what the project's files say about their steps today.

`tierwise show` and `tierwise report` share this.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from tierwise.documents.places import source_of
from tierwise.errors import ConfigError
from tierwise.explain.project_facts import project_facts
from tierwise.ledger.views.runs import is_measurement_run
from tierwise.report.build import build_report
from tierwise.report.figures import ProjectFacts

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, RunRow
    from tierwise.project import Project
    from tierwise.report.build import RunReport


def read_report(ledger: Ledger, runs: Sequence[RunRow], project: Project) -> RunReport:
    """Read the figures of some runs, with the current catalog, floors and certificates."""
    steps = ledger.runs.steps([run.id for run in runs])
    facts = _project_facts(project, ledger, steps)
    today = datetime.date.today()
    if all(is_measurement_run(run) for run in runs):
        # The queue leaves these out, and no later run takes up what they deferred.
        return build_report(ledger, runs, facts, today)
    queue = ledger.runs.queue(lambda path: source_of(path, project.root))
    waiting = {(row.run_id, row.document_id) for row in queue if not row.is_decided}
    return build_report(ledger, runs, facts, today, waiting)


def _project_facts(project: Project, ledger: Ledger, steps: set[str]) -> ProjectFacts:
    """Return what the project's files say about these steps.

    The past is readable even where a file is wrong today, so that is a note and no error.
    """
    try:
        return project_facts(project, ledger, steps)
    except ConfigError as error:
        typer.echo(f"without savings and certificates: {error}", err=True)
        return ProjectFacts()
