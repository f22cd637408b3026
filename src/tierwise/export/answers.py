"""The accepted answers of a step in the ledger, with people's judgements of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tierwise.records import (
    FieldSource,
    Outcome,
    Sensitivity,
    canonical_hash,
    highest,
)

if TYPE_CHECKING:
    from tierwise.ledger import Decision, Ledger, OutcomeRow
    from tierwise.project import Project

Judgement = Literal["approved", "edited", "labelled right"]
_MAX_RUNS = 10_000  # the newest ones
_QUERY_SIZE = 500  # hashes in one query


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFilter:
    """The answers to export: of which models and tiers, and of which documents at most."""

    reviewed: bool = False  # only what a person approved, edited or labelled right
    models: tuple[str, ...] = ()  # only answers of these; empty: of all
    tiers: tuple[str, ...] = ()
    sensitivity_max: Sensitivity = "internal"
    # the training happens in the house: guards keep no document from it
    in_house: bool = False
    # folders with the texts that the ledger does not keep
    sources: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedAnswer:
    """An accepted answer of one run, with the document's outcomes before the step.

    `asked` lists all models that answered.
    """

    run_id: str
    document_id: str
    document_hash: str
    recorded_at: float
    question: str | None
    value: Any = field(repr=False)
    model: str | None
    asked: frozenset[str]
    earlier: Mapping[str, Outcome] = field(repr=False)
    tags: Mapping[str, str] = field(repr=False)
    language: str | None
    judgement: Judgement | None = None
    # in a step by field: the source of each field
    sources: Mapping[str, FieldSource] = field(default_factory=dict)

    @property
    def models(self) -> frozenset[str]:
        """The models that the answer is from; an edited one is from every model that was asked."""
        if self.judgement == "edited":
            return self.asked
        if self.sources:
            given = self.sources.values()
            return frozenset(each.model for each in given if not each.is_reviewer)
        if self.model is None:
            return self.asked
        return frozenset((self.model,))


@dataclass
class StepAnswers:
    """The records of all runs about one step."""

    answers: dict[str, list[AcceptedAnswer]] = field(  # by document hash
        default_factory=lambda: defaultdict(list)
    )
    # the strictest of a text
    sensitivities: dict[str, Sensitivity] = field(default_factory=dict)
    # by model
    tiers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    # folders that runs read, in order
    sources: dict[Path, None] = field(default_factory=dict)


def read_answers(ledger: Ledger, project: Project, step: str) -> StepAnswers:
    """Read the accepted answers of a step, without measurements, and each text's sensitivity."""
    records = StepAnswers()
    for model in project.catalog.models.values():
        records.tiers[model.name].add(model.tier)
    # tiers of attempts, too: a model may have left the catalog since, or moved to another tier
    for run in ledger.runs.newest(_MAX_RUNS):
        asked: dict[str, set[str]] = defaultdict(set)
        for attempt in ledger.runs.attempts(run.id, step=step):
            # a judge answers another question, and a shadow's answer was never used
            if attempt.error is None and attempt.kind not in ("judge", "shadow"):
                asked[attempt.document_id].add(attempt.model)
                records.tiers[attempt.model].add(attempt.tier)
        has_answers = False
        by_document = groupby(
            ledger.runs.outcomes(run.id), key=lambda row: row.document_id
        )
        for document_id, rows in by_document:
            models = frozenset(asked[document_id])
            answered = _add_document(records, run.id, step, list(rows), models)
            has_answers = has_answers or answered
        source = run.parameters.get("source")
        if has_answers and isinstance(source, str) and source.strip():
            records.sources[project.root / source] = None
            # where its files may be by now
            for folder in ledger.folders.done_folders(run.id):
                records.sources[project.root / folder] = None
    return records


def _add_document(
    records: StepAnswers,
    run_id: str,
    step: str,
    rows: Sequence[OutcomeRow],
    asked: frozenset[str],
) -> bool:
    """Add one document of one run, its outcomes in order; return True if the step has an answer."""
    earlier: dict[str, Outcome] = {}
    features: dict[str, Any] = {}
    answered = False
    for row in rows:
        outcome = row.outcome
        known = records.sensitivities.get(row.document_hash, "public")
        records.sensitivities[row.document_hash] = highest(outcome.sensitivity, known)
        # a measurement calls a model by name, and records the rule "none"
        measurement = False
        if outcome.route is not None:
            features |= outcome.route.features
            measurement = outcome.route.rule == "none"
        finished = outcome.status in ("accepted", "rejected")
        if outcome.step == step and finished and not measurement:
            answer = AcceptedAnswer(
                run_id=run_id,
                document_id=row.document_id,
                document_hash=row.document_hash,
                recorded_at=row.recorded_at,
                question=row.question,
                value=outcome.value,
                model=outcome.model,
                sources=outcome.sources,
                asked=asked,
                earlier=dict(earlier),  # a copy: later steps are added to it
                tags=dict(features.get("tags") or {}),
                language=features.get("language"),
            )
            records.answers[row.document_hash].append(answer)
            answered = True
        earlier[outcome.step] = outcome
    return answered


