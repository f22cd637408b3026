"""The options of a run that are on record with its parameters, so that a later start has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, get_args

from tierwise.engine import RunOptions
from tierwise.policy.transport import TransportSetting
from tierwise.text.durations import duration

WITHIN = "within"
TRANSPORT = "transport"
DETACH = "detach"
NAMES = (WITHIN, TRANSPORT, DETACH)


def recorded_parameters(
    parameters: Mapping[str, Any], options: RunOptions
) -> dict[str, Any]:
    """Return a run's parameters as JSON, with the command's options that are no parameters."""
    on_record = {name: _as_json(value) for name, value in parameters.items()}
    if options.within is not None:
        on_record.setdefault(WITHIN, _as_json(options.within))
    if options.transport is not None:
        on_record.setdefault(TRANSPORT, options.transport)
    if options.detach:
        on_record.setdefault(DETACH, True)
    return on_record


def split_options(
    parameters: Mapping[str, Any], of_flow: Mapping[str, Any]
) -> tuple[dict[str, Any], RunOptions]:
    """Return the parameters on record that a flow takes, and the others as a command's options."""
    own = dict(parameters)
    options = RunOptions()
    for name in NAMES:
        if name in of_flow or name not in own:
            continue
        value = own.pop(name)
        if name == WITHIN:
            options = replace(options, within=span_of(value))
        elif name == TRANSPORT and value in get_args(TransportSetting):
            options = replace(options, transport=value)
        elif name == DETACH:
            options = replace(options, detach=bool(value))
    return own, options


def span_of(value: Any) -> timedelta | None:
    """Return the time of a text such as `6h`; None for anything else."""
    seconds = duration(str(value))
    return None if seconds is None else timedelta(seconds=seconds)


def _as_json(value: Any) -> Any:
    """Return a parameter as JSON's own types; a path and the like as text."""
    if value is None or isinstance(value, bool | int | float | str | list | dict):
        return value
    if isinstance(value, timedelta):
        # ISO 8601, as a flow's own parameter takes it too.
        seconds = f"{value.total_seconds():f}".rstrip("0").rstrip(".")
        return f"PT{seconds}S"
    return str(value)
