"""Canaries: `[tool.tierwise.canaries]`, the golden items that are asked again of another model."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from tierwise.text.settings import Settings


class CanarySettings(Settings):
    """How many golden items are asked again, and for how much."""

    items: Annotated[int, Field(ge=0)] = Field(
        30,
        description="Golden items that are asked again, drawn at random; 0 asks none. It takes 29 "
        "without a lost one to show that the new model is at most 10 points worse.",
    )
    budget_usd: Annotated[Decimal, Field(ge=0)] | None = Field(
        None,
        description="The most that canaries of one certificate may cost. Left out, a run asks "
        "free models of in-house tiers alone.",
    )
