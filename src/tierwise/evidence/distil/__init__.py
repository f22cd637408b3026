"""Distillation: a classifier learns from a teacher's answers, and is certified to agree with it."""

from __future__ import annotations

from tierwise.evidence.distil.distil import (
    AgreementSample,
    Distillation,
    Learned,
    Sizes,
    check_distillable,
    label_to_certify,
    label_to_learn,
    measured_agreement,
)
from tierwise.evidence.distil.labels import (
    TeacherLabels,
    distilled_file,
    may_be_learned_from,
)
from tierwise.evidence.distil.pool import Pool, pool_of

__all__ = [
    "AgreementSample",
    "Distillation",
    "Learned",
    "Pool",
    "Sizes",
    "TeacherLabels",
    "check_distillable",
    "distilled_file",
    "label_to_certify",
    "label_to_learn",
    "may_be_learned_from",
    "measured_agreement",
    "pool_of",
]
