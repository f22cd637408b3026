"""Step: one named kind of work for a language model, as its parts: output, prompt, checks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from tierwise.errors import Misuse, UnknownName, describe_exception
from tierwise.records import Verdict, canonical_hash
from tierwise.steps.checks import Check
from tierwise.steps.code import code_hash

_LIMITS = {
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
}
# the output's fields, the expected fields of a golden example -> whether the output is right
Correct = Callable[[Mapping[str, Any], Mapping[str, Any]], bool]
Gather = Callable[
    [Sequence[Any]], BaseModel
]  # the outputs for a document's parts, in order -> the document's
Stakes = Literal["low", "normal", "high"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One named kind of work.

    `choices` names output fields that may only take the values of a parameter: `{"label": "labels"}`
    puts the labels into the JSON schema. A step that `splits` runs documents longer than a model's
    window part by part and then once more over the parts' results (map-reduce). One that `gathers` takes
    the parameter `part_tokens`: a longer document is asked about in parts, each routed, checked and paid
    like a document of its own, and `gathers` makes one output of theirs. Raises UnknownName when `choices`
    or `splits` names a field that the output does not have.
    """

    name: str
    returns: type[BaseModel]
    prompt: str
    checks: tuple[Check, ...] = ()
    choices: Mapping[str, str] = field(default_factory=dict)
    # the output field whose texts are joined for the reduce call
    splits: str | None = None
    gathers: Gather | None = None
    stakes: Stakes = "normal"
    correct: Correct | None = None  # what a right answer is, for golden sets

    def __post_init__(self) -> None:
        for check in self.checks:
            if not isinstance(check, Check):
                name = getattr(check, "__name__", repr(check))
                raise Misuse(
                    f"the step {self.name} lists {name} in `checks`, which is no check; "
                    'write `@check("name")` above the function'
                )
        fields = self.returns.model_fields
        for name in (*self.choices, *([self.splits] if self.splits else [])):
            if name not in fields:
                raise UnknownName(f"field of {self.returns.__name__}", name, fields)

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
    def code(self) -> str:
        """Hash of the code that accepts or refuses answers: checks, output model, gathering."""
        functions = [(check.name, check.function) for check in self.checks]
        return code_hash(functions, self.returns, self.gathers)

    def hash(self, parameters: Mapping[str, Any]) -> str:
        """Return the SHA-256 (hex) of all that decides which answers are accepted.

        That is the schema, the code of the checks, and the parameters. A certificate is valid for
        one such hash.
        """
        return canonical_hash(
            [
                self.name,
                self.schema(parameters),
                [check.name for check in self.checks],
                self.code,
                self.splits,
                dict(parameters),
            ]
        )

    def question(self, parameters: Mapping[str, Any]) -> str:
        """SHA-256 (hex) of what is asked: a person's answer to it holds, whatever the prompt, checks and models."""
        return canonical_hash([self.name, self.schema(parameters), dict(parameters)])

    def parse(self, text: str) -> BaseModel | Verdict:
        """The output that an answer holds, or the failed verdict `schema` that says what is wrong."""
        verdict = Verdict("schema", False, "the answer holds no JSON object")
        for part in json_parts(text):
            try:
                return self.returns.model_validate_json(part)
            except ValidationError as error:
                verdict = Verdict("schema", False, _first_error(error))
            except Exception as error:  # noqa: BLE001 - a validator is the project's code, so it may raise anything
                verdict = Verdict(
                    "schema",
                    False,
                    f"{self.returns.__name__} raised {describe_exception(error)}",
                )
        return verdict

    def gathered(self, values: Sequence[Any]) -> Any:
        """The outputs for a document's parts, as plain data, as one."""
        if self.gathers is None:
            raise TypeError(f"{self.name} gathers nothing")
        return self.gathers(
            [self.returns.model_validate(value) for value in values]
        ).model_dump(mode="json")


def json_parts(text: str) -> Iterator[str]:
    """What may be the JSON object in an answer: its last whole one, then all from its first to its last brace.

    Models that are only told to answer in JSON think aloud before it, and wrap it in prose or a code fence.
    """
    first = text.find("{")
    end = text.rfind("}") + 1
    last = _last_object(text)
    if last is not None:
        yield text[last]
    if first >= 0 and (last is None or last.stop < end):
        yield text[first:end] if end > first else text[first:]


def _last_object(text: str) -> slice | None:
    """Where the last whole JSON object stands."""
    decoder = json.JSONDecoder()
    last = None
    start = text.find("{")
    while start >= 0:
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            last = slice(start, end)
        start = text.find("{", end)
    return last


def without_limits(node: Any) -> Any:
    """A schema without the lengths and ranges that vendors' structured output refuses; answers are validated anyway."""
    if isinstance(node, list):
        return [without_limits(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        k: without_limits(v)
        for k, v in node.items()
        if k not in _LIMITS or isinstance(v, dict)
    }


def schema_instruction(schema: Mapping[str, Any]) -> str:
    """What a model without native structured output is told."""
    return (
        "Answer with one JSON object and nothing else. It fits this JSON schema:\n"
        + json.dumps(schema)
    )


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
    kept = {
        k: _strict(v)
        for k, v in node.items()
        if k not in ("default", "title") or isinstance(v, dict)
    }
    if node.get("type") == "object" and "properties" in node:
        kept |= {"required": list(node["properties"]), "additionalProperties": False}
        kept.pop("description", None)
    return kept
