"""Options of the form NAME=VALUE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tierwise.errors import Misuse


def name_and_value(text: str, option: str) -> tuple[str, str]:
    """Split NAME=VALUE. Raises Misuse."""
    name, equals, value = text.partition("=")
    # The value may be empty, and may contain further equals signs.
    if not (equals and name):
        raise Misuse(f"{option} takes NAME=VALUE, not '{text}'")
    return name, value


def outcome_values(texts: Sequence[str]) -> dict[str, Any]:
    """Return `classify.label=billing` as the outcome `{"classify": {"label": "billing"}}`."""
    outcomes: dict[str, Any] = {}
    for text in texts:
        path, value = name_and_value(text, "--outcome")
        step, dot, name = path.partition(".")
        if not (step and dot and name):
            raise Misuse(
                f"--outcome takes STEP.FIELD=VALUE, such as classify.label=billing; not '{text}'"
            )
        # Several options may fill in one step's outcome.
        outcomes.setdefault(step, {})[name] = value
    return outcomes


def parameter_values(texts: Sequence[str]) -> dict[str, Any]:
    """Return `max_words=40` as `{"max_words": 40}`: values are YAML. Raises Misuse, ConfigError."""
    from tierwise.text.yaml import parse_yaml

    parameters: dict[str, Any] = {}
    for text in texts:
        name, value = name_and_value(text, "--parameter")
        # So that 40 is a number, true a truth value and [a, b] a list, as in golden/STEP.yaml.
        data = parse_yaml(f"value: {value}\n", f"--parameter {name}").data
        parameters[name] = data["value"]
    return parameters
