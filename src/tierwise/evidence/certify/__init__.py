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
from tierwise.evidence.certify.golden_step import GoldenStep, load_golden_step
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
    "load_golden_step",
    "with_lower_bounds",
]
