"""Routing of a step by field: the fields that are kept of each model, and the cheapest such chain.

A model keeps the fields that it has a valid certificate for at the rules' floor of the field. What
it leaves goes to the next model, and the last one keeps whatever passes its checks. A floor of the
whole document asks for a certificate of the chain as well, measured with the same fields kept.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tierwise.policy.catalog import Catalog
from tierwise.policy.certificates import (
    Certificate,
    Certificates,
    Current,
    FieldCertificate,
)
from tierwise.policy.floors import Floor
from tierwise.text.amounts import total

# field -> the confidence that it needs to be kept; None: any
KeptFields = Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChain:
    """Models to try in order, with the fields that are kept of each but the last."""

    models: tuple[str, ...]
    keeps: Mapping[str, KeptFields]
    cost: Decimal | None  # USD a document, expected; None: unknown
    left: float  # the most that the first model leaves of the documents, as a share
    evidence: str

    @property
    def sort_key(self) -> tuple[bool, Decimal, float, tuple[str, ...]]:
        """The cheapest chain has the least; of unknown costs, the one that leaves the least."""
        unknown = self.cost is None
        return unknown, self.cost or Decimal(0), self.left, self.models


def kept_fields(
    certificates: Certificates,
    step: str,
    model: str,
    floors: Mapping[str, float],
    current: Current,
) -> dict[str, FieldCertificate]:
    """Return the valid certificates of a model's fields that reach the floors, by field."""
    kept = {}
    for field, floor in floors.items():
        certificate = certificates.find_field(step, model, field)
        if certificate is None or missing_field_proof(certificate, floor, current):
            continue
        kept[field] = certificate
    return kept


def missing_field_proof(
    certificate: FieldCertificate, floor: float, current: Current
) -> str | None:
    """Return why a certificate of a field does not count for a floor; None when it does."""
    reasons = certificate.void_reasons(current)
    if reasons:
        return f"its certificate is void: {reasons}"
    if not certificate.covers(floor):
        return f"below the floor of {floor:g}: {certificate.proof}"
    return None


def why_nothing_is_kept(
    certificates: Certificates,
    step: str,
    model: str,
    floors: Mapping[str, float],
    current: Current,
) -> str:
    """Return why a model keeps no field, for each field with a floor."""
    reasons = []
    for field, floor in floors.items():
        certificate = certificates.find_field(step, model, field)
        if certificate is None:
            reasons.append(f"{field}: not certified")
        else:
            reason = missing_field_proof(certificate, floor, current)
            reasons.append(f"{field}: {reason}")
    return "; ".join(reasons)


def thresholds_of(kept: Mapping[str, FieldCertificate]) -> dict[str, float | None]:
    """Return the confidence that each kept field needs, in the order of the fields' names."""
    return {field: kept[field].threshold for field in sorted(kept)}


def field_chains(
    certificates: Certificates,
    catalog: Catalog,
    step: str,
    kept: Mapping[str, Mapping[str, FieldCertificate]],
    last: str,
    last_cost: Decimal | None,
    floor: Floor | None,
    current: Current,
) -> Iterator[FieldChain]:
    """Yield the chains that the certificates allow.

    `kept` maps each allowed model to its certified fields, and `last` answers what no other model
    keeps, at `last_cost` a document. With a floor of the whole document, only chains that have a
    certificate for it.
    """
    keeps = {model: thresholds_of(fields) for model, fields in kept.items() if fields}
    allowed = set(kept)
    for certificate in certificates.certificates:
        if certificate.step != step or certificate.keeps is None:
            continue
        usable = set(certificate.models) <= allowed and not changed_keeps(
            certificate, keeps
        )
        if not usable or certificate.void_reasons(current) is not None:
            continue
        if floor is not None and not certificate.covers(floor):
            continue
        yield FieldChain(
            models=tuple(dict.fromkeys((*certificate.models, last))),
            keeps={model: keeps.get(model, {}) for model in certificate.keeps},
            cost=certificate.cost(catalog),
            left=1 - (certificate.coverage or 0.0),
            evidence=f"{' > '.join(certificate.models)}: {certificate.proof}",
        )
    alone = certificates.find(step, (last,))
    if floor is not None:
        if (
            alone is not None
            and alone.covers(floor)
            and not alone.void_reasons(current)
        ):
            yield _alone(last, last_cost, f"{last}: {alone.proof}")
        return
    yield _alone(last, last_cost, f"{last} alone is the cheapest")
    for model in keeps:
        if model != last and not _is_measured(certificates, step, (model, last), keeps):
            yield _unmeasured_chain(
                catalog, current.fields, model, kept[model], last, last_cost
            )


