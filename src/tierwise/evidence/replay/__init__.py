"""Replay: simulate the router on recorded outcomes, without a single call."""

from __future__ import annotations

from tierwise.evidence.replay.curve import (
    RANDOM,
    CurveMeasures,
    CurvePoint,
    measure,
    sweep,
    true_quality,
)
from tierwise.evidence.replay.estimate import QualityEstimate, fit
from tierwise.evidence.replay.outcomes import COLUMNS, OutcomeTable, read_outcomes
from tierwise.evidence.replay.report import (
    AtStrongest,
    Replay,
    Strategy,
    replay,
    write_curve,
)
from tierwise.evidence.replay.texts import read_texts, with_terms

__all__ = [
    "COLUMNS",
    "RANDOM",
    "AtStrongest",
    "CurveMeasures",
    "CurvePoint",
    "OutcomeTable",
    "QualityEstimate",
    "Replay",
    "Strategy",
    "fit",
    "measure",
    "read_outcomes",
    "read_texts",
    "replay",
    "sweep",
    "true_quality",
    "with_terms",
    "write_curve",
]
