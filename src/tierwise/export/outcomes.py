"""The recorded outcomes of a step as the table that `tierwise replay` reads.

A row is one model's answer to one document. The table has the documents that all of its models
answered, with today's version of the prompt and the same parameters: in escalations, shadow calls,
certification and `tierwise try`. A table has one kind of score, since a passed check is not a right
answer.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tierwise.errors import Misuse, UnknownName
from tierwise.evidence.replay.outcomes import COLUMNS, CONFIDENCE
from tierwise.explain.decisions import step_of
from tierwise.export.answers import query_parts
from tierwise.records import Verdict
from tierwise.steps.correctness import Rubric
from tierwise.steps.examples import read_golden
from tierwise.text.amounts import plural, total
from tierwise.text.files import write_atomically
from tierwise.text.rows import csv_text

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, OutcomeRow
    from tierwise.project import Project
    from tierwise.records import Attempt
    from tierwise.steps.step import Step

ScoredBy = Literal["right", "checks"]
_MAX_RUNS = 10_000  # the newest ones
# A low confidence hands a document on; it does not make the answer wrong.
_NO_FAULT = "low_confidence"
# Further calls for the same answer; a document that is read in parts has several others.
_FURTHER = ("retry", "repair")
_Key = tuple[str, str]  # the document's hash, and the question


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswer:
    """The last answer of one model to one document in one run, with all calls that it took."""

    row: OutcomeRow
    model: str
    attempts: tuple[Attempt, ...]

    @property
    def answered(self) -> tuple[Attempt, ...]:
        """The calls that were answered."""
        return tuple(attempt for attempt in self.attempts if attempt.error is None)

    @property
    def passed(self) -> bool:
        """True if the last answer passed its checks."""
        return not any(
            verdict.passed is False and verdict.check != _NO_FAULT
            for verdict in self.answered[-1].verdicts
        )

    @property
    def in_parts(self) -> bool:
        """True if the document was read in parts, so that no single call has the answer."""
        calls = [attempt for attempt in self.answered if attempt.kind not in _FURTHER]
        return len(calls) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeItem:
    """One row of the table."""

    item: str
    step: str
    prompt_tokens: int
    model: str
    tier: str
    score: int
    cost_usd: Decimal
    confidence: float | None = None  # that the model reported for its answer


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomesExport:
    """The rows of a table; `left_out` counts documents by the reason."""

    models: tuple[str, ...]
    scored_by: ScoredBy
    rows: tuple[OutcomeItem, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def items(self) -> int:
        """The number of documents."""
        return len(self.rows) // len(self.models)


class _LeftOut(Exception):
    """Raised for a document that cannot be in the table, with the reason."""


def collect_outcomes(
    project: Project,
    ledger: Ledger,
    step_name: str,
    *,
    models: Sequence[str] = (),
    scored_by: ScoredBy = "right",
) -> OutcomesExport:
    """Return the documents that all `models` answered (default: all that answered any).

    Scored by `right`, an answer gets 1 if it is the right one: that of a golden row, of a review
    or of a label. By `checks`, it gets 1 if it passed its checks. Raises UnknownName, LedgerError,
    and Misuse where nothing can be compared.
    """
    step, _ = step_of(project, step_name)
    if step is None:
        step = project.load_step(step_name)  # raises
    step.require_model("compare")
    for name in models:
        if name not in project.catalog.models:
            raise UnknownName("model", name, project.catalog.models)
    found = _read_answers(ledger, project, step)
    compared = tuple(dict.fromkeys(models)) or _all_models(found)
    if len(compared) < 2:
        answered = ", ".join(compared) or "no model"
        raise Misuse(
            f"{answered} is not enough for {step.name}: replay compares the answers of two models "
            f"or more to the same documents; `tierwise certify {step.name}` and `shadow` in the "
            "rules record them"
        )
    scorer = _Scorer(project, ledger, step, scored_by, found)
    rows: list[OutcomeItem] = []
    left_out: Counter[str] = Counter()
    incomplete: dict[str, str] = {}  # by hash: why
    done: set[str] = set()  # hashes
    ids: set[str] = set()
    for (document_hash, _), by_model in found.items():
        # one text may have been asked with several questions: the first complete one is taken
        if document_hash in done:
            continue
        missing = [name for name in compared if name not in by_model]
        if missing:
            incomplete[document_hash] = f"not answered by {', '.join(missing)}"
            continue
        done.add(document_hash)
        item = _unique_id(by_model[compared[0]], ids)
        try:
            # A list, so that a document is in the table with all its models or with none.
            rows += [scorer.row(item, by_model[name]) for name in compared]
        except _LeftOut as reason:
            left_out[reason.args[0]] += 1
    for document_hash, why in incomplete.items():
        # It may have been answered with other parameters.
        if document_hash not in done:
            left_out[why] += 1
    return OutcomesExport(
        models=compared,
        scored_by=scored_by,
        rows=tuple(rows),
        left_out=dict(left_out.most_common()),
    )


def write_outcomes(export: OutcomesExport, path: Path, *, force: bool) -> None:
    """Write the table, packed where the name ends in .gz. Raises Misuse."""
    if path.exists() and not force:
        raise Misuse(
            f"{path} is there already; name another file, or overwrite it with --force"
        )
    # replay ignores further columns
    header = [*COLUMNS, "scored_by"]
    if any(row.confidence is not None for row in export.rows):
        header.append(CONFIDENCE)
    rows = []
    for row in export.rows:
        values = {**asdict(row), "scored_by": export.scored_by}
        # csv writes None as an empty cell
        rows.append([values[name] for name in header])
    data = csv_text(header, rows).encode()
    if path.suffix == ".gz":
        # without a time, equal tables give equal files
        data = gzip.compress(data, mtime=0)
    try:
        write_atomically(path, data, private=True)
    except OSError as error:
        raise Misuse(
            f"{path} cannot be written: {error.strerror}; name a file in a folder that exists"
        ) from None


def _all_models(found: Mapping[_Key, Mapping[str, ModelAnswer]]) -> tuple[str, ...]:
    names: set[str] = set()
    for by_model in found.values():
        names.update(by_model)
    return tuple(sorted(names))


def _unique_id(answer: ModelAnswer, ids: set[str]) -> str:
    """Return the document's id; with some of its hash, where another text has the same id."""
    own_id = answer.row.document_id
    if own_id in ids:
        own_id = f"{own_id}~{answer.row.document_hash[:8]}"
    ids.add(own_id)
    return own_id


