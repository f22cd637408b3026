"""Values that the cascade works on: a run, a step over some documents, and one document of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tierwise.cascade.batch_waits import BatchWaits
from tierwise.cascade.empty_budget import TopUp
from tierwise.cascade.permits import FIRST_COME, Rank
from tierwise.cascade.step_costs import StepCosts
from tierwise.cascade.steps_ahead import StepsAhead
from tierwise.errors import BudgetExceeded
from tierwise.policy.budget import RunBudget
from tierwise.policy.certificates import Current
from tierwise.policy.patience import DEFAULT_PATIENCE_S
from tierwise.policy.router import Policy
from tierwise.policy.rules import Features
from tierwise.policy.transport import TransportChoice, TransportSetting
from tierwise.records import (
    Attempt,
    AttemptKind,
    Batch,
    Document,
    Message,
    Order,
    Outcome,
    Route,
)
from tierwise.steps.examples import ExampleSelector
from tierwise.steps.open_fields import FieldValue
from tierwise.steps.prompts import Prompt
from tierwise.steps.step import Step, without_limits

if TYPE_CHECKING:
    from tierwise.cascade.known_outcomes import Retry


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """One run as its calls see it.

    Answers paid before `fresh_since` (epoch seconds) are not reused.
    """

    id: str
    policy: Policy
    budget: RunBudget
    fresh_since: float | None = None
    # epoch seconds; rules may look at the minutes that are left
    deadline: float | None = None
    # how long documents wait for a model that is out; a route may say otherwise
    patience_s: float = DEFAULT_PATIENCE_S
    # whether documents go through all steps before new ones begin
    order: Order = "depth"
    costs: StepCosts = field(default_factory=StepCosts)
    top_up: TopUp | None = None  # asked when the budget is exhausted
    retry: Retry | None = None  # an earlier run that this one repeats
    # how calls go, where a person says it for the whole run; None: as the routes say
    transport: TransportSetting | None = None
    # True: a call that is in a batch is not waited for, and its document is `waiting`
    detached: bool = False
    # True: an earlier start of this run has attempts on record
    is_continued: bool = False
    # ids of the attempts that documents have used since this start of the run
    used_attempts: set[str] = field(default_factory=set)
    steps: StepsAhead = field(default_factory=StepsAhead)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One step over some documents.

    `models` replaces the router's choice when models are measured; `thresholds` are the confidences
    that their answers need, and `keeps` the fields that are kept of them (see `Route`).
    """

    run: RunContext
    step: Step
    prompt: Prompt
    parameters: Mapping[str, Any]
    current: Current  # the hashes that certificates must agree with
    selector: ExampleSelector | None = None  # for models that use few-shot examples
    models: tuple[str, ...] = ()
    thresholds: Mapping[str, float] = field(default_factory=dict)
    keeps: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    kind: AttemptKind = "first"  # of a document's first call
    only: Callable[[Document], bool] | None = None
    # by document id: outcomes that need no call
    known: Mapping[str, Outcome] = field(default_factory=dict)
    # by document id: when a person sent it again (epoch seconds)
    sent_again: Mapping[str, float] = field(default_factory=dict)
    # by document id: tokens of texts that were counted already
    tokens: Mapping[str, int] = field(default_factory=dict)
    rank: Rank = FIRST_COME  # of its calls among those that wait for a model
    waits: BatchWaits = field(default_factory=BatchWaits)  # its calls in batches

    @cached_property
    def question(self) -> str:
        """The hash of the question that documents are asked; see `Step.question`."""
        return self.step.question(self.parameters)

    @cached_property
    def schema(self) -> Mapping[str, Any]:
        """The JSON schema of answers, computed once for all documents."""
        return self.step.schema(self.parameters)

    @cached_property
    def schema_without_limits(self) -> Mapping[str, Any]:
        """The same schema for servers that refuse lengths and ranges."""
        schema: Mapping[str, Any] = without_limits(dict(self.schema))
        return schema


def rank_of(run: RunContext, batch: Batch) -> Rank:
    """Return the rank of a batch's calls: those of later steps first, then the older batch's."""
    if run.order == "breadth":
        return FIRST_COME
    steps_done = min((_steps_done(document) for document in batch.load()), default=0)
    return (-steps_done, batch.first)


def _steps_done(document: Document) -> int:
    """Return the number of steps that a document went through; a group has those of a member."""
    most = max((len(member.values) for member in document.members), default=0)
    return most + len(document.outcomes)


@dataclass(kw_only=True)
class Work:
    """One document on its way through a job, with its attempts so far."""

    job: Job
    document: Document
    parameters: Mapping[str, Any]
    features: Features
    # the rendered prompt, whose tokens `features` has
    question: tuple[Message, ...] = ()
    chosen: Route | None = None  # the route that is run
    min_confidence: float | None = None  # the confidence that an answer needs
    # In a step by field: the fields that are kept so far, and in a re-ask those of the same model
    # that are not asked again.
    kept: Mapping[str, FieldValue] = field(default_factory=dict)
    answered: Mapping[str, FieldValue] = field(default_factory=dict)
    # the fields that the route keeps of the model; None: each that passes its checks
    keeps: Mapping[str, float | None] | None = None
    transport: TransportSetting = "auto"  # as the run or the route sets it
    # model -> transport and reason of its first call, where there was a choice
    transports: dict[str, TransportChoice] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    # the last reservation that the budget refused
    shortfall: BudgetExceeded | None = None

    @property
    def run(self) -> RunContext:
        """The run that this is part of."""
        return self.job.run

    @property
    def fresh_since(self) -> float | None:
        """The time before which paid answers are not reused; None for any time."""
        times = [self.run.fresh_since, self.job.sent_again.get(self.document.id)]
        return max((time for time in times if time is not None), default=None)

    @property
    def step(self) -> Step:
        """The step that is run."""
        return self.job.step

    @property
    def prompt(self) -> Prompt:
        """The step's prompt."""
        return self.job.prompt
