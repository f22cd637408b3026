"""The review queue: the deferred outcomes of a run, the decisions about them, and their retry."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierwise.cascade.known_outcomes import Retry
from tierwise.errors import Misuse, UnknownName
from tierwise.ledger.people.decisions import COMMENT, Decision, Version, Word
from tierwise.records import (
    GROUP_BY,
    Attempt,
    Document,
    FieldSource,
    Member,
    Outcome,
)
from tierwise.steps.step import json_parts

if TYPE_CHECKING:
    from tierwise.ledger import Ledger, OutcomeRow, RunRow
    from tierwise.project import Project


# Decisions that a document without any answer may have, such as one that could not be read.
_NEEDS_NO_ANSWER: tuple[Word, ...] = ("rejected", "again", "reopened", COMMENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewItem:
    """One outcome as a reviewer sees it: with attempts, question, and the decisions so far."""

    run_id: str
    document_id: str
    document_hash: str
    outcome: Outcome
    question: str | None
    decisions: tuple[Decision, ...]  # comments included
    version: Version  # of the item as it was read

    @property
    def step(self) -> str:
        """The step of the outcome."""
        return self.outcome.step

    @property
    def last_decision(self) -> Decision | None:
        """The last decision, None without one; a comment is none."""
        made = [each for each in self.decisions if each.decision != COMMENT]
        return made[-1] if made else None

    @property
    def faults(self) -> str:
        """The fault of each failed attempt, such as `small grounding, large label`."""
        faults = [_attempt_fault(attempt) for attempt in self.outcome.attempts]
        return ", ".join(fault for fault in faults if fault)


def waiting(
    ledger: Ledger, run_id: str, step: str | None = None
) -> Iterator[ReviewItem]:
    """Yield the deferred outcomes of a run, by document."""
    # a list, since reading an item below would fall into this open query
    for row in list(ledger.runs.outcomes(run_id, step=step, status="deferred")):
        yield _read_item(ledger, run_id, row)


def find_item(
    ledger: Ledger, run_id: str, document_id: str, step: str | None = None
) -> ReviewItem:
    """Return the deferred outcome of a document, or its only one. Raises UnknownName, Misuse."""
    rows = list(ledger.runs.outcomes(run_id, document_id))
    if not rows:
        raise UnknownName("document", document_id, ledger.reviews.documents(run_id))
    if step is not None:
        rows = [row for row in rows if row.outcome.step == step]
        if not rows:
            raise Misuse(
                f"{document_id} has no outcome of the step '{step}' in run {run_id}"
            )
    # a step that waits is meant, where others have an answer already
    deferred = [row for row in rows if row.outcome.status == "deferred"]
    candidates = deferred or rows
    if len(candidates) > 1:
        steps = ", ".join(row.outcome.step for row in candidates)
        raise Misuse(
            f"{document_id} has outcomes of several steps; name one with --step: {steps}"
        )
    return _read_item(ledger, run_id, candidates[0])


def reply_text(ledger: Ledger, attempt: Attempt) -> str | None:
    """Return a model's reply; None when the call failed or the reply is no longer kept."""
    if attempt.error:
        return None
    reply = ledger.runs.reply(attempt.call_hash)
    return reply.text if reply else None


@dataclass(frozen=True, slots=True)
class By:
    """Who decides: the name, a note, and the request that may arrive twice.

    `seen` is the text of the version that the person saw; without it, that of the item as read.
    """

    name: str
    note: str = ""
    request: str | None = None
    seen: str | None = None


def approve(
    ledger: Ledger, item: ReviewItem, number: int | None, *, by: By | str
) -> Decision:
    """Take an answer as it is: the outcome's own, or that of an attempt.

    `number` counts attempts from 1. Without it, the last attempt with an answer is taken. Raises
    Misuse when there is no answer that fits the question.
    """
    taken = answer_to_approve(ledger, item, number)
    return _record_decision(ledger, item, "approved", by=by, taken=taken)


@dataclass(frozen=True, slots=True)
class Taken:
    """An answer that a decision takes: its value, its model, and the sources of its fields."""

    value: Any = None
    model: str | None = None
    sources: Mapping[str, FieldSource] = field(default_factory=dict)


