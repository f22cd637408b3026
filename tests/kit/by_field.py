"""A step by field, its document and its answers, for the tests of fields that are kept one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from tests.kit.standin import Request
from tierwise.cascade import RunContext
from tierwise.engine import Engine
from tierwise.records import Batch, Document, Outcome
from tierwise.steps.checks import Check, each_field_is_quoted
from tierwise.steps.step import Step

RECEIPT = Document(
    id="a.txt",
    text="ACME Trading, 12 March 2026. Desk lamp. Total due: 41.50 EUR.",
    sensitivity="internal",
)


class Quoted(BaseModel):
    quote: str | None
    value: str | None


class Receipt(BaseModel):
    company: Quoted
    day: Quoted
    total: Quoted


FIELDS = {
    "fields": {
        "company": "who sold it",
        "day": "the day of the sale",
        "total": "what is to be paid",
    }
}
EXTRACT = Step(
    name="extract",
    returns=Receipt,
    prompt="extract",
    checks=(each_field_is_quoted,),
    by_field=True,
)
RIGHT = {
    "company": {"quote": "ACME Trading", "value": "ACME Trading"},
    "day": {"quote": "12 March 2026", "value": "12 March 2026"},
    "total": {"quote": "Total due: 41.50 EUR", "value": "41.50"},
}
# Values that no quotation shows.
WRONG = {name: {"quote": "made up", "value": "99"} for name in RIGHT}


def answer(*right: str, wrong: tuple[str, ...] = ()) -> str:
    """An answer with these fields, in the order of the model."""
    fields = {
        name: RIGHT[name] if name in right else WRONG[name]
        for name in RIGHT
        if name in (*right, *wrong)
    }
    return json.dumps(fields)


ALL_RIGHT = answer(*RIGHT)


def asked_of(request: Request) -> list[str]:
    """The fields that a request's schema asks for."""
    schema = request.schema or {}
    assert schema["required"] == list(schema["properties"])
    return list(schema["properties"])


def described_in(request: Request) -> list[str]:
    """The fields that a request's prompt describes."""
    system = request.body["messages"][0]["content"]
    return [name for name in RIGHT if f"- {name}: " in system]


def extract(
    engine: Engine,
    *checks: Check,
    run: RunContext | None = None,
    document: Document = RECEIPT,
    parameters: Mapping[str, Any] = FIELDS,
) -> Outcome:
    """The outcome of the step for one document, with these checks in addition."""
    step = replace(EXTRACT, checks=(*EXTRACT.checks, *checks))
    run = run or engine.start_run("test")
    done = engine.run_batch(run, step, Batch((document,)), parameters)
    return done.load()[0].outcomes["extract"]
