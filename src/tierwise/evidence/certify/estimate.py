"""The worst-case cost and the time of measuring candidates, for a question before it is spent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from tierwise.cascade import Job, RunContext
from tierwise.cascade.call_building import build_call
from tierwise.cascade.few_shot import conversation
from tierwise.cascade.job import Work
from tierwise.cascade.parts import parts_of
from tierwise.evidence import judge
from tierwise.evidence.certify.measure import Evaluation
from tierwise.policy.budget import Budget
from tierwise.policy.catalog import Model
from tierwise.policy.router import worst_case
from tierwise.policy.rules import features
from tierwise.records import Document, Outcome
from tierwise.text.amounts import total
from tierwise.text.tokens import count_tokens, estimate_prompt_tokens

_REPAIR_REQUEST = 100  # tokens, at most, of the request for a repair
_REASK_REQUEST = 200  # tokens, at most, of a re-ask with the words of the failed checks
_LEAST_ROOM = 200  # tokens of text in a prompt, however small the model's context is


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """USD if every answer has the greatest length, needs a repair and all re-asks.

    Models of unknown price are left out of the sum, and named in `unknown`. `seconds` is the time
    of the calls that were not paid before, at the mean latency of earlier calls; models without an
    earlier call are left out, and named in `untimed`.
    """

    usd: Decimal
    unknown: tuple[str, ...]
    seconds: float = 0.0
    untimed: tuple[str, ...] = ()


def estimate_cost(evaluation: Evaluation, models: Sequence[str]) -> CostEstimate:
    """Return the worst case of measuring these models.

    Each answers each example once, and the judge looks at each answer.
    """
    engine = evaluation.engine
    catalog = engine.policy.catalog
    run = RunContext(id="estimate", policy=engine.policy, budget=Budget(None))
    job = engine.job(run, evaluation.step, evaluation.parameters)
    documents: list[Document] = []
    for example in evaluation.golden.examples:
        documents += parts_of(job, example.document())
    seconds = 0.0
    untimed = []
    past = engine.ledger.history.past()
    for name in models:
        unpaid = _unpaid(evaluation, job, catalog.model(name), documents)
        experience = past.get((evaluation.step.name, job.prompt.label, name))
        if not unpaid:
            continue
        if experience is None or experience.latency_s is None:
            untimed.append(name)
        else:
            calls = unpaid * (1 + experience.repairs / experience.calls)
            at_once = min(catalog.model(name).concurrency, unpaid)
            seconds += calls * experience.latency_s / at_once
    costs = {name: _worst_cost(job, catalog.model(name), documents) for name in models}
    if evaluation.judge and evaluation.rubric:
        judging = judge.judge_job(
            engine, run, evaluation.step, evaluation.rubric, evaluation.judge
        )
        longest = _longest_answer(
            evaluation.step.name, job.prompt.head.max_output_tokens
        )
        judged = [
            judge.judge_document(example, longest)
            for example in evaluation.golden.examples
        ]
        once = _worst_cost(judging, catalog.model(evaluation.judge), judged)
        # once for each candidate's answers
        costs[f"{evaluation.judge} as judge"] = total([once] * len(models))
        untimed.append(f"{evaluation.judge} as judge")
    usd = Decimal(0)
    unknown = []
    for name, cost in costs.items():
        if cost is None:
            unknown.append(name)
        else:
            usd += cost
    return CostEstimate(
        usd=usd, unknown=tuple(unknown), seconds=seconds, untimed=tuple(untimed)
    )


def _unpaid(
    evaluation: Evaluation, job: Job, model: Model, documents: Sequence[Document]
) -> int:
    """Return the number of first calls that no earlier run paid for."""
    if evaluation.fresh_since is not None:
        return len(documents)
    paid = evaluation.engine.ledger.history.paid_calls(job.step.name, model.name)
    if not paid:
        return len(documents)
    unpaid = 0
    for document in documents:
        work = _work(job, document)
        call = build_call(work, model, conversation(work, model))
        unpaid += call.hash not in paid
    return unpaid


def _work(job: Job, document: Document) -> Work:
    document_features = features(
        job.step,
        document,
        tokens=count_tokens(document.text),
        prompt_tokens=0,
        budget_used=0,
    )
    return Work(
        job=job,
        document=document,
        parameters=job.parameters,
        features=document_features,
    )


def _worst_cost(
    job: Job, model: Model, documents: Sequence[Document]
) -> Decimal | None:
    """Return USD for all documents; None when the price is unknown.

    Each prompt is answered and then repaired at full length, and the last one of a document is
    asked again as often as the rules allow.
    """
    reask = 0 if model.learned else job.run.policy.rules.escalate.reask
    limit = job.prompt.head.max_output_tokens
    repair = limit + _REPAIR_REQUEST  # tokens that the repair's prompt has more
    costs = []
    for document in documents:
        prompts = list(_prompts(job, model, document))
        for tokens in prompts:
            costs.append(worst_case(model, tokens, limit))
            costs.append(worst_case(model, tokens + repair, limit))
        for number in range(1, reask + 1):
            added = repair + number * (limit + _REASK_REQUEST)
            costs.append(worst_case(model, prompts[-1] + added, limit))
    return total(costs)


def _prompts(job: Job, model: Model, document: Document) -> Iterator[int]:
    """Yield the tokens of each prompt for a document, with the model's few-shot examples."""
    text = count_tokens(document.text)
    work = _work(job, document)
    frame = estimate_prompt_tokens(conversation(work, model)) - text
    limit = job.prompt.head.max_output_tokens
    longest = limit + model.thinking_tokens
    window = int((model.context_tokens - longest) / model.token_margin)
    room = max(_LEAST_ROOM, window - frame)
    # In parts, and then once more over the parts' results. Where these are no shorter than the
    # text, more rounds would not end: the estimate stops.
    while job.step.splits and text > room:
        parts = math.ceil(text / room)
        for _ in range(parts):
            yield frame + room
        results = parts * limit
        if results >= text:
            return
        text = results
    yield frame + text


def _longest_answer(step: str, tokens: int) -> Outcome:
    value = {"answer": "word " * tokens}
    return Outcome(step=step, status="accepted", value=value, sensitivity="public")
