"""Environment variables in settings: `${NAME}`, or `${NAME|OTHER}` for the first that is set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*(?:\|[A-Z][A-Z0-9_]*)*)\}")


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text in a value of the catalog, however deeply nested."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)


def missing_variables(value: Any, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables in a value of the catalog that are not set, each once."""
    missing: dict[str, None] = {}
    for text in texts_in(value):
        for names in VARIABLE.findall(text):
            if variable_value(names, env) is None:
                missing[names] = None
    return tuple(missing)


def variable_value(names: str, env: Mapping[str, str]) -> str | None:
    """Return the value of the first variable of `A|B` that is set and not empty."""
    for name in names.split("|"):
        value = env.get(name)
        if value:
            return value
    return None


def fill_variables(value: Any, env: Mapping[str, str]) -> Any:
    """Return a value of the catalog with `${NAME}` replaced in all its texts."""
    if isinstance(value, str):
        return VARIABLE.sub(lambda match: variable_value(match[1], env) or "", value)
    if isinstance(value, Mapping):
        return {name: fill_variables(item, env) for name, item in value.items()}
    if isinstance(value, list):
        return [fill_variables(item, env) for item in value]
    return value
