"""Step: one named kind of work for a language model, as its parts: output, prompt, checks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from tierwise.checks import Check
from tierwise.records import Document, Verdict, canonical_hash

Stakes = Literal["low", "normal", "high"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One named kind of work.

    `choices` names output fields that may only take the values of a parameter: `{"label": "labels"}`
    puts the labels into the JSON schema. A step that `splits` runs documents longer than a model's
    window part by part and then once more over the parts' results (map-reduce).
    """

    name: str
    returns: type[BaseModel]
    prompt: str
    checks: tuple[Check, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict)
    splits: str | None = None  # the output field whose texts are joined for the reduce call
    stakes: Stakes = "normal"

    @cached_property
    def base_schema(self) -> dict[str, Any]:
        """JSON schema of the output, strict: every field required, no others."""
        schema: dict[str, Any] = _strict(self.returns.model_json_schema())
        return schema

    def schema(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON schema for a call, with the values that `choices` allow."""
        schema = deepcopy(self.base_schema)
        for name, parameter in self.choices.items():
            if parameter in parameters:
                schema["properties"][name]["enum"] = list(parameters[parameter])
        return schema

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the output's schema and the checks' names: a certificate holds for one of these."""
        return canonical_hash([self.name, self.base_schema, [check.name for check in self.checks]])

    def parse(self, text: str) -> BaseModel | Verdict:
        """The output that an answer holds, or the failed verdict `schema` that says what is wrong."""
        try:
            return self.returns.model_validate_json(json_part(text))
        except ValidationError as error:
            return Verdict("schema", False, _first_error(error))

    def judge(self, output: BaseModel, document: Document, parameters: Mapping[str, Any]) -> tuple[Verdict, ...]:
        """The verdicts of all checks, `schema` first."""
        return (Verdict("schema", True), *(check(output, document, parameters) for check in self.checks))


def json_part(text: str) -> str:
    """The JSON object in an answer: models that are only told to answer in JSON like to wrap it."""
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else text


def schema_instruction(schema: Mapping[str, Any]) -> str:
    """What a model without native structured output is told."""
    return "Answer with one JSON object and nothing else. It fits this JSON schema:\n" + json.dumps(schema)


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]


def _strict(node: Any) -> Any:
    """Close every object of a schema and require all its fields; drop titles and prose of the code."""
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {k: _strict(v) for k, v in node.items() if k not in ("default", "title") or isinstance(v, dict)}
    if node.get("type") == "object" and "properties" in node:
        kept |= {"required": list(node["properties"]), "additionalProperties": False}
        kept.pop("description", None)
    return kept