# ---- from the ledger ----------------------------------------------------------------------------


def _read_answers(
    ledger: Ledger, project: Project, step: Step
) -> dict[_Key, dict[str, ModelAnswer]]:
    """Return the newest answer of each model in the catalog, by document and question."""
    prompt = project.prompts[step.prompt].label
    found: dict[_Key, dict[str, ModelAnswer]] = {}
    for run in ledger.runs.newest(_MAX_RUNS):
        rows = {
            row.document_id: row for row in ledger.runs.outcomes(run.id, step=step.name)
        }
        attempts = [
            attempt
            for attempt in ledger.runs.attempts(run.id, step=step.name)
            if attempt.kind != "judge" and attempt.prompt == prompt
        ]
        for answer in _answers_of(rows, attempts):
            if answer.model in project.catalog.models:
                key = (answer.row.document_hash, answer.row.question or "")
                # the newest run comes first
                found.setdefault(key, {}).setdefault(answer.model, answer)
    return found


def _answers_of(
    rows: Mapping[str, OutcomeRow], attempts: Iterable[Attempt]
) -> Iterator[ModelAnswer]:
    """Yield each model's answer to each document of a run."""

    def document_and_model(attempt: Attempt) -> tuple[str, str]:
        return attempt.document_id, attempt.model

    # groupby joins neighbours alone. Sorting keeps the order of a document's calls to one model.
    ordered = sorted(attempts, key=document_and_model)
    for (document_id, model), group in groupby(ordered, key=document_and_model):
        row = rows.get(document_id)
        if row is None:  # the process ended before there was an outcome
            continue
        answer = ModelAnswer(row=row, model=model, attempts=tuple(group))
        # Without verdicts, nobody knows whether it passed.
        if answer.answered and answer.answered[-1].verdicts:
            yield answer


# ---- rows ---------------------------------------------------------------------------------------


