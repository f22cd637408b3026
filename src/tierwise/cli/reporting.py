"""The figures of some runs, together with what the project's files say about their steps today.

`tierwise show` and `tierwise report` share this.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from tierwise.documents.places import source_of
from tierwise.errors import ConfigError, Misuse, TierwiseError
from tierwise.explain.step_facts import current_step
from tierwise.ledger.people.demotions import not_counting
from tierwise.ledger.views.runs import is_measurement_run
from tierwise.report.build import build_report
from tierwise.report.figures import CertificateState, ProjectFacts

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, RunRow
    from tierwise.policy.certificates import Current
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
        catalog = project.catalog
        floors = project.rules.floors
        agreement_floors = project.rules.agreement_floors
        certificates = project.certificates.all
    except ConfigError as error:
        typer.echo(f"without savings and certificates: {error}", err=True)
        return ProjectFacts()
    # Only steps that ran: each one here may have to be imported.
    certified = sorted({certificate.step for certificate in certificates} & steps)
    states: list[CertificateState] = []
    for step in certified:
        states += _certificate_states(project, ledger, step)
    return ProjectFacts(
        catalog=catalog,
        floors=floors,
        agreement_floors=agreement_floors,
        certificates=states,
        suspended=[
            suspension
            for (step, _), suspension in ledger.served.suspensions(
                certificates, catalog
            ).items()
            if step in steps
        ],
        labels_wanted=len(ledger.samples.queue()),
    )


def _certificate_states(
    project: Project, ledger: Ledger, step: str
) -> list[CertificateState]:
    """Return the certificates of a step, each with the reason that voids it, if there is one."""
    certificates = [
        certificate
        for certificate in project.certificates.all
        if certificate.step == step
    ]
    try:
        current = _current(project, ledger, step)
    except (TierwiseError, ImportError) as error:
        # The step or its golden set may have been removed or broken since.
        reason = f"it cannot be checked: {error}"
        return [CertificateState(certificate, reason) for certificate in certificates]
    return [
        # `void_reasons` is None while it is in force.
        CertificateState(certificate, certificate.void_reasons(current))
        for certificate in certificates
    ]


def _current(project: Project, ledger: Ledger, name: str) -> Current:
    """Return what a step's certificates must agree with today.

    Raises Misuse for an unknown step.
    """
    # the step is imported where the cache has no facts about it
    current = current_step(project, name)
    if current is None:
        raise Misuse(f"there is no tasks/{name}.py")
    reasons = not_counting(ledger, project.certificates, project.rules, project.catalog)
    demotions = {
        models: reason for (step, models), reason in reasons.items() if step == name
    }
    return replace(current, demoted=demotions)