def answer_to_approve(
    ledger: Ledger, item: ReviewItem, number: int | None = None
) -> Taken:
    """Return the answer that an approval takes; see `approve`.

    Where fields are kept already, the attempt's answer fills in the open ones alone.
    """
    _refuse_unread(item)
    outcome = item.outcome
    # a deferral for review has its answer already: there is no attempt to choose
    if number is None and outcome.value is not None and not outcome.open_fields:
        return Taken(outcome.value, outcome.model, outcome.sources)
    for attempt in _attempts_to_approve(item, number):
        text = reply_text(ledger, attempt)
        if text:
            # the reply may have failed every check, even that of its schema
            what = f"the answer of {attempt.model}"
            value = parse_answer(ledger, item, text, what, kept_last=True)
            sources = {}
            for name in _fields_by_source(item):
                confidence = (attempt.field_confidences or {}).get(name)
                sources[name] = FieldSource(attempt.model, attempt.id, confidence)
            return Taken(value, attempt.model, _with_kept(item, value, sources))
    raise Misuse(
        "there is no answer to approve: none was given, or it is no longer kept; "
        "use --edit or --reject"
    )


def _attempts_to_approve(item: ReviewItem, number: int | None) -> list[Attempt]:
    """Return the attempt of a number, else all, the last one first. Raises Misuse."""
    attempts = item.outcome.attempts
    if number is None:
        return list(reversed(attempts))
    if not 1 <= number <= len(attempts):
        raise Misuse(
            f"there is no attempt {number}; {item.document_id} has {len(attempts)} at {item.step}"
        )
    return [attempts[number - 1]]


def edit(ledger: Ledger, item: ReviewItem, text: str, *, by: By | str) -> Decision:
    """Take a person's answer, given as JSON. Raises Misuse when it does not fit the question.

    Where fields are kept already, the person may give the open ones alone.
    """
    value = parse_answer(ledger, item, text, "the edited answer")
    name = by if isinstance(by, str) else by.name
    own = {field_name: FieldSource(name) for field_name in _fields_by_source(item)}
    taken = Taken(value, sources=_with_kept(item, value, own))
    return _record_decision(ledger, item, "edited", by=by, taken=taken)


def kept_fields(item: ReviewItem) -> dict[str, Any]:
    """Return the fields of an answer that are kept while others are open."""
    value = item.outcome.value
    if not item.outcome.open_fields or not isinstance(value, Mapping):
        return {}
    return dict(value)


def draft(ledger: Ledger, item: ReviewItem) -> dict[str, Any]:
    """Return the open fields as a model answered them last, null where none did.

    Without open fields, it is the answer of the outcome.
    """
    outcome = item.outcome
    if not outcome.open_fields:
        return dict(outcome.value or {})
    answered: dict[str, Any] = {}
    for attempt in outcome.attempts:
        for part in json_parts(reply_text(ledger, attempt) or ""):
            try:
                answer = json.loads(part)
            except ValueError:
                continue
            if isinstance(answer, Mapping):
                answered.update(answer)
    return {name: answered.get(name) for name in outcome.open_fields}


def _fields_by_source(item: ReviewItem) -> tuple[str, ...]:
    """Return the fields of a step by field; none for another step."""
    outcome = item.outcome
    return (*outcome.sources, *outcome.open_fields)


def _with_kept(
    item: ReviewItem, value: Any, sources: Mapping[str, FieldSource]
) -> dict[str, FieldSource]:
    """Return the sources of an answer's fields; a field that stayed keeps its source."""
    before = item.outcome.value or {}
    kept = item.outcome.sources
    stayed = {
        name: source
        for name, source in kept.items()
        if name in before and before[name] == value.get(name)
    }
    return {**sources, **stayed}


def reject(ledger: Ledger, item: ReviewItem, *, by: By | str) -> Decision:
    """Take no answer: the document is finished, and later steps skip it.

    One that could not be read is dismissed: later runs that fail to read it for the same reason
    ask nobody again.
    """
    return _record_decision(ledger, item, "rejected", by=by)


def send_again(ledger: Ledger, item: ReviewItem, *, by: By | str) -> Decision:
    """Ask the models once more, in the next `tierwise retry`: paid answers are not reused."""
    return _record_decision(ledger, item, "again", by=by)


