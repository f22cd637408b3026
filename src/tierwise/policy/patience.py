"""How long documents wait for a model that is out, as settings say it: `30 min`, `90 s`, `0`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator

from tierwise.text.durations import duration

# From a model's last answer until its documents go elsewhere or are deferred.
DEFAULT_PATIENCE_S = 1800.0


def patience_seconds(value: Any) -> float:
    """Return the seconds of a setting such as `30 min`. Raises ValueError."""
    text = str(value).strip()
    if text in ("0", "0.0"):
        return 0.0
    seconds = duration(text)
    if seconds is None:
        raise ValueError("write a time with its unit, such as `30 min` or `90 s`, or 0")
    return seconds


Patience = Annotated[
    float, BeforeValidator(patience_seconds, json_schema_input_type=str | int)
]
