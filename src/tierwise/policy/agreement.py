"""Where a certificate of agreement with a teacher counts, and why it does not elsewhere."""

from __future__ import annotations

from collections.abc import Collection

from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import AgreementCertificate, Certificates, Current
from tierwise.policy.rules import LOW_CONFIDENCE, Rules

# no tier is barred
NO_TIERS: frozenset[str] = frozenset()


def agreement_doubt(
    certificate: AgreementCertificate,
    catalog: Catalog,
    rules: Rules,
    allowed: Collection[str],
    current: Current,
    barred: frozenset[str] = NO_TIERS,
) -> str | None:
    """Return why a certificate of agreement does not count for a document; None when it does.

    `allowed` are the models that the document may go to, `barred` the tiers that a guard keeps it
    from. Nothing is known about agreement on documents that the teacher may not see, and agreement
    with a weak teacher is no reason to leave a strong model out.
    """
    teacher = certificate.teacher
    floor = rules.agreement_floors.get(certificate.step)
    if floor is None:
        return f"the rules give no agreement floor for {certificate.step}"
    reasons = certificate.void_reasons(current)
    if reasons:
        return f"its certificate of agreement is void: {reasons}"
    if not certificate.covers(floor):
        return f"below the agreement floor of {floor:g}: {certificate.proof}"
    if certificate.threshold is not None and LOW_CONFIDENCE not in rules.escalate.on:
        return (
            "its certificate of agreement has a threshold, and the rules do not escalate on "
            f"{LOW_CONFIDENCE}"
        )
    if catalog.model(teacher).tier in barred:
        return (
            f"a guard keeps this document from {teacher}, so agreement with {teacher} was not "
            "tested on such"
        )
    stronger = [
        name
        for name in allowed
        if catalog.models[name].strength > catalog.model(teacher).strength
        and catalog.models[name].learned is None
    ]
    if stronger:
        strongest = max(stronger, key=lambda name: catalog.models[name].strength)
        return (
            f"agreement with {teacher} does not count beside {strongest}, which is stronger; "
            f"a teacher should be the strongest model that the route allows"
        )
    return None


def agreements_for(
    step: str,
    certificates: Certificates,
    catalog: Catalog,
    rules: Rules,
    allowed: Collection[str],
    current: Current,
    barred: frozenset[str] = NO_TIERS,
) -> list[AgreementCertificate]:
    """Return the certificates of agreement that count for a document."""
    return [
        certificate
        for certificate in certificates.agreements
        if certificate.step == step
        and set(certificate.models) <= set(allowed)
        and agreement_doubt(certificate, catalog, rules, allowed, current, barred)
        is None
    ]