def comment(ledger: Ledger, item: ReviewItem, *, by: By) -> Decision:
    """Record a comment, which decides nothing. Raises Misuse for an empty one."""
    if not by.note.strip():
        raise Misuse("a comment needs some text")
    return _record_decision(ledger, item, "commented", by=by)


def reopen(ledger: Ledger, item: ReviewItem, *, by: By | str) -> Decision:
    """Take the last decision back. Raises Misuse when there is none."""
    # only the last decision counts, and a reopened one is open already
    last = item.last_decision
    if last is None or last.decision == "reopened":
        raise Misuse(f"nothing was decided about {item.document_id} at {item.step}")
    return _record_decision(ledger, item, "reopened", by=by)


def find_texts(
    ledger: Ledger, project: Project, run: RunRow, hashes: Iterable[str]
) -> dict[str, str]:
    """Return the texts of documents by hash, from the ledger or from the run's source."""
    wanted = set(hashes)
    texts = ledger.retention.texts(wanted)
    # the ledger keeps texts only where the project says so; else they are read again
    for source in _source_paths(ledger, project, run):
        if wanted <= texts.keys():
            break
        texts |= _read_texts(project, source, wanted - texts.keys())
    groups = ledger.groups.members_by_hash(run.id, wanted - texts.keys())
    if groups:
        texts |= _group_texts(ledger, project, run, groups)
    return texts


def _group_texts(
    ledger: Ledger,
    project: Project,
    run: RunRow,
    groups: Mapping[str, tuple[Member, ...]],
) -> dict[str, str]:
    """Return the texts of groups, made once more of their members' texts.

    One that a flow's own function made is not among them.
    """
    # as above: needed only where texts are shown
    from tierwise.documents.groups import joined_text

    hashes = {member.hash for members in groups.values() for member in members}
    member_texts = find_texts(ledger, project, run, hashes)
    texts: dict[str, str] = {}
    for group_hash, members in groups.items():
        if not all(member.hash in member_texts for member in members):
            continue
        documents = [
            Document(id=member.id, text=member_texts[member.hash]) for member in members
        ]
        text = joined_text(documents)
        if Document(id="", text=text, members=members).hash == group_hash:
            texts[group_hash] = text
    return texts


def find_text(
    ledger: Ledger, project: Project, run: RunRow, document_id: str, document_hash: str
) -> str | None:
    """Return the text of one document, from the ledger or from the run's source; None if gone.

    Its own file is read first: a source may have many thousand others.
    """
    text = ledger.retention.texts([document_hash]).get(document_hash)
    if text is not None:
        return text
    for source in _source_paths(ledger, project, run):
        own = _own_file(source, document_id)
        if own is not None:
            found = _read_texts(project, own, {document_hash}).get(document_hash)
            if found is not None:
                return found
    return find_texts(ledger, project, run, [document_hash]).get(document_hash)


def _own_file(source: Path, document_id: str) -> Path | None:
    """Return the file that a document's id names within its source; None without one."""
    # An id is text from outside, such as the name of an attached file.
    if not document_id.isprintable():
        return None
    for name in (document_id, document_id.partition("#")[0]):
        try:
            path = (source / name).resolve()
            if path.is_file() and path.is_relative_to(source.resolve()):
                return path
        except OSError:
            continue  # such as a name that is too long
    return None


def find_metadata(
    ledger: Ledger, project: Project, run: RunRow, hashes: Iterable[str]
) -> dict[str, Mapping[str, str]]:
    """Return the metadata of documents by hash, as reading the run's source again gives it."""
    wanted = set(hashes)
    metadata: dict[str, Mapping[str, str]] = {}
    for source in _source_paths(ledger, project, run):
        # the first source that has a document decides
        for document in _read_wanted(project, source, wanted - metadata.keys()):
            metadata[document.hash] = document.metadata
    return metadata


@dataclass(frozen=True, slots=True)
class PlannedRetry:
    """A run to repeat, and those of its documents that wait and are meant."""

    retry: Retry
    waiting: frozenset[str]


