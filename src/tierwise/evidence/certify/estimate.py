"""What measuring can cost at most, said before anything is spent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tierwise.cascade import Job, RunContext
from tierwise.cascade.answers import conversation
from tierwise.cascade.calls import Work
from tierwise.cascade.parts import parts_of
from tierwise.evidence import judge
from tierwise.evidence.certify.measure import Exam
from tierwise.policy.budget import Budget
from tierwise.policy.catalog import Model
from tierwise.policy.router import worst_case
from tierwise.policy.rules import features
from tierwise.records import Document, Outcome
from tierwise.text.tokens import count_tokens, estimate_prompt_tokens

_REQUEST = 100  # tokens, at most, of what a repair asks for


@dataclass(frozen=True, slots=True)
class Estimate:
    """USD when every answer is as long as it may be and has to be repaired; models of unknown price are left out."""

    usd: Decimal
    unknown: tuple[str, ...]


def estimate(exam: Exam, models: Sequence[str]) -> Estimate:
    """The worst case of measuring these models: each answers each example once, and a judge looks at each answer."""
    run = RunContext(id="estimate", policy=exam.engine.policy, budget=Budget(None))
    job = exam.engine.job(run, exam.step, exam.parameters)
    catalog = exam.engine.policy.catalog
    documents = [
        part for example in exam.golden.examples for part in parts_of(job, example.document())
    ]
    worst = {name: _worst(job, catalog.model(name), documents) for name in models}
    if exam.judge and exam.rubric:
        sitting = judge.judging(exam.engine, run, exam.step, exam.rubric, exam.judge)
        longest = _as_long_as_can_be(exam, job.prompt.head.max_output_tokens)
        briefs = [judge.brief(example, longest) for example in exam.golden.examples]
        once = _worst(sitting, catalog.model(exam.judge), briefs)
        worst[f"{exam.judge} as judge"] = None if once is None else once * len(models)
    known = sum((cost for cost in worst.values() if cost is not None), Decimal(0))
    return Estimate(known, tuple(name for name, cost in worst.items() if cost is None))


def _worst(job: Job, model: Model, documents: Sequence[Document]) -> Decimal | None:
    """USD for all documents, each prompt answered and repaired at full length; None when the price is unknown."""
    limit = job.prompt.head.max_output_tokens
    prompts = [tokens for document in documents for tokens in _prompts(job, model, document)]
    both = [
        worst_case(model, tokens + more, limit)
        for tokens in prompts
        for more in (0, limit + _REQUEST)
    ]
    return None if None in both else sum((cost for cost in both if cost is not None), Decimal(0))


def _prompts(job: Job, model: Model, document: Document) -> Iterator[int]:
    """The prompts (tokens) that a document takes, the examples that the model is shown included."""
    text = count_tokens(document.text)
    f = features(job.step, document, tokens=text, prompt_tokens=0, budget_used=0)
    work = Work(job=job, document=document, parameters=job.parameters, features=f)
    frame = estimate_prompt_tokens(conversation(work, model)) - text
    limit = job.prompt.head.max_output_tokens
    room = max(200, int((model.context_tokens - limit) / model.token_margin) - frame)
    while job.step.splits and text > room:  # in parts, and then once more over the parts' results
        parts = math.ceil(text / room)
        yield from [frame + room] * parts
        if parts * limit >= text:
            return
        text = parts * limit
    yield frame + text


def _as_long_as_can_be(exam: Exam, tokens: int) -> Outcome:
    return Outcome(
        step=exam.step.name,
        status="accepted",
        value={"answer": "word " * tokens},
        sensitivity="public",
    )
