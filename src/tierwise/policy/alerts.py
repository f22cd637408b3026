"""Alerts: `[tool.tierwise.alerts]`, where they go to and what they report.

Addresses are secrets, since a webhook's holds a token. So the settings name variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tierwise.policy.patience import Patience
from tierwise.text.settings import Settings

# The last four are reported by the desk, all others by runs or by the server.
Kind = Literal[
    "failed",
    "waiting",
    "budget",
    "worker",
    "outage",
    "demoted",
    "reviews",
    "certificate",
    "served",
    "batch",
]
DESK_KINDS: frozenset[Kind] = frozenset({"reviews", "certificate", "served", "batch"})
Channel = Literal["webhook", "slack", "email"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CHANNELS: tuple[Channel, ...] = get_args(Channel)
SHORTEST_S = 10.0  # Prefect waits no shorter for a worker
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")
_VARIABLE = re.compile("[A-Z][A-Z0-9_]*")


def _percent(value: Any) -> float:
    """Return a setting such as `20 %` as a number below 100. Raises ValueError."""
    match = _PERCENT.fullmatch(str(value).strip())
    if match is None or float(match[1]) >= 100:
        raise ValueError("write a share below 100, such as `20 %`")
    return float(match[1])


Percent = Annotated[float, BeforeValidator(_percent, json_schema_input_type=str)]


class AlertSettings(Settings):
    """`[tool.tierwise.alerts]`: without `webhook`, `slack` or `email` there are no alerts."""

    webhook: str | None = Field(
        None, description="The variable with the address that gets a JSON object."
    )
    slack: str | None = Field(
        None, description="The variable with the address of a Slack webhook."
    )
    email: str | None = Field(
        None,
        description="The variable with the mail server, such as "
        "`mailtos://user:password@smtp.example.com?to=ops@example.com`.",
    )
    on: tuple[Kind, ...] = Field(KINDS, description="What is reported; default: all.")
    waiting: Percent = Field(
        20.0,
        validate_default=False,
        description="The share of a run's documents that may wait without an alert.",
    )
    budget: Percent = Field(
        80.0,
        validate_default=False,
        description="The share of a budget that may be spent without an alert.",
    )
    outage: Patience = Field(
        600.0, description="How long a model may be out without an alert."
    )
    worker: Patience = Field(
        120.0,
        description="How long the worker may be away without an alert, after the 90 s in "
        "which Prefect notices.",
    )

    @model_validator(mode="before")
    @classmethod
    def _names_alone(cls, values: Any) -> Any:
        """Refuse anything but names of variables: it may be an address with a token.

        As a check of the whole table, since the message for one setting repeats its value.
        """
        if not isinstance(values, Mapping):
            return values
        for channel in CHANNELS:
            name = values.get(channel)
            if name is None:
                continue
            if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
                raise ValueError(
                    f"{channel} takes the name of a variable in capitals, "
                    "such as ALERT_WEBHOOK, never the address"
                )
        return values

    @field_validator("worker")
    @classmethod
    def _not_too_short(cls, seconds: float) -> float:
        if seconds < SHORTEST_S:
            raise ValueError(f"must be at least {SHORTEST_S:.0f} s")
        return seconds

    @property
    def variables(self) -> Mapping[Channel, str]:
        """The names of the variables with addresses, by channel."""
        names: dict[Channel, str] = {}
        for channel in CHANNELS:
            name = getattr(self, channel)
            if name is not None:
                names[channel] = name
        return names

    @property
    def is_on(self) -> bool:
        """True if alerts go somewhere and report something."""
        return bool(self.variables and self.on)
