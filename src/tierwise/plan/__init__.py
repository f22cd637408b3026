"""A plan of a run: its routes, calls and cost, from a dry run of the flow itself."""

from __future__ import annotations

from tierwise.plan.earlier_steps import (
    Arrival,
    EarlierSteps,
    PlannedEarlierSteps,
    StepReached,
    earlier_steps,
)
from tierwise.plan.plan import CostRow, Plan, Reference, RouteRow, Sample, Waiting
from tierwise.plan.planner import Planner
from tierwise.plan.sampler import Sampler, choose
from tierwise.plan.saved_plans import save_plan, take_plan

__all__ = [
    "Arrival",
    "CostRow",
    "EarlierSteps",
    "Plan",
    "PlannedEarlierSteps",
    "Planner",
    "Reference",
    "RouteRow",
    "Sample",
    "Sampler",
    "StepReached",
    "Waiting",
    "choose",
    "earlier_steps",
    "save_plan",
    "take_plan",
]