def planned(
    ledger: Ledger, run_id: str, meant: Collection[str], still_open: Collection[str]
) -> PlannedRetry:
    """Return the retry of a run for these of its documents; `still_open` are all that wait in it.

    Documents that a later run took up are asked again too. Their old outcome must not become the
    newest one: they go through once more, with the answers paid for then.
    """
    deferred = {document_id for document_id, _, _ in ledger.reviews.waited(run_id)}
    taken_up = deferred.difference(still_open)
    documents = frozenset(ledger.reviews.documents(run_id))
    retry = Retry(run_id, documents, frozenset(meant) | taken_up)
    return PlannedRetry(retry, frozenset(meant))


def plan_retry(
    ledger: Ledger, run_id: str, step: str | None = None, reason: str = ""
) -> PlannedRetry:
    """Return the documents to ask about again: deferred at a step and for a reason.

    Documents that were decided about by now are among them. Raises Misuse when there are none.
    """
    deferred = ledger.reviews.waited(run_id)
    again: set[str] = set()
    for document_id, deferred_at, deferred_for in deferred:
        same_step = step is None or step == deferred_at
        # an empty reason is in every text; upper and lower case are the same
        if same_step and reason.casefold() in deferred_for.casefold():
            again.add(document_id)
    if not again:
        among = f"; {len(deferred)} were deferred in all" if deferred else ""
        raise Misuse(f"run {run_id} deferred no such document{among}")
    still_open = {
        row.document_id for row in ledger.runs.queue() if row.run_id == run_id
    }
    return planned(ledger, run_id, again, still_open)


def find_retry(
    ledger: Ledger, step: str | None = None, reason: str = ""
) -> PlannedRetry | None:
    """Return the documents to ask about again in the latest run that has some; None without any.

    A document that a later run of the same flow asked about does not wait any more.
    """
    for run_id in ledger.runs.waiting():
        try:
            return plan_retry(ledger, run_id, step, reason)
        except Misuse:
            continue  # none of this step and reason
    return None


def _read_item(ledger: Ledger, run_id: str, row: OutcomeRow) -> ReviewItem:
    step = row.outcome.step
    # Before all that is shown: what is decided meanwhile is then newer than this version.
    version = ledger.reviews.version(
        run_id, row.document_id, step, row.question, row.document_hash
    )
    attempts = tuple(ledger.runs.attempts(run_id, row.document_id, step))
    return ReviewItem(
        run_id=run_id,
        document_id=row.document_id,
        document_hash=row.document_hash,
        outcome=replace(row.outcome, attempts=attempts),
        question=row.question,
        decisions=tuple(ledger.reviews.history(run_id, row.document_id, step)),
        version=version,
    )


def _attempt_fault(attempt: Attempt) -> str:
    """Return the model and the failed check or error of an attempt; nothing for a good one."""
    for verdict in attempt.verdicts:
        # None is a check that could not be scored, which is no fault of the answer
        if verdict.passed is False:
            return f"{attempt.model} {verdict.check}"
    return f"{attempt.model} {attempt.error}" if attempt.error else ""


def _record_decision(
    ledger: Ledger,
    item: ReviewItem,
    word: Word,
    *,
    by: By | str,
    taken: Taken | None = None,
) -> Decision:
    """Record a decision. Raises Misuse where the step asked nothing."""
    decision = decision_about(item, word, by, taken)
    return ledger.reviews.decide(decision)


def decision_about(
    item: ReviewItem,
    word: Word,
    by: By | str,
    taken: Taken | None = None,
) -> Decision:
    """Return a decision, which is not recorded. Raises Misuse where the step asked nothing."""
    if isinstance(by, str):
        by = By(by)
    taken = taken or Taken()
    if word not in _NEEDS_NO_ANSWER:
        _refuse_unread(item)
    return Decision(
        run_id=item.run_id,
        document_id=item.document_id,
        document_hash=item.document_hash,
        step=item.step,
        # with the hash, this is what a later run finds the decision by
        question=item.question,
        decision=word,
        value=taken.value,
        model=taken.model,
        sources=taken.sources,
        sensitivity=item.outcome.sensitivity,
        reviewer=by.name,
        reviewed_at=time.time(),
        note=by.note,
        seen=by.seen or item.version.text,
        request=by.request or uuid.uuid4().hex,
    )


