"""Steps without a model: a function of the project, or a service behind an address, does the work.

Such a step is routed, claimed, paid, checked and recorded like any other. Its call hash covers the
code of the function and everything that the function is given.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tierwise.errors import Misuse
from tierwise.records import Document, Outcome, OwnKind, canonical_hash
from tierwise.steps.code import code_hash

HttpMethod = Literal["POST", "PUT", "PATCH"]


@dataclass(frozen=True, kw_only=True)
class FunctionWork:
    """A function of the project, `(document, **parameters) -> output`, sync or async.

    - An exception of a class in `retry_on`, and TryAgain, pass by themselves: the call is made
      again, `retries` times. Any other one defers the document, and so does no result in time,
      unless `retry_on` names TimeoutError itself.
    - `reuse` is False for a function whose result may differ: it is reused in the same run alone.
    """

    function: Callable[..., Any]
    price_usd: Decimal = Decimal(0)
    retries: int = 2
    retry_on: tuple[type[Exception], ...] = ()
    timeout_s: float = 120.0
    concurrency: int = 8
    requests_per_minute: int | None = None
    reuse: bool = True

    @property
    def kind(self) -> OwnKind:
        """What does the work."""
        return "function"

    @cached_property
    def code(self) -> str:
        """The hash of the function's code, and of the project's code that it refers to."""
        return code_hash(self.function)

    @property
    def is_async(self) -> bool:
        """Return True for a function whose result is awaited."""
        return inspect.iscoroutinefunction(self.function)

    def check_parameters(self, step: str, parameters: Mapping[str, Any]) -> None:
        """Raise Misuse for parameters that the function does not take, and for missing ones."""
        _check_parameters(self.function, step, parameters)


def _check_parameters(
    function: Callable[..., Any], step: str, parameters: Mapping[str, Any]
) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # of a function that is not written in Python
    try:
        signature.bind(None, **parameters)
    except TypeError as error:
        raise Misuse(
            f"{step}: the function cannot be called with these parameters: {error}"
        ) from None


@dataclass(frozen=True, kw_only=True)
class FunctionCall:
    """One call of a function, with what it is given."""

    work: FunctionWork
    document: Document
    parameters: Mapping[str, Any]


def text_of(document: Document) -> dict[str, Any]:
    """Return the body of a request where the step names no function for it: the text."""
    return {"text": document.text}


@dataclass(frozen=True, kw_only=True)
class HttpWork:
    """A service behind an address: one request for each document, its answer a JSON object.

    - `url` may contain `${NAME}`, a variable of the environment.
    - `headers` name a variable of the environment for each header.
    - `body` is `(document, **parameters) -> what JSON can hold`.
    - `tier` is that of the catalog whose guards apply. Without it, an address in the house has the
      in-house tier, and any other one `hosted`.
    """

    url: str
    method: HttpMethod = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Callable[..., Any] = text_of
    tier: str | None = None
    price_usd: Decimal = Decimal(0)
    retries: int = 2
    timeout_s: float = 60.0
    concurrency: int = 8
    requests_per_minute: int | None = None
    max_bytes: int = 1_000_000
    reuse: bool = True

    @property
    def kind(self) -> OwnKind:
        """What does the work."""
        return "http"

    @cached_property
    def code(self) -> str:
        """The hash of the method, and of the code that makes the body."""
        return canonical_hash([self.method, code_hash(self.body)])

    def check_parameters(self, step: str, parameters: Mapping[str, Any]) -> None:
        """Raise Misuse for parameters that the body's function does not take, and missing ones."""
        _check_parameters(self.body, step, parameters)

    def body_text(self, document: Document, parameters: Mapping[str, Any]) -> str:
        """Return the request's body as JSON. Raises whatever the project's function raises."""
        body = self.body(document, **parameters)
        return json.dumps(body, ensure_ascii=True, sort_keys=True, allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class HttpCall:
    """One request to a service. `is_direct`: no proxy may see it."""

    work: HttpWork
    body: str = field(repr=False)
    is_direct: bool


OwnWork = FunctionWork | HttpWork
OwnCall = FunctionCall | HttpCall


def function_input(
    document: Document, parameters: Mapping[str, Any], run_id: str | None
) -> str:
    """Return the hash of everything that a function can read.

    With `run_id`, a result is reused in this run alone.
    """
    outcomes = {
        step: _outcome_input(outcome) for step, outcome in document.outcomes.items()
    }
    file = document.page_file
    # a file that a parameter names is read by the function: its content counts
    files = {
        name: code_hash(value)
        for name, value in parameters.items()
        if isinstance(value, Path)
    }
    parts = {
        "id": document.id,
        "source": document.source,
        "text": document.hash,
        "language": document.language,
        "metadata": dict(document.metadata),
        "sensitivity": document.sensitivity,
        "outcomes": outcomes,
        "pages": None if file is None else file.sha256,
        # with their outputs: a member may have another one by now
        "members": [asdict(member) for member in document.members],
        "parameters": dict(parameters),
        "files": files,
        "run": run_id,
    }
    return canonical_hash(parts)


def _outcome_input(outcome: Outcome) -> list[Any]:
    """Return what a function can read of an outcome, but for ids and sentences.

    These differ from run to run, so that no result would be found on record.
    """
    sources = {
        name: [source.model, source.confidence, source.is_reviewer]
        for name, source in outcome.sources.items()
    }
    places = [place.as_row() for place in outcome.places]
    return [
        outcome.status,
        outcome.value,
        outcome.cause,
        outcome.model,
        sources,
        outcome.open_fields,
        places,
    ]
