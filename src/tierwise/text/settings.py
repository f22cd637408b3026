"""The base of every model that is read from a project file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Strict and frozen settings from a project file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
