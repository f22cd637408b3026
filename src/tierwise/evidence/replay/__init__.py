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
from tierwise.evidence.replay.report import Replay, Strategy, replay, write_curve

__all__ = [
    "COLUMNS",
    "RANDOM",
    "CurveMeasures",
    "CurvePoint",
    "OutcomeTable",
    "QualityEstimate",
    "Replay",
    "Strategy",
    "fit",
    "measure",
    "read_outcomes",
    "replay",
    "sweep",
    "true_quality",
    "write_curve",
]
