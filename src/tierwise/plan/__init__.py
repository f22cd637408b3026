"""What a run would do and cost, before it: the flow itself is rehearsed without calling anybody."""

from __future__ import annotations

from tierwise.plan.planner import Planner
from tierwise.plan.sample import Sampler, choose
from tierwise.plan.store import save_plan, take_plan
from tierwise.plan.values import CostRow, Plan, Reference, RouteRow, Sample, Waiting

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
