"""Certification: measure candidates on a golden set as production runs them, and prove a floor."""

from __future__ import annotations

from tierwise.evidence.certify.by_field import (
    ByField,
    ChainResult,
    FieldResult,
    chains_of,
    check_by_field,
    compare_by_field,
    field_floors,
)
from tierwise.evidence.certify.compare import (
    compare,
    keep_earlier,
    larger_certificates,
    look_at,
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
from tierwise.evidence.certify.levels import Level, alpha_of_look
from tierwise.evidence.certify.measurable import (
    Thresholds,
    check_measurable,
    with_reference,
)
from tierwise.evidence.certify.measure import Evaluation, Measurement, ScoredExample
from tierwise.evidence.certify.results import CandidateResult
from tierwise.evidence.certify.wrong_answers import Difference, WrongAnswer

__all__ = [
    "ByField",
    "CandidateResult",
    "ChainResult",
    "CostEstimate",
    "Difference",
    "Evaluation",
    "FieldResult",
    "GoldenStep",
    "Level",
    "Measurement",
    "ScoredExample",
    "Thresholds",
    "WrongAnswer",
    "alpha_of_look",
    "chains_of",
    "check_by_field",
    "check_measurable",
    "compare",
    "compare_by_field",
    "estimate_cost",
    "field_floors",
    "golden_faults",
    "keep_earlier",
    "larger_certificates",
    "load_golden_step",
    "look_at",
    "measured_step",
    "row_faults",
    "with_arrived",
    "with_reference",
]
