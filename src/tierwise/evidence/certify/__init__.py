"""Certify: measure candidates on a step's golden set, as production would run them, and say what that proves."""

from __future__ import annotations

from tierwise.evidence.certify.compare import Result, Thresholds, compare, refuse, releveled
from tierwise.evidence.certify.estimate import Estimate, estimate
from tierwise.evidence.certify.material import Material, load_material
from tierwise.evidence.certify.measure import Exam, Measurement, Scored

__all__ = [
    "Estimate",
    "Exam",
    "Material",
    "Measurement",
    "Result",
    "Scored",
    "Thresholds",
    "compare",
    "estimate",
    "load_material",
    "refuse",
    "releveled",
]
