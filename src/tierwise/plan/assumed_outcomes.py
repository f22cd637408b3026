"""Assumed outcomes: results of steps that no model has given yet, and conditions that read them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from tierwise.cascade.parts import merged_outcome
from tierwise.engine import UNKNOWN, Unknown
from tierwise.records import Document, Outcome
from tierwise.steps.step import Step

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AssumedOutcome(Outcome):
    """An outcome as it may become.

    Its value only has the right shape and length. `chance` is that of acceptance.
    """

    chance: float = 1.0


class _NotKnownYet(Exception):
    """Code of a flow read an assumed outcome."""


class _GuardedOutcomes(Mapping[str, Outcome]):
    """Outcomes that refuse access to an assumed one, and note it."""

    def __init__(self, outcomes: Mapping[str, Outcome]) -> None:
        self._outcomes = outcomes
        self.was_refused = False

    def __getitem__(self, step: str) -> Outcome:
        outcome = self._outcomes[step]
        if isinstance(outcome, AssumedOutcome):
            self.was_refused = True
            raise _NotKnownYet(step)
        return outcome

    def __iter__(self) -> Iterator[str]:
        return iter(self._outcomes)

    def __len__(self) -> int:
        return len(self._outcomes)


def applies(only: Callable[[Document], bool], document: Document) -> bool | None:
    """Return whether a step applies to a document; None when an assumed outcome decides it.

    Raises what `only` raises over outcomes that are known.
    """
    result = known_value(only, document)
    return None if result is UNKNOWN else bool(result)


def known_value(function: Callable[[Document], T], document: Document) -> T | Unknown:
    """Return a function of a document; UNKNOWN when it reads an assumed outcome.

    Raises what it raises over outcomes that are known.
    """
    outcomes = _GuardedOutcomes(document.outcomes)
    try:
        result = function(replace(document, outcomes=outcomes))
    except Exception:
        # A flow's own code may fail in any way on an outcome that is not there yet.
        if not outcomes.was_refused:
            raise
        return UNKNOWN
    # It may have caught the refusal itself.
    return UNKNOWN if outcomes.was_refused else result


def chance(document: Document) -> float:
    """Return the probability that a document passes all assumed outcomes."""
    product = 1.0
    for outcome in document.outcomes.values():
        if isinstance(outcome, AssumedOutcome):
            product *= outcome.chance
    return product


def assumed_steps(document: Document) -> frozenset[str]:
    """Return the steps whose outcomes are assumed."""
    return frozenset(
        step
        for step, outcome in document.outcomes.items()
        if isinstance(outcome, AssumedOutcome)
    )


def merged_assumed(step: Step, outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of a document in parts.

    It is assumed where a part's is, and as likely as all parts together.
    """
    merged = merged_outcome(step, outcomes)
    assumed = [outcome for outcome in outcomes if isinstance(outcome, AssumedOutcome)]
    if merged.status != "accepted" or not assumed:
        return merged
    together = math.prod(outcome.chance for outcome in assumed)
    return replace(assumed[0], value=merged.value, chance=together)


def placeholder_value(schema: Mapping[str, Any], tokens: int) -> Any:
    """Return a value of a schema's shape, about `tokens` long.

    Later prompts can be rendered and counted with it.
    """
    definitions = schema.get("$defs") or {}
    strings = max(1, _count_strings(schema, definitions))
    return _value(schema, definitions, max(1, tokens // strings))


def _count_strings(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> int:
    """Return the number of free strings in a value."""
    node = _resolved(node, definitions)
    if node.get("type") == "object":
        properties = node.get("properties") or {}
        return sum(_count_strings(part, definitions) for part in properties.values())
    if node.get("type") == "array":
        return _count_strings(node.get("items") or {}, definitions)
    is_free_string = (
        node.get("type") == "string" and "enum" not in node and "const" not in node
    )
    return int(is_free_string)


def _value(node: Mapping[str, Any], definitions: Mapping[str, Any], words: int) -> Any:
    node = _resolved(node, definitions)
    if "const" in node:
        return node["const"]
    if "enum" in node:
        return node["enum"][0]
    match node.get("type"):
        case "object":
            properties = node.get("properties") or {}
            return {
                name: _value(part, definitions, words)
                for name, part in properties.items()
            }
        case "array":
            item = _value(node.get("items") or {}, definitions, words)
            return [item] * int(node.get("minItems", 1))
        case "integer" | "number":
            return node.get("minimum", 0)
        case "boolean":
            return False
        case "null":
            return None
        case _:
            text = ("word " * words).strip()
            return text[: node.get("maxLength")]


def _resolved(
    node: Mapping[str, Any], definitions: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return a node without references, and of alternatives the first that is not null."""
    while True:
        alternatives = node.get("anyOf") or node.get("oneOf") or node.get("allOf")
        if "$ref" in node:
            name = node["$ref"].rpartition("/")[2]
            node = definitions[name]
        elif alternatives:
            not_null = [each for each in alternatives if each.get("type") != "null"]
            node = not_null[0] if not_null else alternatives[0]
        else:
            return node
