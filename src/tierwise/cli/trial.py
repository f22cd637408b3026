"""One step on one document, asked of several models: the work behind `tierwise try`.

Calls go through production's cascade, so guards, budgets, checks and repairs apply, and every call
is an attempt on record. The run is named `try STEP`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from tierwise.cascade.call_building import build_call
from tierwise.cascade.few_shot import conversation
from tierwise.cascade.job import Job, Work
from tierwise.cascade.routing import features_of, no_attempt_reason, routed
from tierwise.errors import BudgetExceeded, Misuse
from tierwise.records import Batch
from tierwise.steps.correctness import Rubric
from tierwise.text.amounts import total
from tierwise.text.tokens import count_tokens, estimate_prompt_tokens

if TYPE_CHECKING:
    from tierwise.cli.trial_inputs import DocumentInput, StepInput
    from tierwise.engine import Engine
    from tierwise.policy.catalog import Model
    from tierwise.records import Attempt, Document, Message, Outcome, Verdict
    from tierwise.steps.step import Step

_LONGEST_PATIENCE_S = 30.0  # a person waits for the answers


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTrial:
    """One model's answer to the prompt.

    `refused` says why it was not asked: then there is no outcome.
    """

    model: str
    tier: str
    messages: tuple[Message, ...]  # as they are sent to it
    refused: str = ""
    outcome: Outcome | None = None
    answer: Mapping[str, Any] | None = None  # None where no answer could be parsed
    right: bool | None = None  # None where no right answer is known

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The calls."""
        return self.outcome.attempts if self.outcome else ()

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The checks of the last answer."""
        answered = [attempt for attempt in self.attempts if attempt.error is None]
        return answered[-1].verdicts if answered else ()

    @property
    def cost(self) -> Decimal | None:
        """USD of all calls; None when it is unknown."""
        return total(attempt.cost for attempt in self.attempts)

    @property
    def latency_s(self) -> float:
        """Seconds of all calls; that of a reused answer is of the time when it was paid."""
        return sum(attempt.latency_s for attempt in self.attempts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A step's prompt for one document, and the answers of some models."""

    step: StepInput
    document: Document
    expected: Mapping[str, Any] | None
    prompt: str  # such as "classify v1"
    messages: tuple[Message, ...]
    tokens: int  # of the prompt, as estimated
    run_id: str
    models: tuple[ModelTrial, ...]
    unroutable: str = ""  # why no model may be asked

    @property
    def answered(self) -> bool:
        """True if any model gave an answer that can be read."""
        return any(trial.answer is not None for trial in self.models)


def try_step(
    engine: Engine,
    given: StepInput,
    document_input: DocumentInput,
    models: Sequence[str],
    *,
    budget_usd: Decimal,
    fresh: bool,
    on_model: Callable[[str], None],
) -> Trial:
    """Ask each model (default: those of the document's route), one after the other.

    Raises UnknownName for a model that is not in the catalog, and ConfigError for a prompt that
    cannot be filled in.
    """
    # A model that is named twice is asked once.
    chosen = [engine.policy.catalog.model(name) for name in dict.fromkeys(models)]
    step = given.step
    document = document_input.document
    prompt = engine.prompts[step.prompt]
    messages = prompt.render(document, {"part": None, **given.parameters})
    with engine.recorded_run(
        # None leaves TIERWISE_FRESH in force; False would override it.
        f"try {step.name}",
        budget_usd=budget_usd,
        fresh=True if fresh else None,
    ) as run:
        job = engine.job(run, step, given.parameters)
        work = _work(job, document, messages)
        unroutable = ""
        # Without a choice, the router decides as it would in a run.
        if not chosen:
            route = routed(work, engine.policy, run.budget.left)
            chosen = [engine.policy.catalog.model(name) for name in route.models]
            unroutable = "" if chosen else no_attempt_reason(route)
        trials = []
        # In turn, so that no model's latency suffers from another one's call.
        for model in chosen:
            on_model(model.name)
            trials.append(_try_model(engine, work, model, document_input.expected))
    return Trial(
        step=given,
        document=document,
        expected=document_input.expected,
        prompt=prompt.label,
        messages=messages,
        tokens=work.features.prompt_tokens,
        run_id=run.id,
        models=tuple(trials),
        unroutable=unroutable,
    )


def _work(job: Job, document: Document, messages: tuple[Message, ...]) -> Work:
    # Counted once: the estimate below takes the document's part from here.
    tokens = count_tokens(document.text)
    prompt_tokens = estimate_prompt_tokens(messages, known={document.text: tokens})
    return Work(
        job=job,
        document=document,
        parameters=job.parameters,
        features=features_of(job, document, tokens=tokens, prompt_tokens=prompt_tokens),
        question=messages,
    )


def _try_model(
    engine: Engine, work: Work, model: Model, expected: Mapping[str, Any] | None
) -> ModelTrial:
    # Built before the guards are asked, so that a refused model's prompt can be shown as well.
    sent = build_call(work, model, conversation(work, model)).messages
    trial = ModelTrial(model=model.name, tier=model.tier, messages=sent)
    refused = _refusal(work, model)
    if refused:
        return replace(trial, refused=refused)
    patience_s = min(_LONGEST_PATIENCE_S, work.run.patience_s)
    run = replace(work.run, patience_s=patience_s)
    # A route of this model alone: no fallback and no escalation to another one.
    job = replace(work.job, run=run, models=(model.name,))
    batch = Batch((work.document,), total=1)
    try:
        [done] = engine.run_job(job, batch).load()
    except BudgetExceeded as error:  # the rules say `when_empty: fail`
        return replace(trial, refused=str(error))
    outcome = done.outcomes[work.step.name]
    # Refused inside of the cascade, such as by the budget: there is no answer to judge.
    if not outcome.attempts:
        return replace(trial, refused=outcome.reason)
    answer = _answer(work.step, outcome)
    return replace(
        trial,
        outcome=outcome,
        answer=answer,
        right=_is_right(work.step, outcome, expected),
    )


def _refusal(work: Work, model: Model) -> str:
    """Say why a model must not or cannot be asked; guards are checked again before each call."""
    policy = work.run.policy
    forbidden = policy.rules.forbidden(model.tier, work.features)
    if forbidden:
        return forbidden
    unusable = policy.unusable(model, work.step.name)
    return unusable.reason if unusable else ""


def _answer(step: Step, outcome: Outcome) -> Mapping[str, Any] | None:
    """Return the answer, also one that failed a check; None where none can be read."""
    if outcome.value is not None and not outcome.open_fields:
        # An outcome has its value as Any; this name gives it the type that is returned.
        value: Mapping[str, Any] = outcome.value
        return value
    # A person wants to see the answer that failed its checks most of all.
    text = outcome.attempts[-1].text
    output = step.parse(text) if text else None
    if isinstance(output, BaseModel):
        return output.model_dump(mode="json")
    return None


def _is_right(
    step: Step, outcome: Outcome, expected: Mapping[str, Any] | None
) -> bool | None:
    """Return True for the expected answer; None where only a person or a judge can tell."""
    if expected is None or step.correct is None or isinstance(step.correct, Rubric):
        return None
    if outcome.status != "accepted":
        return False
    return step.correct(outcome.value, expected)


def parse_budget(usd: float) -> Decimal:
    """Return the budget of a trial. Raises Misuse for none at all."""
    # By way of text: Decimal(0.1) would be 0.1000000000000000055…
    budget = Decimal(str(usd))
    if not budget.is_finite():
        raise Misuse(f"--budget-usd is an amount of USD, not {usd}")
    return budget