def _refuse_unread(item: ReviewItem) -> None:
    """Raise Misuse for a document that could not be read: no model was asked about it."""
    if item.step == GROUP_BY:
        raise Misuse(
            f"{item.document_id} is a group, so there is no answer to accept: decide about its "
            f"members, then `tierwise retry`; the reason: {item.outcome.reason}"
        )
    if item.question is None:
        raise Misuse(
            f"{item.document_id} could not be read, so there is no answer to accept: reject it, or "
            "mend the file (or put a text file in its place) and run `tierwise retry`; "
            f"the reason: {item.outcome.reason}"
        )


def parse_answer(
    ledger: Ledger, item: ReviewItem, text: str, what: str, *, kept_last: bool = False
) -> Any:
    """Return the JSON object in a text, which has to fit the step's schema. Raises Misuse.

    Kept fields that are not in it are added. With `kept_last` they replace those that are.
    """
    _refuse_unread(item)
    # as recorded with the run, since tasks/ may have changed meanwhile
    schema = ledger.reviews.schema(item.question or "")
    if schema is None:
        raise Misuse(
            f"the question of the step {item.step} is not recorded; run the flow again first"
        )
    kept = kept_fields(item)

    def complete(answer: Any) -> Any:
        if not kept or not isinstance(answer, Mapping):
            return answer
        merged = {**answer, **kept} if kept_last else {**kept, **answer}
        # in the order of the schema, as a model answers
        names = [name for name in schema.get("properties", {}) if name in merged]
        return {name: merged[name] for name in (*names, *merged)}

    return fitting_answer(schema, item.step, text, what, complete)


def fitting_answer(
    schema: Mapping[str, Any],
    step: str,
    text: str,
    what: str,
    complete: Callable[[Any], Any] = lambda answer: answer,
) -> Any:
    """Return the JSON object in a text, which has to fit a step's schema. Raises Misuse.

    `complete` adds what is known already.
    """
    # needed for a decision alone; listing the queue starts without it
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    validator = Draft202012Validator(schema)
    # A reply may have words around the object. Several that fit have to agree, as in `Step.parse`.
    fault = "it contains no JSON object"
    values: list[Any] = []
    for part in json_parts(text):
        try:
            value = complete(json.loads(part))
        except ValueError as error:
            fault = str(error)
            continue
        mismatch = best_match(validator.iter_errors(value))
        if mismatch is None:
            if value not in values:
                values.append(value)
            continue
        place = mismatch.json_path.removeprefix("$").lstrip(".")
        fault = f"{place}: {mismatch.message}" if place else mismatch.message
    if len(values) > 1:
        raise Misuse(
            f"{what} contains {len(values)} different answers to the step {step}; give one"
        )
    if values:
        return values[0]
    raise Misuse(f"{what} does not fit the step {step}: {fault}")


def _source_paths(ledger: Ledger, project: Project, run: RunRow) -> list[Path]:
    """Return the files and folders that the run's parameters name, `source` first.

    The folders that its files moved to follow: the flow's code may name these.
    """
    # False sorts before True; any text may turn out to be a path
    parameters = sorted(run.parameters.items(), key=lambda pair: pair[0] != "source")
    paths: list[Path] = []
    for _, value in parameters:
        if not isinstance(value, str) or not value.strip():
            continue
        path = project.root / value
        # "." would read the whole project
        if path.exists() and path != project.root:
            paths.append(path)
    done = (project.root / name for name in ledger.folders.done_folders(run.id))
    return paths + [path for path in done if path.exists() and path not in paths]


def _read_texts(project: Project, source: Path, wanted: set[str]) -> dict[str, str]:
    """Return the texts of a source whose hashes are wanted."""
    return {
        document.hash: document.text
        for document in _read_wanted(project, source, wanted)
    }


def _read_wanted(
    project: Project, source: Path, wanted: set[str]
) -> Iterator[Document]:
    """Yield the documents of a source whose hashes are wanted, until all are found."""
    from tierwise.documents import iter_documents

    found: set[str] = set()
    try:
        # found by hash, so the level does not matter; a partly read document may be wanted, too
        documents = iter_documents(
            source,
            sensitivity="restricted",
            incomplete="accept",
            settings=project.reading,
        )
        for document in documents:
            if document.hash in wanted:
                found.add(document.hash)
                yield document
            if wanted <= found:
                break
    except Misuse:  # an empty folder, or no documents: then there is nothing to find
        pass
