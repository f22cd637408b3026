"""The accepted answers of a step as the ledger has them, one for each document, with what persons said of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tierwise.records import Outcome, Sensitivity, canonical_hash, highest

if TYPE_CHECKING:
    from tierwise.ledger import Decision, Ledger, OutcomeRow
    from tierwise.project import Project

Person = Literal["approved", "edited", "labelled right"]
_MOST_RUNS = 10_000  # the newest ones
_AT_ONCE = 500  # hashes in one query


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be exported: whose answers, and of which documents at most."""

    reviewed: bool = False  # only what a person approved, edited or labelled right
    models: tuple[str, ...] = ()  # only answers of these; none named: of all
    tiers: tuple[str, ...] = ()
    sensitivity_max: Sensitivity = "internal"
    in_house: bool = (
        False  # the training happens in the house, so no guard keeps a document from it
    )
    sources: tuple[Path, ...] = ()  # where texts are that the ledger does not keep


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An accepted answer of one run, with what the document had before the step. All models in `asked` answered."""

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
    person: Person | None = None

    @property
    def models(self) -> frozenset[str]:
        """Whose answer it is; one that a person edited is that of every model that the person saw."""
        return (
            self.asked
            if self.person == "edited" or self.model is None
            else frozenset((self.model,))
        )


@dataclass
class OnRecord:
    """What all runs say of one step: answers by document hash, the strictest sensitivity of each text, and so on."""

    answers: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    sensitivities: dict[str, Sensitivity] = field(default_factory=dict)
    tiers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # by model
    sources: dict[Path, None] = field(default_factory=dict)  # what the runs read, in order


def read_answers(ledger: Ledger, project: Project, step: str) -> OnRecord:
    """All accepted answers of a step, but those of measurements; and how sensitive each text was at most."""
    found = OnRecord()
    for model in project.catalog.models.values():
        found.tiers[model.name].add(model.tier)
    for run in ledger.runs(_MOST_RUNS):
        asked: dict[str, set[str]] = defaultdict(set)
        for attempt in ledger.attempts(run.id, step=step):
            if attempt.error is None and attempt.kind not in ("judge", "shadow"):
                asked[attempt.document_id].add(attempt.model)
                found.tiers[attempt.model].add(attempt.tier)
        by_document = groupby(ledger.outcomes(run.id), key=lambda row: row.document_id)
        had = [
            _add(found, run.id, step, list(rows), frozenset(asked[name]))
            for name, rows in by_document
        ]
        source = run.parameters.get("source")
        if isinstance(source, str) and source.strip() and any(had):
            found.sources[project.root / source] = None
    return found


def _add(
    found: OnRecord, run_id: str, step: str, rows: Sequence[OutcomeRow], asked: frozenset[str]
) -> bool:
    """One document of one run, whose outcomes come as they were recorded; whether it has such an answer."""
    earlier: dict[str, Outcome] = {}
    features: dict[str, Any] = {}
    had = False
    for row in rows:
        outcome = row.outcome
        found.sensitivities[row.document_hash] = highest(
            outcome.sensitivity, found.sensitivities.get(row.document_hash, "public")
        )
        features |= outcome.route.features if outcome.route else {}
        measured = outcome.route is not None and outcome.route.rule == "none"
        if outcome.step == step and outcome.status in ("accepted", "rejected") and not measured:
            answer = Answer(
                run_id=run_id,
                document_id=row.document_id,
                document_hash=row.document_hash,
                recorded_at=row.recorded_at,
                question=row.question,
                value=outcome.value,
                model=outcome.model,
                asked=asked,
                earlier=dict(earlier),
                tags=dict(features.get("tags") or {}),
                language=features.get("language"),
            )
            found.answers[row.document_hash].append(answer)
            had = True
        earlier[outcome.step] = outcome
    return had


class Judgements:
    """What persons said of the answers to one question: decisions of reviews, and labels of audits."""

    def __init__(
        self, ledger: Ledger, step: str, question: str, document_hashes: Iterable[str]
    ) -> None:
        self._decisions: dict[str, Decision] = {}
        for some in in_parts(document_hashes):
            self._decisions |= ledger.reviews.answers(question, some)
        labelled = [
            audit
            for audit in ledger.audits.labelled(step)
            if not audit.shadow and audit.value is not None
        ]
        self._labels = {
            (audit.document_hash, canonical_hash(audit.value)): audit.right for audit in labelled
        }

    def of(self, answers: Sequence[Answer]) -> Sequence[Answer] | str:
        """All answers for one document, the best first, or why there is none: a person's word goes before a model's."""
        newest = sorted(answers, key=lambda answer: -answer.recorded_at)
        decision = self._decisions.get(newest[0].document_hash)
        if decision is None:
            return [replace(a, person="labelled right") if self._label(a) else a for a in newest]
        if decision.decision == "rejected":
            return "a person rejected the answer"
        base = next((answer for answer in newest if answer.run_id == decision.run_id), newest[0])
        edited = decision.decision == "edited"
        asked = frozenset().union(*(answer.asked for answer in answers)) if edited else base.asked
        person: Person = "edited" if edited else "approved"
        return [
            replace(base, value=decision.value, model=decision.model, asked=asked, person=person)
        ]

    def wrong(self, answer: Answer) -> bool:
        """Whether a person said that this answer is wrong."""
        return answer.person is None and self._label(answer) is False

    def _label(self, answer: Answer) -> bool | None:
        return self._labels.get((answer.document_hash, canonical_hash(answer.value)))


def choose(
    found: OnRecord, said: Judgements, wanted: Wanted, question: str
) -> tuple[list[Answer], Counter[str]]:
    """The best answer for each document, and how many documents have none, by the reason."""
    chosen: list[Answer] = []
    left_out: Counter[str] = Counter()
    for answers in found.answers.values():
        best = said.of(answers)
        if isinstance(best, str):
            left_out[best] += 1
            continue
        reasons = [_against(answer, found, said, wanted, question) for answer in best]
        if None in reasons:
            chosen.append(best[reasons.index(None)])
        else:
            left_out[str(reasons[0])] += 1
    return chosen, left_out


def _against(
    answer: Answer, found: OnRecord, said: Judgements, wanted: Wanted, question: str
) -> str | None:
    """Why an answer is not exported, or None."""
    if answer.question != question:
        return "another question: other parameters, or another output, than golden/STEP.yaml and the step have now"
    if answer.value is None:
        return "the answer is no longer kept"
    if said.wrong(answer):
        return "a person labelled the answer as wrong"
    if wanted.reviewed and answer.person is None:
        return "no person looked at the answer"
    if not answer.models:
        return "nobody stands for the answer any more: a person took it back"
    if wanted.models and not answer.models <= set(wanted.models):
        return "of other models than named"
    if wanted.tiers and not {tier for model in answer.models for tier in found.tiers[model]} <= set(
        wanted.tiers
    ):
        return "of other tiers than named"
    return None


def in_parts(names: Iterable[str]) -> Iterator[list[str]]:
    """Names in lists that fit into a query."""
    whole = list(names)
    for start in range(0, len(whole), _AT_ONCE):
        yield whole[start : start + _AT_ONCE]
