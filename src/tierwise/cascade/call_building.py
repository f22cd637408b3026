"""A call before it is made: its guards, its tokens, its request, and its attempt without an answer."""

from __future__ import annotations

import time
from dataclasses import replace

from tierwise.cascade.job import Work
from tierwise.errors import FunctionFailed, GuardViolation, describe_exception
from tierwise.policy.catalog import Model
from tierwise.policy.own_model import goes_outside, may_run, unplaced_refusal
from tierwise.records import Attempt, AttemptKind, Call, Message, canonical_hash
from tierwise.steps.own_work import (
    FunctionCall,
    FunctionWork,
    HttpCall,
    HttpWork,
    OwnCall,
    function_input,
)
from tierwise.steps.step import schema_instruction
from tierwise.text.tokens import estimate_prompt_tokens


def check_guards(work: Work, model: Model) -> None:
    """Raise GuardViolation if a guard keeps the document from the model."""
    if may_run(model):
        return
    policy = work.run.policy
    forbidden = policy.rules.forbidden(model.tier, work.features)
    forbidden = forbidden or unplaced_refusal(policy, model, work.features)
    if forbidden:
        raise GuardViolation(f"{model.name}: {forbidden}")


def batch_refusal(work: Work, model: Model) -> str | None:
    """Return the guard that keeps the document from a batch of the model; None for none."""
    rules = work.run.policy.rules
    stores_days = model.batch.stores_days if model.batch else None
    forbidden = rules.forbidden(model.tier, work.features)
    return forbidden or rules.batch_forbidden(work.features, stores_days)


def prompt_tokens(work: Work, messages: tuple[Message, ...]) -> int:
    """Estimate a prompt's tokens; the plain question was counted with the features."""
    if messages == work.question:
        return work.features.prompt_tokens
    return estimate_prompt_tokens(messages)


def own_call(work: Work, messages: tuple[Message, ...]) -> OwnCall | None:
    """Return what a step without a model does for the document; None for a step with models."""
    own = work.step.own
    if isinstance(own, HttpWork):
        tiers = work.run.policy.catalog.tiers
        _, _, body = messages[0].content.partition("\n")
        return HttpCall(work=own, body=body, is_direct=not goes_outside(own, tiers))
    if isinstance(own, FunctionWork):
        return FunctionCall(
            work=own, document=work.document, parameters=work.parameters
        )
    return None


def own_messages(work: Work, model: str) -> tuple[Message, ...]:
    """Return what stands for the prompt in a step without a model: all that its result rests on.

    For a function, that is the hash of what it can read; for a service, the body of the request.
    May block. Raises FunctionFailed for a body that cannot be made.
    """
    own = work.step.own
    run_id = None if own is None or own.reuse else work.run.id
    if not isinstance(own, HttpWork):
        content = function_input(work.document, work.parameters, run_id)
        return (Message("user", content),)
    try:
        body = own.body_text(work.document, work.parameters)
    except Exception as error:  # noqa: BLE001 - project code raises anything
        message = f"its body raised {describe_exception(error)}"
        raise FunctionFailed(message, model=model, sent=False) from None
    return (Message("user", f"{run_id or ''}\n{body}"),)


def build_call(work: Work, model: Model, messages: tuple[Message, ...]) -> Call:
    """Return the call that asks a model for a step's output."""
    schema = work.job.schema
    if model.structured_output == "instruct":
        first, *rest = messages
        instruction = schema_instruction(schema)
        messages = (replace(first, content=f"{first.content}\n\n{instruction}"), *rest)
    if model.structured_output == "schema":
        schema = work.job.schema_without_limits
    return Call(
        model=model.name,
        identity=work.job.current.calls[model.name],
        messages=messages,
        max_tokens=model.longest_output(work.prompt.head.max_output_tokens),
        response_schema=schema,
        schema_name=work.step.name,
        confidence=model.confidence,
        sensitivity=work.features.sensitivity,
        own=own_call(work, messages),
    )


def unanswered_attempt(
    work: Work, model: Model, call: Call, kind: AttemptKind, attempt_id: str
) -> Attempt:
    """Return the attempt before there is an answer: everything unknown, nothing zero."""
    messages = [[message.role, message.content] for message in call.messages]
    return Attempt(
        id=attempt_id,
        step=work.step.name,
        document_id=work.document.id,
        document_hash=work.document.hash,
        model=model.name,
        tier=model.tier,
        kind=kind,
        call_hash=call.hash,
        prompt=work.prompt.label,
        prompt_hash=canonical_hash(messages),
        template_hash=work.prompt.hash,
        policy_hash=work.run.policy.hash,
        usage=None,
        cost=None,
        price_date=model.price_date,
        latency_s=0.0,
        started_at=time.time(),
    )