def _alone(last: str, cost: Decimal | None, evidence: str) -> FieldChain:
    """Return the chain without a cheaper model before the last one."""
    return FieldChain(models=(last,), keeps={}, cost=cost, left=1.0, evidence=evidence)


def changed_keeps(
    certificate: Certificate, keeps: Mapping[str, KeptFields]
) -> str | None:
    """Return why a chain's certificate was measured with other fields kept; None if with these."""
    for model, measured in (certificate.keeps or {}).items():
        today = keeps.get(model, {})
        if dict(measured) != dict(today):
            return (
                f"it was measured with {model} keeping {words_of(measured)}, "
                f"and today it keeps {words_of(today)}"
            )
    return None


def words_of(kept: KeptFields) -> str:
    """Return the kept fields in words, such as `date, total from 0.95 on`."""
    if not kept:
        return "no field"
    return ", ".join(
        field if threshold is None else f"{field} from {threshold:g} on"
        for field, threshold in kept.items()
    )


def share_left(fields: Collection[str], kept: Mapping[str, FieldCertificate]) -> float:
    """Return the most that can be left of the documents: those with an open field.

    The shares of single fields do not say how they fall together, so this is their sum. A field
    that is never kept leaves every document.
    """
    if set(fields) - set(kept):
        return 1.0
    return min(1.0, math.fsum(1 - certificate.kept for certificate in kept.values()))


def share_whole(
    certificates: Certificates,
    step: str,
    models: tuple[str, ...],
    keeps: Mapping[str, KeptFields],
    fields: Collection[str],
) -> float | None:
    """Return the share of documents whose fields are all kept of the first of these models.

    As measured for the chain, or the least that follows from its fields. None: unknown.
    """
    for certificate in certificates.certificates:
        if certificate.step != step or certificate.keeps is None:
            continue
        same_models = certificate.models == models[: len(certificate.models)]
        if same_models and changed_keeps(certificate, keeps) is None:
            return certificate.coverage
    kept = {}
    for field in keeps.get(models[0], ()):
        of_field = certificates.find_field(step, models[0], field)
        if of_field is not None:
            kept[field] = of_field
    return 1 - share_left(fields, kept) if kept else None


def _is_measured(
    certificates: Certificates,
    step: str,
    models: tuple[str, ...],
    keeps: Mapping[str, KeptFields],
) -> bool:
    certificate = certificates.find(step, models)
    return (
        certificate is not None
        and certificate.keeps is not None
        and changed_keeps(certificate, keeps) is None
    )


def _unmeasured_chain(
    catalog: Catalog,
    fields: Collection[str],
    model: str,
    kept: Mapping[str, FieldCertificate],
    last: str,
    last_cost: Decimal | None,
) -> FieldChain:
    """Return a chain that is certified by field alone."""
    ordered = [kept[field] for field in sorted(kept)]
    left = share_left(fields, kept)
    later_cost: Decimal | None = Decimal(0)
    if left and last_cost is None:
        later_cost = None
    elif last_cost is not None:
        later_cost = Decimal(str(left)) * last_cost
    return FieldChain(
        models=(model, last),
        keeps={model: thresholds_of(kept)},
        cost=total([ordered[0].cost(catalog), later_cost]),
        left=left,
        evidence=f"{model}: {evidence_of(ordered)}",
    )


def evidence_of(certificates: Sequence[FieldCertificate]) -> str:
    """Return the certified fields of a model, each with its evidence."""
    parts = []
    for certificate in certificates:
        field = words_of({certificate.field: certificate.threshold})
        parts.append(f"{field}: {certificate.proof}")
    return "; ".join(parts)