class _Scorer:
    """Makes rows of answers."""

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        step: Step,
        scored_by: ScoredBy,
        found: Mapping[_Key, Mapping[str, ModelAnswer]],
    ) -> None:
        self._project = project
        self._ledger = ledger
        self._step = step
        self._scored_by = scored_by
        self._expected: dict[str, Mapping[str, Any]] = {}  # by the document's hash
        if scored_by == "right":
            _check_measure(step)
            self._expected = _right_answers(project, ledger, step, found)

    def row(self, item: str, answer: ModelAnswer) -> OutcomeItem:
        """Return an answer as a row. Raises _LeftOut."""
        model = self._project.catalog.model(answer.model)
        # Today's price, also for a call that was paid in an earlier run.
        counted = [
            attempt
            for attempt in answer.attempts
            if attempt.usage or attempt.error is None
        ]
        cost = total(model.cost(attempt.usage) for attempt in counted)
        if cost is None:
            raise _LeftOut(f"the cost of {model.name} is unknown")
        return OutcomeItem(
            item=item,
            step=self._step.name,
            prompt_tokens=_prompt_tokens(answer),
            model=model.name,
            tier=model.tier,
            score=int(self._is_good(answer)),
            cost_usd=cost,
            confidence=answer.answered[-1].confidence,
        )

    def _is_good(self, answer: ModelAnswer) -> bool:
        if self._step.by_field:
            self._whole_answer(answer)
        if self._scored_by == "checks":
            return answer.passed
        expected = self._expected.get(answer.row.document_hash)
        if expected is None:
            raise _LeftOut("no right answer is known; --scored-by checks needs none")
        # production would not have accepted it, so it counts as wrong whatever it says
        if not answer.passed:
            return False
        measure = self._step.correct
        return measure is not None and measure(self._value(answer), expected)

    def _value(self, answer: ModelAnswer) -> Mapping[str, Any]:
        outcome = answer.row.outcome
        if self._step.by_field:
            return self._whole_answer(answer)
        if outcome.model == answer.model and outcome.status == "accepted":
            accepted: Mapping[str, Any] | None = outcome.value
        elif answer.in_parts:
            raise _LeftOut("read in parts, without an accepted answer")
        else:
            accepted = self._parsed(answer)
        if accepted is None:
            raise _LeftOut("an answer is no longer kept")
        return accepted

    def _whole_answer(self, answer: ModelAnswer) -> Mapping[str, Any]:
        """Return a model's own answer in a step by field. Raises _LeftOut for a part of one.

        The outcome may have fields of other models.
        """
        own = self._parsed(answer)
        if own is None:
            raise _LeftOut("asked for some of its fields alone, or no longer kept")
        return own

    def _parsed(self, answer: ModelAnswer) -> Mapping[str, Any] | None:
        last_call = answer.answered[-1]
        reply = self._ledger.runs.reply(last_call.call_hash)
        if reply is None:  # the ledger no longer keeps it
            return None
        output = self._step.parse(reply.text)
        # A verdict says why an answer cannot be read.
        if isinstance(output, Verdict):
            return None
        value: Mapping[str, Any] = output.model_dump(mode="json")
        return value


def _prompt_tokens(answer: ModelAnswer) -> int:
    """Return the prompt's length as the router saw it, or else as the server counted it."""
    route = answer.row.outcome.route
    estimated = route.features.get("prompt_tokens") if route else None
    if estimated is not None:
        return int(estimated)
    usage = answer.answered[0].usage
    if usage is None:
        raise _LeftOut("the length of the prompt is unknown")
    return usage.prompt_tokens


def _check_measure(step: Step) -> None:
    """Raise Misuse for a step whose answers cannot be compared with a right one."""
    if step.correct is None or isinstance(step.correct, Rubric):
        raise Misuse(
            f"{step.name} has no measure that compares an answer with the right one (`correct=`); "
            "score it with --scored-by checks"
        )


def _right_answers(
    project: Project,
    ledger: Ledger,
    step: Step,
    found: Mapping[_Key, Mapping[str, ModelAnswer]],
) -> dict[str, Mapping[str, Any]]:
    """Return the right answers by document hash: of labels, of reviews, and of golden rows."""
    # Later sources replace earlier ones: labels, then reviews, then golden rows.
    expected: dict[str, Mapping[str, Any]] = {}
    for sample in ledger.samples.labelled(step.name):
        if sample.right and sample.value is not None:
            expected[sample.document_hash] = sample.value
    hashes_by_question: dict[str, list[str]] = {}
    for document_hash, question in found:
        hashes_by_question.setdefault(question, []).append(document_hash)
    for question, all_hashes in hashes_by_question.items():
        for hashes in query_parts(all_hashes):
            decisions = ledger.reviews.answers(question, hashes)
            for document_hash, decision in decisions.items():
                if decision.value is not None and decision.decision != "rejected":
                    expected[document_hash] = decision.value
    path = project.root / "golden" / f"{step.name}.jsonl"
    if path.exists():
        examples, faults = read_golden(path, at_least=0)
        for fault in faults:
            raise fault
        for example in examples.values():
            expected[example.document().hash] = example.expected
    return expected


def summary(export: OutcomesExport) -> dict[str, Any]:
    """Return the figures of an export as plain data."""
    good: Counter[str] = Counter()
    for row in export.rows:
        good[row.model] += row.score
    return {
        "items": export.items,
        "models": list(export.models),
        "scored_by": export.scored_by,
        "good": {name: good[name] for name in export.models},
        "left_out": dict(export.left_out),
    }


def headline(export: OutcomesExport) -> str:
    """Return the figures of an export as a sentence."""
    word = "right" if export.scored_by == "right" else "passed the checks"
    good = summary(export)["good"]
    counts = [f"{name} {count} {word}" for name, count in good.items()]
    documents = plural(export.items, "document")
    return f"{documents}: {', '.join(counts)}"
