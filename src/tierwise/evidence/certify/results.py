"""The result of one candidate, and the certificate that follows from it."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tierwise import __version__
from tierwise.evidence.certify.levels import Level
from tierwise.evidence.certify.measure import Evaluation, Measurement
from tierwise.evidence.certify.next_floor import NextFloor
from tierwise.evidence.certify.pairs import NextComparison, Pairs
from tierwise.evidence.judge import HumanLabel
from tierwise.policy.certificates import AgreementCertificate, Certificate
from tierwise.policy.sentinel import has_served_name


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateResult:
    """The measurement of one candidate at its level, and its certificate, if it gets one."""

    measurement: Measurement
    level: Level
    # the accuracy that is proven
    bound: float
    certificate: Certificate | None
    note: str = ""
    # that of the next look at the step's labels; None beside a reference
    next_level: Level | None = None
    # what more labels would bring; None: nothing near
    next_floor: NextFloor | NextComparison | None = None
    # beside a reference: what was compared, and whether it is shown to be close enough
    pairs: Pairs | None = None
    reference: str | None = None
    is_shown: bool = False
    # answers for human labelling, where asked for
    to_label: tuple[HumanLabel, ...] = ()


def certificate_of(
    evaluation: Evaluation,
    measurement: Measurement,
    bound: float,
    *,
    thresholds_hash: str | None,
    level: Level,
    look: int,
    machine: str,
    also_has: Mapping[str, Any] | None = None,
    also: Measurement | None = None,
) -> Certificate | None:
    """Return the dated proof of a measurement; None where it proves nothing.

    That is so for a rubric without a judge, and for a judge without human labels. `also_has` are
    the fields of a certificate beside a reference or of a chain by field, and `also` is the
    reference's measurement.
    """
    judged = measurement.judged  # None: no judge was asked
    if measurement.n == 0 or (evaluation.rubric and judged is None):
        return None
    if judged and (judged.open_labels or not judged.human_labels):
        return None
    engine = evaluation.engine
    current = evaluation.current
    certificate = Certificate(
        **current.evidence(
            measurement.models, evaluation.golden_name, measurement.threshold
        ),
        step=evaluation.step.name,
        prompt=engine.prompts[evaluation.step.prompt].label,
        golden_hash=evaluation.golden.hash,
        n=measurement.n,
        errors=measurement.errors,
        deferred=measurement.deferred,
        compared=level.compared,
        alpha=level.alpha,
        bound=bound,
        look=look,
        floor=evaluation.floor,
        served=_watched(evaluation, measurement, also) or None,
        served_since=max(
            (
                each.served_since
                for each in (measurement, also)
                if each and each.served_since
            ),
            default=None,
        ),
        items=measurement.items,
        wrong=measurement.wrong_items,
        **(also_has or {}),
        threshold=measurement.threshold,
        coverage=measurement.coverage,
        thresholds_hash=thresholds_hash,
        mean_cost=measurement.mean_cost,
        mean_usage=measurement.mean_usage,
        latency_p50_s=measurement.latency_p50_s,
        judged_by=judged.by if judged else None,
        human_labels=judged.human_labels if judged else None,
        false_passes=judged.false_passes if judged else None,
        date=datetime.date.today(),
        machine=machine,
        tierwise_version=__version__,
    )
    if evaluation.teacher is None:
        return certificate
    return AgreementCertificate(
        **certificate.model_dump(),
        teacher=evaluation.teacher,
        teacher_identity=current.identities[evaluation.teacher],
    )


def _watched(
    evaluation: Evaluation, measurement: Measurement, also: Measurement | None
) -> dict[str, tuple[str, ...]]:
    """Return the served names of the models whose server may report another one later."""
    catalog = evaluation.engine.policy.catalog
    served = {**(also.served if also else {}), **measurement.served}
    return {
        name: names
        for name, names in sorted(served.items())
        if has_served_name(catalog.model(name))
    }


def this_machine() -> str:
    """Return the machine and the version of Python, for the certificate."""
    return (
        f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    )
