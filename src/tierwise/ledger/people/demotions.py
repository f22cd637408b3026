"""Certificates that no longer count: labels refute them, or a server reports another model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tierwise.ledger.people.samples import Demoted, demoted
from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import Certificates
from tierwise.policy.rules import Rules
from tierwise.policy.sentinel import Key, Suspension

if TYPE_CHECKING:
    from tierwise.ledger.store import Ledger


def not_counting(
    ledger: Ledger, certificates: Certificates, rules: Rules, catalog: Catalog
) -> Demoted:
    """Return the certificates that no longer count, each with the reason."""
    refuted = demoted(ledger.samples, certificates, rules.share_floors)
    suspended = ledger.served.suspensions(certificates.of_correctness, catalog)
    return with_suspensions(refuted, suspended)


def with_suspensions(
    refuted: Demoted, suspended: Mapping[Key, Suspension]
) -> dict[Key, str]:
    """Return the reasons of both kinds together, by step and models."""
    reasons = dict(refuted)
    for key, suspension in suspended.items():
        reason = suspension.reason
        if key in reasons:
            reason = f"{reasons[key]}; {reason}"
        reasons[key] = reason
    return reasons
