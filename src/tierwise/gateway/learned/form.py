"""What a step wants to hear from a classifier, read off the JSON schema of its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tierwise.errors import Misuse
from tierwise.gateway.learned.classifier import LONGEST


@dataclass(frozen=True, slots=True)
class Form:
    """The field for the label, the labels that it may have, and the most characters of `evidence` (0: none wanted)."""

    field: str
    labels: tuple[str, ...]
    evidence: int


def form_of(schema: Mapping[str, Any]) -> Form:
    """The form of an output: one field with fixed values, perhaps `evidence`, nothing else.

    Raises Misuse when a classifier can't fill it in.
    """
    properties: dict[str, Mapping[str, Any]] = dict(schema.get("properties", {}))
    evidence = properties.pop("evidence", None)
    if evidence is not None and evidence.get("type") != "string":
        raise Misuse("a learned model gives `evidence` as text, and this step wants something else")
    choices = [
        name
        for name, kind in properties.items()
        if all(isinstance(v, str) for v in kind.get("enum", [None]))
    ]
    if not choices:
        raise Misuse(
            "a learned model chooses one of some fixed texts, and no field of this step's output has such"
        )
    if others := sorted(properties.keys() - choices[:1]):
        names = ", ".join(f"`{name}`" for name in others)
        raise Misuse(
            f"a learned model gives one label and `evidence`; this step also wants {names}"
        )
    longest = LONGEST if evidence is None else min(LONGEST, evidence.get("maxLength", LONGEST))
    return Form(
        choices[0], tuple(properties[choices[0]]["enum"]), 0 if evidence is None else longest
    )
