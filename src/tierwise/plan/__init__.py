"""A plan of a run: its routes, calls and cost, from a dry run of the flow itself."""

from __future__ import annotations

from tierwise.plan.plan import CostRow, Plan, Reference, RouteRow, Sample, Waiting
from tierwise.plan.planner import Planner
from tierwise.plan.sampler import Sampler, choose
from tierwise.plan.saved_plans import save_plan, take_plan

__all__ = [
    "CostRow",
    "Plan",
    "Planner",
    "Reference",
    "RouteRow",
    "Sample",
    "Sampler",
    "Waiting",
    "choose",
    "save_plan",
    "take_plan",
]
