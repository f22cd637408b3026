"""Golden documents on their way through a flow's earlier steps, up to the step that is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from tierwise.engine import Unknown
from tierwise.errors import Misuse, TierwiseError
from tierwise.plan.dry_run_engine import DryRunEngine
from tierwise.plan.planner import Planner
from tierwise.project import Project
from tierwise.records import Batch, Document
from tierwise.steps.examples import Example
from tierwise.steps.step import Step

if TYPE_CHECKING:
    from tierwise.cascade import RunContext
    from tierwise.engine import Engine
    from tierwise.ledger import RunFolders, RunState

    _Base = Engine
else:
    _Base = object


T = TypeVar("T")


class StepReached(TierwiseError):
    """The flow came to the step that is measured, and ends there."""


@dataclass(frozen=True)
class Arrival:
    """The golden documents as a flow brings them to a step, with the step as the flow calls it.

    `left_out` has the ids of the documents that do not arrive, each with the reason.
    """

    step: Step
    parameters: Mapping[str, Any]
    examples: tuple[Example, ...]
    left_out: Mapping[str, str]


class _UpToStep(_Base):
    """Takes golden documents in place of the flow's own, and stops the flow before a step."""

    examples: tuple[Example, ...] = ()
    step = ""
    arrival: Arrival | None = None
    # settings of the run in the ledger, in place of the flow's
    budget_usd_of_all: Decimal | None = None
    budget_name: str | None = None
    _given = False

    def start_run(self, flow: str, **settings: Any) -> RunContext:
        """Put the run on record as part of the certification, on its budget."""
        if self.budget_usd_of_all is not None:
            settings["budget_usd"] = self.budget_usd_of_all
            settings["budget_name"] = self.budget_name
        return super().start_run(
            f"certify {self.step}: before it in {flow}", **settings
        )

    def stop_run(self, run: RunContext) -> None:
        """Do nothing: no call is made."""

    def finish_run(
        self, run: RunContext, state: RunState, folders: Sequence[RunFolders] = ()
    ) -> None:
        """Close the run, which is complete once it came to the step."""
        super().finish_run(run, "completed" if self.arrival else state, folders)

    def select(self, batches: Sequence[Batch]) -> list[Batch]:  # noqa: ARG002
        """Return the golden documents, once, in place of those that the flow read."""
        if self._given:
            return []  # the flow reads a second source
        self._given = True
        documents = tuple(
            replace(example.document(), outcomes={}) for example in self.examples
        )
        self.expected_documents = len(documents)
        return [Batch(documents, total=len(documents))]

    def run_batch(
        self,
        run: RunContext,
        step: Step,
        batch: Batch,
        parameters: Mapping[str, Any] | None = None,
        *,
        only: Callable[[Document], bool] | None = None,
        **settings: Any,
    ) -> Batch:
        """Run an earlier step. Raises StepReached at the step that is measured."""
        if step.name != self.step:
            return super().run_batch(
                run, step, batch, parameters, only=only, **settings
            )
        self.arrival = self._arrive(step, batch, parameters or {}, only)
        raise StepReached(step.name)

    def evaluate(
        self,
        function: Callable[[Document], T],  # noqa: ARG002
        document: Document,  # noqa: ARG002
    ) -> T | Unknown:
        """Raise Misuse: golden documents of a step over groups are groups already."""
        raise Misuse(
            f"{self.step} comes after group_by in this flow, and its golden documents are whole "
            "groups, which cannot go through the steps before it; give each row of the golden set "
            "the `outcomes` of earlier steps that the prompt reads"
        )

    def _arrive(
        self,
        step: Step,
        batch: Batch,
        parameters: Mapping[str, Any],
        only: Callable[[Document], bool] | None,
    ) -> Arrival:
        return _arrival(self.examples, step, batch, parameters, only)


class EarlierSteps(_UpToStep, DryRunEngine):
    """Replaces an engine while golden documents go through the earlier steps for real."""


class PlannedEarlierSteps(_UpToStep, Planner):
    """Replaces an engine while the cost of the earlier steps is estimated."""

    def _arrive(
        self,
        step: Step,
        batch: Batch,  # noqa: ARG002
        parameters: Mapping[str, Any],
        only: Callable[[Document], bool] | None,  # noqa: ARG002
    ) -> Arrival:
        """Return no documents: their outcomes are only assumed."""
        return Arrival(step, parameters, (), {})

    def cost(self) -> tuple[Decimal, Decimal, float]:
        """Return the expected and the highest cost in USD, and the calls of unknown price."""
        ids = [example.id for example in self.examples]
        return self.totals.cost_of_documents(ids)


def earlier_steps(
    engine: type[EarlierSteps] | type[PlannedEarlierSteps],
    project: Project,
    env: Mapping[str, str],
    step: str,
    examples: tuple[Example, ...],
) -> EarlierSteps | PlannedEarlierSteps:
    """Return an engine that takes examples through a flow up to a step."""
    made = engine(project, env)
    made.step = step
    made.examples = examples
    return made


def _arrival(
    examples: tuple[Example, ...],
    step: Step,
    batch: Batch,
    parameters: Mapping[str, Any],
    only: Callable[[Document], bool] | None,
) -> Arrival:
    documents = {document.id: document for document in batch.load()}
    arrived = []
    left_out = {}
    for example in examples:
        document = documents.get(example.id)
        reason = _reason_left_out(step, document, only)
        if document is None or reason:
            left_out[example.id] = reason
        else:
            arrived.append(_as_it_arrives(example, document))
    return Arrival(step, parameters, tuple(arrived), left_out)


def _reason_left_out(
    step: Step, document: Document | None, only: Callable[[Document], bool] | None
) -> str:
    """Return why production would not ask the step about a document; empty if it would."""
    if document is None:
        return "the flow drops it before"
    stopped = document.stopped
    if stopped is not None:
        return f"{stopped.step} {stopped.status} it: {stopped.reason}"
    if only is not None and not only(document):
        return f"the flow's `only=` leaves it out of {step.name}"
    return ""


def _as_it_arrives(example: Example, document: Document) -> Example:
    """Return an example with what the earlier steps made of its document."""
    outcomes = {
        name: outcome.value
        for name, outcome in document.outcomes.items()
        if outcome.status == "accepted"
    }
    return replace(
        example,
        text=document.text,
        sensitivity=document.strictest,
        language=document.language,
        metadata=document.metadata,
        outcomes=outcomes,
    )
