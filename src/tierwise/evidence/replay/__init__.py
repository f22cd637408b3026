"""Replay: what the router would have made of outcomes that are recorded already, without a single call."""

from __future__ import annotations

from tierwise.evidence.replay.curve import RANDOM, Measures, Point, measure, sweep, true_quality
from tierwise.evidence.replay.estimate import Estimate, fit
from tierwise.evidence.replay.outcomes import COLUMNS, Outcomes, read_outcomes
from tierwise.evidence.replay.report import Policy, Replay, replay, write_curve

__all__ = [
    "COLUMNS",
    "RANDOM",
    "Estimate",
    "Measures",
    "Outcomes",
    "Point",
    "Policy",
    "Replay",
    "fit",
    "measure",
    "read_outcomes",
    "replay",
    "sweep",
    "true_quality",
    "write_curve",
]
