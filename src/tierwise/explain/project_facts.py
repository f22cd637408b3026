"""What the project's files say about steps today: floors, and certificates with their state."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from tierwise.errors import Misuse, TierwiseError
from tierwise.explain.step_facts import current_step
from tierwise.ledger.people.demotions import not_counting
from tierwise.report.figures import CertificateState, ProjectFacts

if TYPE_CHECKING:
    from tierwise.ledger import Ledger
    from tierwise.policy.certificates import Current
    from tierwise.project import Project


def project_facts(
    project: Project,
    ledger: Ledger,
    steps: Collection[str],
    *,
    may_import: bool = True,
) -> ProjectFacts:
    """Return what the project's files say about these steps. Raises ConfigError for a wrong file.

    Only steps that ran: each one may have to be imported, unless `may_import` is false.
    """
    catalog = project.catalog
    floors = project.rules.floors
    agreement_floors = project.rules.agreement_floors
    certificates = project.certificates.all
    certified = sorted({certificate.step for certificate in certificates} & set(steps))
    states: list[CertificateState] = []
    for step in certified:
        states += _certificate_states(project, ledger, step, may_import)
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
    project: Project, ledger: Ledger, step: str, may_import: bool
) -> list[CertificateState]:
    """Return the certificates of a step, each with the reason that voids it, if there is one."""
    certificates = [
        certificate
        for certificate in project.certificates.all
        if certificate.step == step
    ]
    try:
        current = _current(project, ledger, step, may_import)
    except (TierwiseError, ImportError) as error:
        # The step or its golden set may have been removed or broken since.
        reason = f"it cannot be checked: {error}"
        return [CertificateState(certificate, reason) for certificate in certificates]
    return [
        # `void_reasons` is None while it is in force.
        CertificateState(certificate, certificate.void_reasons(current))
        for certificate in certificates
    ]


def _current(project: Project, ledger: Ledger, name: str, may_import: bool) -> Current:
    """Return what a step's certificates must agree with today.

    Raises Misuse for an unknown step.
    """
    # the step is imported where the cache has no facts about it
    current = current_step(project, name, may_import=may_import)
    if current is None and not may_import:
        raise Misuse(
            "its step is not known here since its files changed; `tierwise check` reads it"
        )
    if current is None:
        raise Misuse(f"there is no tasks/{name}.py")
    reasons = not_counting(ledger, project.certificates, project.rules, project.catalog)
    demotions = {
        models: reason for (step, models), reason in reasons.items() if step == name
    }
    return replace(current, demoted=demotions)
