"""Certification: measure candidates on a golden set as production runs them, and prove a floor."""

from __future__ import annotations

from tierwise.evidence.certify.compare import (
    CandidateResult,
    Thresholds,
    check_measurable,
    compare,
    with_lower_bounds,
)
from tierwise.evidence.certify.estimate import CostEstimate, estimate_cost
from tierwise.evidence.certify.golden_step import (
    GoldenStep,
    golden_faults,
    load_golden_step,
    measured_step,
    row_faults,
)
from tierwise.evidence.certify.measure import Evaluation, Measurement, ScoredExample

__all__ = [
    "CandidateResult",
    "CostEstimate",
    "Evaluation",
    "GoldenStep",
    "Measurement",
    "ScoredExample",
    "Thresholds",
    "check_measurable",
    "compare",
    "estimate_cost",
    "golden_faults",
    "load_golden_step",
    "measured_step",
    "row_faults",
    "with_lower_bounds",
]