class Judgements:
    """People's judgements of the answers to one question: reviews, and labels of samples."""

    def __init__(
        self, ledger: Ledger, step: str, question: str, document_hashes: Iterable[str]
    ) -> None:
        self._decisions: dict[str, Decision] = {}
        for hashes in query_parts(document_hashes):
            self._decisions |= ledger.reviews.answers(question, hashes)
        # (document hash, hash of the answer) -> the label: right, wrong or not sure
        self._labels: dict[tuple[str, str], bool | None] = {}
        for sample in ledger.samples.labelled(step):
            # None: the ledger no longer keeps the labelled answer
            if not sample.shadow and sample.value is not None:
                key = (sample.document_hash, canonical_hash(sample.value))
                self._labels[key] = sample.right

    def rank(self, answers: Sequence[AcceptedAnswer]) -> Sequence[AcceptedAnswer] | str:
        """Return the answers for one document, the best first, or the reason why there is none.

        A person's decision comes before a model's answer.
        """
        newest = sorted(answers, key=lambda answer: -answer.recorded_at)
        decision = self._decisions.get(newest[0].document_hash)
        if decision is None:
            return [self._with_label(answer) for answer in newest]
        if decision.decision == "rejected":
            return "a person rejected the answer"
        return [_with_decision(newest, decision)]

    def is_wrong(self, answer: AcceptedAnswer) -> bool:
        """Return True if a person labelled this answer as wrong."""
        return answer.judgement is None and self._label(answer) is False

    def _with_label(self, answer: AcceptedAnswer) -> AcceptedAnswer:
        if self._label(answer):
            return replace(answer, judgement="labelled right")
        return answer

    def _label(self, answer: AcceptedAnswer) -> bool | None:
        # by the answer as well: a label of one answer says nothing of another
        key = (answer.document_hash, canonical_hash(answer.value))
        return self._labels.get(key)


def _with_decision(
    newest: Sequence[AcceptedAnswer], decision: Decision
) -> AcceptedAnswer:
    """Return the answer that a reviewer approved or edited, in the place of the model's."""
    base = newest[0]
    for answer in newest:
        if answer.run_id == decision.run_id:
            base = answer
            break
    asked = base.asked
    judgement: Judgement = "approved"
    if decision.decision == "edited":
        # the reviewer may have seen the answers of all runs
        asked = frozenset().union(*(answer.asked for answer in newest))
        judgement = "edited"
    return replace(
        base,
        value=decision.value,
        model=decision.model,
        sources=decision.sources,
        asked=asked,
        judgement=judgement,
    )


def choose_answers(
    records: StepAnswers, judgements: Judgements, wanted: ExportFilter, question: str
) -> tuple[list[AcceptedAnswer], Counter[str]]:
    """Return the best answer for each document, and the count of those without one, by reason."""
    chosen: list[AcceptedAnswer] = []
    left_out: Counter[str] = Counter()
    for answers in records.answers.values():
        ranked = judgements.rank(answers)
        if isinstance(ranked, str):
            left_out[ranked] += 1
            continue
        reasons = [
            _exclusion_reason(answer, records, judgements, wanted, question)
            for answer in ranked
        ]
        if None in reasons:
            best = reasons.index(None)
            chosen.append(ranked[best])
        else:
            # a document is counted once, by what is wrong with its best answer
            left_out[str(reasons[0])] += 1
    return chosen, left_out


def _exclusion_reason(
    answer: AcceptedAnswer,
    records: StepAnswers,
    judgements: Judgements,
    wanted: ExportFilter,
    question: str,
) -> str | None:
    """Return the reason why an answer is not exported, or None."""
    if answer.question != question:
        return (
            "another question: other parameters, or another output, than golden/STEP.yaml "
            "and the step have now"
        )
    if answer.value is None:
        return "the answer is no longer kept"
    if judgements.is_wrong(answer):
        return "a person labelled the answer as wrong"
    if wanted.reviewed and answer.judgement is None:
        return "no person looked at the answer"
    if not answer.models:
        return "no longer an answer of any model: a person took it back"
    if wanted.models and not answer.models <= set(wanted.models):
        return "of other models than named"
    tiers: set[str] = set()
    for model in answer.models:
        tiers |= records.tiers[model]
    if wanted.tiers and not tiers <= set(wanted.tiers):
        return "of other tiers than named"
    return None


def query_parts(hashes: Iterable[str]) -> Iterator[list[str]]:
    """Yield hashes in lists that fit into a query."""
    whole = list(hashes)
    for start in range(0, len(whole), _QUERY_SIZE):
        yield whole[start : start + _QUERY_SIZE]
