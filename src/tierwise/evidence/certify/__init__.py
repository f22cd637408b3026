"""Certification: measure candidates on a golden set as production runs them, and prove a floor."""

from __future__ import annotations

from tierwise.evidence.certify.compare import (
    CandidateResult,
    Thresholds,
    check_measurable,
    compare,
    keep_larger,
    larger_certificates,
    with_lower_bounds,
)
from tierwise.evidence.certify.estimate import CostEstimate, estimate_cost
from tierwise.evidence.certify.golden_step import (
    GoldenStep,
    golden_faults,
    load_golden_step,
    measured_step,
    row_faults,
    with_arrived,
)
from tierwise.evidence.certify.measure import Evaluation, Measurement, ScoredExample
from tierwise.evidence.certify.wrong_answers import Difference, WrongAnswer

__all__ = [
    "CandidateResult",
    "CostEstimate",
    "Difference",
    "Evaluation",
    "GoldenStep",
    "Measurement",
    "ScoredExample",
    "Thresholds",
    "WrongAnswer",
    "check_measurable",
    "compare",
    "estimate_cost",
    "golden_faults",
    "keep_larger",
    "larger_certificates",
    "load_golden_step",
    "measured_step",
    "row_faults",
    "with_arrived",
    "with_lower_bounds",
]
