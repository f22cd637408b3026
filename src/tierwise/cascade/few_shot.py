"""The conversation that a model is sent: the prompt, with few-shot examples before the question."""

from __future__ import annotations

import json
import math
from dataclasses import replace

from tierwise.cascade.call_building import prompt_tokens
from tierwise.cascade.job import Work
from tierwise.policy.catalog import Model
from tierwise.records import Document, Message, rank
from tierwise.steps.examples import Example
from tierwise.steps.open_fields import asked_fields


def conversation(work: Work, model: Model) -> tuple[Message, ...]:
    """Return the prompt, with as many examples before the question as the window has room for.

    The nearest examples are dropped last. A learned model knows its step, so it is sent nothing
    but the document's text.
    """
    if model.learned:
        return (Message("user", work.document.text),)
    system, *question = question_of(work)
    turns: list[Message] = []
    for example in _allowed_examples(work, model):
        turns.extend(_as_turn(work, example))
    while turns and exceeds_window(work, model, (system, *turns, *question)):
        turns = turns[2:]
    return (system, *turns, *question)


def question_of(work: Work) -> tuple[Message, ...]:
    """Return the rendered prompt for the document."""
    return work.question or _render(work, work.document)


def exceeds_window(work: Work, model: Model, messages: tuple[Message, ...]) -> bool:
    """Return True if the messages and the longest answer do not fit into the model's window."""
    prompt = math.ceil(prompt_tokens(work, messages) * model.token_margin)
    longest = work.prompt.head.max_output_tokens + model.thinking_tokens
    return prompt + longest > model.context_tokens


def _render(work: Work, document: Document) -> tuple[Message, ...]:
    return work.prompt.render(document, {"part": None, **work.parameters})


def _allowed_examples(work: Work, model: Model) -> list[Example]:
    """Return the examples that this model may be sent for this document.

    None is more sensitive than the document, and none has an answer that this flow does not allow.
    """
    selector = work.job.selector
    if selector is None or not model.uses_few_shot:
        return []
    first_choice = next(iter(work.step.choices), None)
    fixed = selector.fixed(model.fixed_examples, first_choice)
    nearest = selector.nearest(work.document, model.examples, model.example_embedder)
    return [
        example for example in (*fixed, *nearest) if _is_allowed(work, model, example)
    ]


def _is_allowed(work: Work, model: Model, example: Example) -> bool:
    if rank(example.sensitivity) > rank(work.features.sensitivity):
        return False
    # Another flow's labels teach nothing: the answer must be one that the parameters allow.
    for field, parameter in work.step.choices.items():
        values = work.parameters.get(parameter)
        if values is not None and example.expected.get(field) not in values:
            return False
    features = replace(work.features, sensitivity=example.sensitivity)
    return work.run.policy.rules.forbidden(model.tier, features) is None


def _as_turn(work: Work, example: Example) -> tuple[Message, Message]:
    """Return an example as an earlier turn: its question, and the right answer."""
    question = _render(work, example.document())[1]
    answer = {
        name: example.expected[name]
        for name in asked_fields(work.step)
        if name in example.expected
    }
    return (question, Message("assistant", json.dumps(answer, ensure_ascii=False)))
